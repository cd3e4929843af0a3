//! The check of a data directory while no node runs ([`ostrakon::server::check`]), as `ostrakon check` runs it, held
//! against what the simulated disk knows.
//!
//! 1. It changes nothing: all that it asks of the disk is names and bytes, and that these are durable.
//! 2. It complains of no file that is whole. The tail that a crash has torn off, and files that were not finished, are
//!    no damage. Where a manifest is damaged, what else its shard has may not fit, nor the logs that go on where it
//!    ends.
//! 3. It finds what a start must find ([`super::damage`]), and in each table whatever differs from what was written.

use std::cell::RefCell;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ostrakon::env::Env;
use ostrakon::env::disk::BLOCK_BYTES;
use ostrakon::env::tasks::TaskFuture;
use ostrakon::server::check::{Damage, Plan, Told, check_node, check_tables, table_bytes};
use ostrakon::storage::manifest::MANIFEST;

use super::damage::{self, Due};
use super::judge::Failure;
use super::plan::SERVER;
use super::run::fail;
use crate::sim::disk::DiskOperations;
use crate::sim::{DamageRecord, HostDisk, ProcessStatus, RunEnd, SimRandom, World};

/// Virtual time that a part of a check may take.
const CHECK_NS: u64 = 600_000_000_000;
/// Cores that look through tables.
const CORES: u16 = 2;
/// Tables that are damaged, at most.
const TABLES: u64 = 2;

/// What a check found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    damages: Vec<Damage>,
    /// Files whose end is torn.
    torn: Vec<PathBuf>,
    /// The tables that it looked at.
    tables: Vec<PathBuf>,
}

/// Bytes of a file that are not as they were written, or can't be read.
struct Wrong {
    path: PathBuf,
    range: Range<u64>,
}

/// Looks the server's data directory through. No process runs there.
///
/// # Errors
/// When the check does not come to its end, or does more than it should.
pub(super) fn look(world: &World) -> Result<Findings, Failure> {
    let disk = world.disk(SERVER);
    let (files, submitted) = (disk.files(), disk.operations());
    let told: Rc<RefCell<Vec<Told>>> = Rc::default();
    let planned: Rc<RefCell<Result<Plan, String>>> = Rc::new(RefCell::new(Ok(Plan::default())));
    run(world, 1, |env| {
        let (data, told, planned) = (world.data_directory(), Rc::clone(&told), Rc::clone(&planned));
        Box::pin(async move {
            let tell = |what| told.borrow_mut().push(what);
            let look = async {
                table_bytes(&*env.disk, &data).await?;
                check_node((&*env.disk, &*env.tasks), &data, &tell).await
            };
            let plan = look.await;
            *planned.borrow_mut() = plan;
        })
    })?;
    let plan = match planned.replace(Ok(Plan::default())) {
        Ok(plan) => plan,
        Err(sentence) => return fail("a data directory can be checked", sentence),
    };
    run(world, CORES, |env| {
        let told = Rc::clone(&told);
        let own = plan.tables.iter().skip(env.core.index());
        let own: Vec<_> = own.step_by(usize::from(CORES)).cloned().collect();
        Box::pin(async move {
            let tell = |what| told.borrow_mut().push(what);
            check_tables(&env.disk, &env.tasks, &env.clock, &own, &tell).await;
        })
    })?;
    let log = disk.operation_log();
    let only_looks = |operations: DiskOperations| {
        matches!(
            operations,
            DiskOperations::Open | DiskOperations::List | DiskOperations::Read | DiskOperations::Sync
        )
    };
    let more = log[submitted as usize..]
        .iter()
        .find(|operation| !only_looks(operation.operations));
    if more.is_some() || disk.files() != files {
        return fail("a check changes nothing", format!("{more:?}"));
    }
    let mut findings = Findings {
        tables: plan.tables.into_iter().map(|table| table.path).collect(),
        ..Findings::default()
    };
    for told in told.take() {
        match told {
            Told::Damage(damage) => findings.damages.push(damage),
            Told::Torn { path, .. } => findings.torn.push(path),
            Told::Leftover { .. } | Told::Read(_) => {}
        }
    }
    Ok(findings)
}

/// Runs a part of the check on so many cores.
fn run(world: &World, cores: u16, main: impl Fn(Env<()>) -> TaskFuture) -> Result<(), Failure> {
    let process = world.start_process(SERVER, cores, |_, env| main(env));
    let deadline_ns = world.now_ns() + CHECK_NS;
    let end = world.run_until(deadline_ns, |world| {
        world.process_status(process) != ProcessStatus::Running
    });
    match (end, world.process_status(process)) {
        (RunEnd::Met, ProcessStatus::Exited) => Ok(()),
        (RunEnd::Panicked, _) => {
            let panics = world.panics();
            let last = panics.last().expect("the world has said so");
            fail("no task panics", last.message.clone())
        }
        (end, status) => fail("a check comes to its end", format!("{end:?}, {status:?}")),
    }
}

