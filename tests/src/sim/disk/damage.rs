//! Stored bytes that are wrong: flipped bits, lost writes, misdirected writes.
//!
//! Damage strikes *covered* bytes only: those of a durable write to a file after which at least
//! `cover_writes` later durable writes to the same file have ended. A write that is chosen to be lost or
//! misdirected is therefore stored well first and is *fated*: the wrong effect strikes when enough later writes
//! have ended, and if a crash comes before, it never strikes. The reason is that a store without a second copy
//! can't tell a newest write that was lost from one that was never made: both leave an end of the log that is
//! valid. Past the end there are later writes that bear witness, and the damage must be found.
//!
//! What damage changed is remembered, so that a harness can put the right bytes back.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use ostrakon::env::disk::BLOCK_BYTES;

use super::blocks::{Block, WriteData, bytes_of};
use super::harness::DamageRecord;
use super::state::DiskState;
use super::tree::Inode;
use crate::sim::counters::FaultKind;
use crate::sim::faults::Place;
use crate::sim::trace::TraceKind;
use crate::sim::world::World;

/// How a write goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sim) enum Strike {
    Lost,
    Misdirected,
    Flip,
}

/// A write that will go wrong once it is covered.
struct Fated {
    strike: Strike,
    inode: Inode,
    data: WriteData,
    /// What was there before, by block.
    before: Vec<Option<Block>>,
    /// The file's count of durable writes from which on it is covered.
    strikes_at: u64,
    /// Where the fault aims, if at an operation.
    place: Option<Place>,
}

/// A block that damage has changed.
#[derive(Clone)]
pub(super) struct DamagedBlock {
    kind: FaultKind,
    inode: Inode,
    block: u64,
    right: Option<Block>,
    found: Option<Block>,
}

/// All damage of a disk.
#[derive(Default)]
pub(super) struct Damage {
    fated: Vec<Fated>,
    pub(super) blocks: Vec<DamagedBlock>,
}

impl Damage {
    /// A crash, or healing, comes before fate.
    pub(super) fn cancel_fated(&mut self) {
        self.fated.clear();
    }
}

impl DiskState {
    /// A durable write has ended: it may be fated, and it covers earlier ones.
    pub(super) fn after_durable_write(
        &mut self,
        world: &World,
        inode: Inode,
        data: &WriteData,
        fate: Option<(Strike, Option<Place>, Vec<Option<Block>>)>,
    ) {
        let durable_writes = self.tree.file(inode).durable_writes;
        if let Some((strike, place, before)) = fate {
            self.damage.fated.push(Fated {
                strike,
                inode,
                data: data.clone(),
                before,
                strikes_at: durable_writes + self.config.cover_writes,
                place,
            });
        }
        if self.damage.fated.is_empty() {
            return;
        }
        let due = |fated: &mut Fated| fated.inode == inode && fated.strikes_at <= durable_writes;
        let struck: Vec<Fated> = self.damage.fated.extract_if(.., due).collect();
        for mut fated in struck {
            if !self.strike(world, &fated) {
                // No place for it yet: the next write asks again.
                fated.strikes_at = durable_writes + 1;
                self.damage.fated.push(fated);
            }
        }
    }

    /// Lets fate strike; false when there is no place for it.
    fn strike(&mut self, world: &World, fated: &Fated) -> bool {
        let has_struck = match fated.strike {
            Strike::Flip => {
                let (offset, len_bytes) = (fated.data.offset(), fated.data.len_bytes());
                self.flip_in(world, fated.inode, offset, len_bytes)
            }
            Strike::Lost => self.lose(world, FaultKind::LostWrite, fated),
            Strike::Misdirected => {
                let count = fated.data.block_count;
                let Some((victim, first_block)) = self.covered_place(count, fated) else {
                    return false;
                };
                self.lose(world, FaultKind::MisdirectedWrite, fated);
                let wrong = fated.data.moved_to(first_block);
                for block in wrong.first_block..wrong.end_block() {
                    let found = wrong.block(block).cloned();
                    self.damage_block(world, FaultKind::MisdirectedWrite, victim, block, found);
                }
                true
            }
        };
        world.strike(fated.place.filter(|_| has_struck));
        true
    }

    /// Takes a write back where it was not written over; false if it was all over.
    fn lose(&mut self, world: &World, kind: FaultKind, fated: &Fated) -> bool {
        let mut is_lost = false;
        for (place, before) in fated.before.iter().enumerate() {
            let block = fated.data.first_block + place as u64;
            let stored = self.tree.file(fated.inode).durable.get(block);
            let written = fated.data.block(block);
            let untouched = match (stored, written) {
                (Some(stored), Some(written)) => Rc::ptr_eq(stored, written),
                (None, None) => before.is_some(),
                _ => false,
            };
            if untouched {
                is_lost = true;
                self.damage_block(world, kind, fated.inode, block, before.clone());
            }
        }
        if is_lost {
            world.count(kind);
        }
        is_lost
    }

