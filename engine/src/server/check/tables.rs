//! The tables of a data directory.

use core::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use ostrakon_wire::routing::ShardId;

use super::{Damage, Loss, PlannedTable, Told, Totals};
use crate::env::pace::Pace;
use crate::env::together::all;
use crate::env::{Clock, Disk, OpenMode, Tasks};
use crate::shard::is_own_record;
use crate::storage::store::keys::OWN;
use crate::storage::verify::table::{Seen, verify};
use crate::storage::verify::{Flaw, Lost, Reading};

/// Tables that are looked at side by side, so that the device has something to do while blocks are looked at.
const SIDE_BY_SIDE: usize = 4;
/// Bytes of one read.
const PORTION_BYTES: usize = 1 << 20;

/// Looks through tables, as fast as the device and this core can.
pub async fn check_tables(
    disk: &Rc<dyn Disk>,
    tasks: &Rc<dyn Tasks>,
    clock: &Rc<dyn Clock>,
    tables: &[PlannedTable],
    tell: &dyn Fn(Told),
) -> Totals {
    let pace = Pace::new(Rc::clone(clock), Rc::clone(tasks));
    let has_read = |bytes| tell(Told::Read(bytes));
    let reading = Reading {
        tasks: &**tasks,
        pace: &pace,
        portion_bytes: PORTION_BYTES,
        is_wanted: &|| true,
        has_read: &has_read,
    };
    let totals: RefCell<Totals> = RefCell::default();
    let next = Cell::new(0);
    let lane = async || {
        while let Some(table) = tables.get(next.replace(next.get() + 1)) {
            check_table(&**disk, table, reading, tell, &totals).await;
        }
        Ok::<(), core::convert::Infallible>(())
    };
    let Ok(()) = all((0..SIDE_BY_SIDE).map(|_| lane())).await;
    totals.into_inner()
}

async fn check_table(
    disk: &dyn Disk,
    table: &PlannedTable,
    reading: Reading<'_>,
    tell: &dyn Fn(Told),
    totals: &RefCell<Totals>,
) {
    let shard = table.id.shard;
    let damage = |offset, bytes, what, lost| {
        tell(Told::Damage(Damage {
            path: table.path.clone(),
            offset,
            bytes,
            what,
            lost,
        }));
    };
    let file = match disk.open(&table.path, OpenMode::Read).await {
        Ok(file) => file,
        Err(error) => {
            let what = unopened(&error);
            return damage(None, 0, what, Loss::Table(shard));
        }
    };
    let mut bad_records = 0;
    let seen = verify(
        &*file,
        (table.id, table.expected.as_ref()),
        reading,
        &mut |flaw| {
            let Flaw {
                offset,
                bytes,
                what,
                lost,
            } = flaw;
            damage(Some(offset), bytes, what, loss(shard, lost));
        },
        &mut |key, version| {
            let is_own = key.first() == Some(&OWN);
            let value = version.value.filter(|_| is_own);
            bad_records += u64::from(value.is_some_and(|value| !is_own_record(key, value)));
        },
    )
    .await;
    if bad_records > 0 {
        let what = format!("{bad_records} records of the shard itself do not parse");
        damage(None, 0, what, Loss::Shard(shard));
    }
    if let Err(error) = file.close().await {
        damage(None, 0, format!("can't be closed: {error}"), Loss::Nothing);
    }
    count(&mut totals.borrow_mut(), &seen);
}

fn count(totals: &mut Totals, seen: &Seen) {
    totals.files += 1;
    totals.tables += 1;
    totals.blocks += seen.blocks;
    totals.keys += seen.counted.keys;
    totals.versions += seen.counted.versions;
}

fn unopened(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::NotFound {
        "the table is missing, though the manifest has it".to_owned()
    } else {
        format!("can't be opened: {error}")
    }
}

fn loss(shard: ShardId, lost: Lost) -> Loss {
    match lost {
        Lost::Nothing => Loss::Nothing,
        Lost::Keys(from, through) => Loss::Keys(shard, from, through),
        Lost::File => Loss::Table(shard),
    }
}