/// Holds the findings against the disk. A log that `was_closed` has no torn end. Returns how many places it was right
/// to complain of.
///
/// # Errors
/// When there is a complaint too many, or one is missing.
pub(super) fn judge(
    findings: &Findings,
    disk: &HostDisk,
    data: &Path,
    was_closed: bool,
) -> Result<usize, Failure> {
    let wrong = wrong(disk);
    for damage in &findings.damages {
        let is_explained = wrong.iter().any(|wrong| explains(wrong, damage));
        if !is_explained || calls_missing_what_is_there(damage, disk) {
            let places: Vec<_> = wrong.iter().map(|wrong| (&wrong.path, &wrong.range)).collect();
            let detail = format!("{damage:?}; damaged are {places:?}");
            return fail("a check complains of no file that is whole", detail);
        }
    }
    if let Some(torn) = findings.torn.iter().find(|path| {
        let is_damaged = wrong.iter().any(|wrong| wrong.path == **path);
        was_closed && !is_damaged
    }) {
        let detail = format!("{} is said to be torn", torn.display());
        return fail("a directory that was closed has no torn end", detail);
    }
    let mut due = damage::due(disk, data);
    let in_tables = wrong.iter().filter(|wrong| findings.tables.contains(&wrong.path));
    due.extend(in_tables.map(|wrong| Due {
        path: wrong.path.clone(),
        offset: wrong.range.start,
        sentence: format!("bytes {:?} of {}", wrong.range, wrong.path.display()),
    }));
    let is_found = |due: &&Due| findings.damages.iter().any(|damage| names(damage, due));
    let missed: Vec<&str> = due
        .iter()
        .filter(|due| !is_found(due))
        .map(|due| &*due.sentence)
        .collect();
    if missed.is_empty() {
        return Ok(due.len());
    }
    let detail = format!("{}\nit found {:?}", missed.join("\n"), findings.damages);
    fail("a check finds all damage", detail)
}

/// All that is not as it was written, in the order of files and bytes.
fn wrong(disk: &HostDisk) -> Vec<Wrong> {
    let damaged = disk.outstanding_damage().into_iter().map(|record| Wrong {
        range: changed(&record),
        path: record.path,
    });
    let unreadable = disk.unreadable_blocks().into_iter().map(|(path, offset)| Wrong {
        path,
        range: offset..offset + BLOCK_BYTES as u64,
    });
    let mut wrong: Vec<Wrong> = damaged.chain(unreadable).collect();
    wrong.sort_by(|one, other| (&one.path, one.range.start).cmp(&(&other.path, other.range.start)));
    wrong
}

/// From the first changed byte to the last.
fn changed(record: &DamageRecord) -> Range<u64> {
    let bytes = record.right.iter().zip(&record.found);
    let differ = |(right, found): (&u8, &u8)| right != found;
    let first = bytes.clone().position(differ).expect("damage changes something");
    let last = bytes.rev().position(differ).expect("damage changes something");
    record.offset + first as u64..record.offset + (record.right.len() - last) as u64
}

/// Is a complaint about what is wrong here?
fn explains(wrong: &Wrong, damage: &Damage) -> bool {
    if damage.path == wrong.path {
        return match (damage.offset, damage.bytes) {
            (None, _) => true,
            (Some(offset), 0) => offset < wrong.range.end,
            (Some(offset), bytes) => offset < wrong.range.end && wrong.range.start < offset + bytes,
        };
    }
    let is_inside = wrong.path.starts_with(&damage.path);
    let is_manifest = wrong.path.ends_with(MANIFEST);
    let is_beside = damage.path.parent() == wrong.path.parent();
    let is_whole_log =
        damage.offset.is_none() && damage.path.parent().is_some_and(|above| above.ends_with("log"));
    is_inside || (is_manifest && (is_beside || is_whole_log))
}

/// Is something said to be missing that has bytes?
fn calls_missing_what_is_there(damage: &Damage, disk: &HostDisk) -> bool {
    let is_said = ["it is missing", "the table is missing", "the segment is missing"]
        .iter()
        .any(|words| damage.what.starts_with(words));
    let files = disk.files();
    let mut below = files.iter().filter(|(path, _)| path.starts_with(&damage.path));
    is_said && below.any(|(path, _)| !disk.stored_blocks(path).is_empty())
}

/// Does a complaint name this, at or before its first byte? An error of the device names the file in its words.
fn names(damage: &Damage, due: &Due) -> bool {
    let is_of_file = damage.path == due.path && damage.offset.is_none_or(|offset| offset <= due.offset);
    let is_error = due.path.starts_with(&damage.path) && damage.what.contains(&*due.path.to_string_lossy());
    is_of_file || is_error
}

/// Damages a log, a manifest and some tables, and at times the identity, where it must be found.
pub(super) fn strike(disk: &HostDisk, data: &Path, findings: &Findings, random: &SimRandom) {
    let strike = |path: &Path, offset: u64| {
        if random.one_in(4) {
            disk.spoil(path, offset);
        } else {
            disk.flip(path, offset, random.below(8) as u32);
        }
    };
    let (logs, others): (Vec<_>, Vec<_>) = damage::covered(disk, data)
        .into_iter()
        .partition(|(path, _)| path.starts_with(data.join("log")));
    let (manifests, identity): (Vec<_>, Vec<_>) =
        others.into_iter().partition(|(path, _)| path.ends_with(MANIFEST));
    for (places, one_in) in [(logs, 1), (manifests, 1), (identity, 4)] {
        if !places.is_empty() && random.one_in(one_in) {
            let (path, range) = &places[random.index(places.len())];
            strike(path, random.between(range.start, range.end - 1));
        }
    }
    let lengths = disk.files();
    let mut tables: Vec<_> = lengths
        .iter()
        .filter(|(path, len_bytes)| *len_bytes > 0 && findings.tables.contains(path))
        .collect();
    for _ in 0..TABLES.min(tables.len() as u64) {
        let (path, len_bytes) = tables.swap_remove(random.index(tables.len()));
        strike(path, random.below(*len_bytes));
    }
}
