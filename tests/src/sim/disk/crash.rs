//! What a crash leaves of a disk.
//!
//! Killed process: operations in flight happened or did not; everything seen stays, durable or not.
//!
//! Power loss:
//! 1. Of each write that was in flight or not durable, every 512-byte sector is kept or lost. A crash draws its
//!    temper first (keeps all, loses all, mixed), so that extremes come up often. The length of a file may
//!    survive without the bytes: the file then has zeros there.
//! 2. Of the unsynced names, the temper decides between all, none, a prefix in order (as a journal leaves), a
//!    prefix for each directory, and any subset. Changes are applied in order, and one whose precondition is
//!    gone is left out: an impossible tree does not come out. What the root does not lead to is forgotten, so
//!    a synced file whose name was never synced may be gone.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::blocks::{SECTORS, WriteData};
use super::file::FileState;
use super::state::{DiskState, Request};
use super::tree::{Change, Inode, apply};
use crate::sim::counters::FaultKind;
use crate::sim::host::{CrashStyle, HostId};
use crate::sim::random::SimRandom;
use crate::sim::world::World;

/// How a crash treats what was not durable.
#[derive(Clone, Copy)]
enum Temper {
    KeepsAll,
    LosesAll,
    Mixed,
}

impl World {
    /// Crashes the disk of a host; it is usable again afterwards.
    pub(in crate::sim) fn crash_disk(&self, host: HostId, style: CrashStyle) {
        let disk = self.with_host(host, |host| Rc::clone(&host.disk));
        let disk = &mut *disk.borrow_mut();
        disk.damage.cancel_fated();
        match style {
            CrashStyle::ProcessKill => disk.kill(self),
            CrashStyle::PowerLoss => disk.lose_power(self),
        }
        disk.tree.open.clear();
        disk.tree.collect();
        disk.faults.crashed();
    }
}

impl DiskState {
    /// Everything in flight has happened or has not.
    fn kill(&mut self, world: &World) {
        for flight in core::mem::take(&mut self.flights).into_values() {
            if self.crash_random.one_in(2) {
                continue;
            }
            let mut flight = flight;
            flight.planned = super::faults::Planned::default();
            if let Request::Write(_, _, is_durable) = &mut flight.request {
                // In the device's cache, where the next power loss may find it.
                *is_durable = false;
            }
            // Nobody hears of the outcome.
            drop(self.perform(world, &flight));
        }
    }

    fn lose_power(&mut self, world: &World) {
        let mut in_flight: BTreeMap<Inode, Vec<WriteData>> = BTreeMap::new();
        for mut flight in core::mem::take(&mut self.flights).into_values() {
            flight.planned = super::faults::Planned::default();
            match &flight.request {
                Request::Write(inode, data, _) => in_flight.entry(*inode).or_default().push(data.clone()),
                _ if self.crash_random.one_in(2) => drop(self.perform(world, &flight)),
                _ => {}
            }
        }
        let temper = match self.crash_random.below(8) {
            0 => Temper::KeepsAll,
            1 | 2 => Temper::LosesAll,
            _ => Temper::Mixed,
        };
        for (inode, file) in &mut self.tree.files {
            let mut pending: Vec<WriteData> = core::mem::take(&mut file.unsynced)
                .into_iter()
                .map(|write| write.data)
                .collect();
            pending.extend(in_flight.remove(inode).into_iter().flatten());
            for data in pending {
                survive(world, &self.crash_random, temper, file, &data);
            }
            file.seen = file.durable.clone();
            file.seen_len = file.durable_len;
        }
        self.lose_names(world);
    }

    fn lose_names(&mut self, world: &World) {
        let changes: Vec<Change> = core::mem::take(&mut self.tree.changes)
            .into_iter()
            .map(|(_, change)| change)
            .collect();
        let keeps = names_kept(&self.crash_random, &changes);
        for (change, keep) in changes.iter().zip(keeps) {
            if keep && apply(&mut self.tree.durable, &self.tree.directories, change) {
                continue;
            }
            world.count(match change {
                Change::Add { .. } => FaultKind::UnsyncedCreateUndone,
                Change::Drop { .. } => FaultKind::UnsyncedUnlinkUndone,
                Change::Move { .. } => FaultKind::UnsyncedRenameUndone,
            });
        }
        self.tree.seen = self.tree.durable.clone();
        self.tree.prune();
        self.tree.durable = self.tree.seen.clone();
    }
}

/// Which changes of names reach the disk.
fn names_kept(random: &SimRandom, changes: &[Change]) -> Vec<bool> {
    let count = changes.len() as u64;
    match random.below(8) {
        0 => vec![true; changes.len()],
        1 => vec![false; changes.len()],
        2..=4 => {
            let cut = random.between(0, count);
            (0..count).map(|place| place < cut).collect()
        }
        5 | 6 => {
            let mut cuts: BTreeMap<Inode, u64> = BTreeMap::new();
            let mut kept = Vec::new();
            for (place, change) in (0..).zip(changes) {
                let is_before = |directory: Inode, cuts: &mut BTreeMap<Inode, u64>| {
                    place < *cuts.entry(directory).or_insert_with(|| random.between(0, count))
                };
                let [one, other] = change.touches();
                kept.push(is_before(one, &mut cuts) & is_before(other, &mut cuts));
            }
            kept
        }
        _ => changes.iter().map(|_| random.one_in(2)).collect(),
    }
}

/// Decides about one write that was not durable.
fn survive(world: &World, random: &SimRandom, temper: Temper, file: &mut FileState, data: &WriteData) {
    let fate = match temper {
        Temper::KeepsAll => 0,
        Temper::LosesAll => 1,
        Temper::Mixed => random.below(5),
    };
    match fate {
        0 => {
            world.count(FaultKind::UnsyncedWriteKept);
            file.settle(data);
        }
        1 => {
            world.count(FaultKind::UnsyncedWriteDropped);
            if random.one_in(4) {
                file.durable_len = file.durable_len.max(data.end());
            }
        }
        _ => {
            world.count(FaultKind::UnsyncedWriteTorn);
            let sectors = data.block_count as usize * SECTORS;
            let keep = torn(random, sectors, fate);
            let durable = &mut file.durable;
            if data.is_zero()
                && !(data.first_block..data.end_block()).any(|index| durable.get(index).is_some())
            {
                // Zeros over zeros: only the length can tell.
            } else {
                durable.store_sectors(data, |sector| keep[sector]);
            }
            let last = keep.iter().rposition(|kept| *kept);
            let blocks = last.map_or(0, |last| (last / SECTORS) as u64 + 1);
            if blocks > 0 {
                let end = data.offset() + blocks * ostrakon::env::disk::BLOCK_BYTES as u64;
                file.durable_len = file.durable_len.max(end);
            }
        }
    }
}

/// Which sectors of a torn write are kept: a prefix, all but one, or any.
fn torn(random: &SimRandom, sectors: usize, fate: u64) -> Vec<bool> {
    match fate {
        2 => {
            let cut = random.index(sectors);
            (0..sectors).map(|sector| sector < cut).collect()
        }
        3 => {
            let hole = random.index(sectors);
            (0..sectors).map(|sector| sector != hole).collect()
        }
        _ => (0..sectors).map(|_| random.one_in(2)).collect(),
    }
}