    fn damage_block(
        &mut self,
        world: &World,
        kind: FaultKind,
        inode: Inode,
        block: u64,
        found: Option<Block>,
    ) {
        let file = self.tree.file_mut(inode);
        let right = file.durable.get(block).cloned();
        file.durable.put(block, found.clone());
        file.seen.put(block, found.clone());
        let text = format!("{} in block {block} of file {}", kind.name(), inode.0);
        world.trace(self.host, TraceKind::Fault(text));
        self.damage.blocks.push(DamagedBlock {
            kind,
            inode,
            block,
            right,
            found,
        });
    }

    /// A run of covered blocks, for a write of `count` blocks to land on.
    fn covered_place(&self, count: u64, fated: &Fated) -> Option<(Inode, u64)> {
        let cover_writes = self.config.cover_writes;
        let mut places = Vec::new();
        for (inode, file) in &self.tree.files {
            let own = *inode == fated.inode;
            let is_own = |block| own && (fated.data.first_block..fated.data.end_block()).contains(&block);
            for first in file.covered(cover_writes) {
                if (first..first + count).all(|block| file.is_covered(block, cover_writes) && !is_own(block))
                {
                    places.push((*inode, first));
                }
            }
        }
        (!places.is_empty()).then(|| places[self.fault_random.index(places.len())])
    }

    /// Flips one covered bit anywhere; says whether there was one.
    pub(in crate::sim) fn flip_somewhere(&mut self, world: &World) -> bool {
        let place = self.any_covered_block();
        if let Some((inode, block)) = place {
            self.flip_in(world, inode, block * BLOCK_BYTES as u64, BLOCK_BYTES as u64);
        }
        place.is_some()
    }

    /// Makes one covered block unreadable.
    pub(in crate::sim) fn spoil_somewhere(&mut self) -> bool {
        let place = self.any_covered_block();
        if let Some((inode, block)) = place {
            self.tree.file_mut(inode).unreadable.insert(block);
        }
        place.is_some()
    }

    fn any_covered_block(&self) -> Option<(Inode, u64)> {
        let cover_writes = self.config.cover_writes;
        let files = self.tree.files.iter();
        let places: Vec<(Inode, u64)> = files
            .flat_map(|(inode, file)| {
                file.covered(cover_writes)
                    .into_iter()
                    .map(|block| (*inode, block))
            })
            .collect();
        (!places.is_empty()).then(|| places[self.fault_random.index(places.len())])
    }

    /// Flips one covered bit in a range of a file; false when there is none.
    pub(super) fn flip_in(&mut self, world: &World, inode: Inode, offset: u64, len_bytes: u64) -> bool {
        let blocks = offset / BLOCK_BYTES as u64..(offset + len_bytes) / BLOCK_BYTES as u64;
        let file = self.tree.file(inode);
        let covered: Vec<u64> = blocks
            .filter(|block| file.is_covered(*block, self.config.cover_writes))
            .collect();
        if covered.is_empty() {
            return false;
        }
        let block = covered[self.fault_random.index(covered.len())];
        let bit = self.fault_random.index(BLOCK_BYTES * 8);
        self.flip_bit(world, inode, block, bit);
        true
    }

    pub(super) fn flip_bit(&mut self, world: &World, inode: Inode, block: u64, bit: usize) {
        let mut bytes = *bytes_of(self.tree.file(inode).durable.get(block));
        bytes[bit / 8] ^= 1 << (bit % 8);
        self.damage_block(world, FaultKind::BitFlip, inode, block, Some(Rc::new(bytes)));
        world.count(FaultKind::BitFlip);
    }

    /// Damage that was neither written over nor removed with its file.
    pub(super) fn outstanding(&self) -> Vec<DamageRecord> {
        self.damage
            .blocks
            .iter()
            .filter_map(|damaged| self.record_of(damaged))
            .collect()
    }

    fn record_of(&self, damaged: &DamagedBlock) -> Option<DamageRecord> {
        let file = self.tree.files.get(&damaged.inode)?;
        let path: PathBuf = self.tree.path_of(damaged.inode)?;
        let stored = bytes_of(file.durable.get(damaged.block));
        let (right, found) = (bytes_of(damaged.right.as_ref()), bytes_of(damaged.found.as_ref()));
        if stored != found || found == right {
            return None;
        }
        Some(DamageRecord {
            host: self.host,
            kind: damaged.kind,
            path,
            offset: damaged.block * BLOCK_BYTES as u64,
            right: right.to_vec(),
            found: found.to_vec(),
        })
    }

    /// Puts the right bytes back in the files that `is_meant` picks, newest damage first; returns what it repaired.
    pub(super) fn repair(&mut self, is_meant: &dyn Fn(&Path) -> bool) -> usize {
        let mut repaired = 0;
        let all = core::mem::take(&mut self.damage.blocks);
        let tree = &self.tree;
        let (meant, other): (Vec<_>, Vec<_>) = all
            .into_iter()
            .partition(|damaged| tree.path_of(damaged.inode).is_some_and(|path| is_meant(&path)));
        self.damage.blocks = other;
        for damaged in meant.into_iter().rev() {
            let Some(file) = self.tree.files.get_mut(&damaged.inode) else {
                continue;
            };
            if bytes_of(file.durable.get(damaged.block)) == bytes_of(damaged.found.as_ref()) {
                file.durable.put(damaged.block, damaged.right.clone());
                file.seen.put(damaged.block, damaged.right);
                repaired += 1;
            }
        }
        repaired
    }
}
