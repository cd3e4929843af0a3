//! The open tables of a shard as they are at one moment. Whoever reads keeps them as long as it takes; a flush or a
//! merge makes others.

use std::collections::BTreeMap;
use std::rc::Rc;

use ostrakon_core::hlc::Timestamp;
use ostrakon_core::lsm::{Edit, Misfit, TableInfo, TableNumber, Tree};

use crate::storage::sstable::reader::{Found, Look, Table, TableError};

/// One table: what its tree knows of it, and the open file.
#[derive(Clone)]
pub struct OpenTable {
    /// What the tree knows.
    pub info: Rc<TableInfo>,
    /// The file.
    pub table: Rc<Table>,
}

/// Tables that share no key, in order.
pub type OpenRun = Vec<OpenTable>;

/// All tables of a shard.
#[derive(Clone, Default)]
pub struct Tables {
    tree: Tree,
    /// Those of the tree, from the newest run to the oldest.
    runs: Vec<OpenRun>,
}

impl Tables {
    /// The tables of a tree, each of which is open.
    ///
    /// # Panics
    /// If one is not.
    pub fn new(tree: Tree, open: &BTreeMap<TableNumber, Rc<Table>>) -> Tables {
        let open_table = |info: &Rc<TableInfo>| OpenTable {
            info: Rc::clone(info),
            table: Rc::clone(open.get(&info.number).expect("each table of a tree is open")),
        };
        let runs = tree.runs().filter(|run| !run.is_empty());
        let runs = runs.map(|run| run.iter().map(open_table).collect()).collect();
        Tables { tree, runs }
    }

    /// These after an edit that brings the tables in `opened`.
    ///
    /// # Errors
    /// If the edit does not fit.
    pub fn after(&self, edit: &Edit, opened: &[Rc<Table>]) -> Result<Tables, Misfit> {
        let mut tree = self.tree.clone();
        tree.apply(edit)?;
        let own = self.runs.iter().flatten();
        let own = own.map(|open| (open.info.number, Rc::clone(&open.table)));
        let brought = opened.iter().map(|table| (table.id().number, Rc::clone(table)));
        Ok(Tables::new(tree, &own.chain(brought).collect()))
    }

    /// What is known of them without a look at the files.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The runs that have a table, from the newest to the oldest.
    pub fn runs(&self) -> &[OpenRun] {
        &self.runs
    }

    /// The table of this number, if it is here.
    pub fn get(&self, number: TableNumber) -> Option<&OpenTable> {
        self.runs.iter().flatten().find(|open| open.info.number == number)
    }

    /// Bytes that open tables keep in memory.
    pub fn held_bytes(&self) -> usize {
        self.runs
            .iter()
            .flatten()
            .map(|open| open.table.held_bytes())
            .sum()
    }

    /// The newest version of a key at or below `snapshot`, as far as it is known without a read. `hash` is that of the
    /// user's key.
    ///
    /// # Errors
    /// If an index is damaged.
    pub fn look(&self, stored_key: &[u8], hash: u64, snapshot: Timestamp) -> Result<Look, TableError> {
        for table in self.candidates(stored_key, hash) {
            match table.look(stored_key, snapshot)? {
                Look::Absent => {}
                look => return Ok(look),
            }
        }
        Ok(Look::Absent)
    }

    /// The newest version of a key at or below `snapshot`.
    ///
    /// # Errors
    /// If a block can't be read, or is damaged.
    pub async fn find(
        &self,
        stored_key: &[u8],
        hash: u64,
        snapshot: Timestamp,
    ) -> Result<Option<Found>, TableError> {
        for table in self.candidates(stored_key, hash) {
            if let Some(found) = table.version_at(stored_key, snapshot).await? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Tables that may have the key, from the newest to the oldest.
    fn candidates<'a>(&'a self, stored_key: &'a [u8], hash: u64) -> impl Iterator<Item = &'a Rc<Table>> {
        self.runs.iter().filter_map(move |run| {
            let place = run.partition_point(|open| *open.info.largest < *stored_key);
            let open = run.get(place).filter(|open| open.info.covers(stored_key))?;
            open.table.may_have(hash).then_some(&open.table)
        })
    }
}
