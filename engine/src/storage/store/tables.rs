//! The open tables of a shard as they are at one moment. Whoever reads keeps them as long as it takes; a flush or a
//! merge makes others.

use std::collections::BTreeMap;
use std::rc::Rc;

use ostrakon_core::hlc::Timestamp;
use ostrakon_core::lsm::{Edit, Misfit, TableInfo, TableNumber, Tree};

use crate::storage::memtable::Version;
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

/// The table of a run that may have something of a key.
pub fn table_of<'a>(run: &'a OpenRun, stored_key: &[u8]) -> Option<&'a OpenTable> {
    let place = run.partition_point(|open| open.info.ends_before(stored_key));
    run.get(place).filter(|open| open.info.covers(stored_key))
}

/// A version of a key in tables.
#[derive(Clone)]
pub enum InTables {
    /// It lies in a block.
    Block(Found),
    /// A range tombstone of this timestamp.
    Deleted(Timestamp),
}

impl InTables {
    /// The version.
    pub fn version(&self) -> Version<'_> {
        match self {
            InTables::Block(found) => found.version(),
            InTables::Deleted(timestamp) => Version::tombstone(*timestamp),
        }
    }
}

/// What is known of a key's version without a read.
pub enum TablesLook {
    /// It is here.
    Found(InTables),
    /// The tables have none.
    Absent,
    /// A block has to be read.
    Unknown,
}

/// All tables of a shard.
#[derive(Clone, Default)]
pub struct Tables {
    tree: Tree,
    /// Those of the tree, from the newest run to the oldest.
    runs: Vec<OpenRun>,
    /// Keys and bytes of each run.
    sizes: Vec<RunSize>,
}

/// How much a run has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunSize {
    /// Keys.
    pub keys: u64,
    /// Bytes of the files.
    pub bytes: u64,
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
        let runs: Vec<OpenRun> = runs.map(|run| run.iter().map(open_table).collect()).collect();
        let sizes = runs.iter().map(|run| RunSize {
            keys: run.iter().map(|open| open.info.keys).sum(),
            bytes: run.iter().map(|open| open.info.bytes).sum(),
        });
        let sizes = sizes.collect();
        Tables { tree, runs, sizes }
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

    /// How much each of these runs has.
    pub fn run_sizes(&self) -> &[RunSize] {
        &self.sizes
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
    pub fn look(&self, stored_key: &[u8], hash: u64, snapshot: Timestamp) -> Result<TablesLook, TableError> {
        for candidate in self.candidates(stored_key, hash, snapshot) {
            if candidate.has_to_be_asked {
                match candidate.table.look(stored_key, snapshot)? {
                    Look::Found(found) if Some(found.version().timestamp) > candidate.deleted => {
                        return Ok(TablesLook::Found(InTables::Block(found)));
                    }
                    Look::Found(_) | Look::Absent => {}
                    Look::Unknown => return Ok(TablesLook::Unknown),
                }
            }
            if let Some(deleted) = candidate.deleted {
                return Ok(TablesLook::Found(InTables::Deleted(deleted)));
            }
        }
        Ok(TablesLook::Absent)
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
    ) -> Result<Option<InTables>, TableError> {
        for candidate in self.candidates(stored_key, hash, snapshot) {
            if candidate.has_to_be_asked
                && let Some(found) = candidate.table.version_at(stored_key, snapshot).await?
                && Some(found.version().timestamp) > candidate.deleted
            {
                return Ok(Some(InTables::Block(found)));
            }
            if let Some(deleted) = candidate.deleted {
                return Ok(Some(InTables::Deleted(deleted)));
            }
        }
        Ok(None)
    }

    /// Tables that may have the key, from the newest to the oldest.
    fn candidates<'a>(
        &'a self,
        stored_key: &'a [u8],
        hash: u64,
        snapshot: Timestamp,
    ) -> impl Iterator<Item = Candidate<'a>> {
        self.runs.iter().filter_map(move |run| {
            let table = &table_of(run, stored_key)?.table;
            let ranges = table.ranges();
            if ranges.is_empty() {
                let candidate = Candidate {
                    table,
                    has_to_be_asked: true,
                    deleted: None,
                };
                return table.may_have(hash).then_some(candidate);
            }
            let deleted = ranges.newest_over(stored_key, snapshot);
            // What a range tombstone says of a key that the filter does not know counts all the same.
            let has_newer = deleted.is_none_or(|deleted| table.properties().newest > deleted);
            let has_to_be_asked = has_newer && table.may_have(hash);
            (has_to_be_asked || deleted.is_some()).then_some(Candidate {
                table,
                has_to_be_asked,
                deleted,
            })
        })
    }
}

/// A table that may have a key.
struct Candidate<'a> {
    table: &'a Rc<Table>,
    /// It may have a version that counts.
    has_to_be_asked: bool,
    /// The newest range tombstone that covers the key.
    deleted: Option<Timestamp>,
}
