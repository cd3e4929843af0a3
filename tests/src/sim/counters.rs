//! How often each kind of fault really happened in a run.
//!
//! A fault that was scheduled but met nothing (a partition without traffic) is not counted.

use core::fmt;

macro_rules! fault_kinds {
    ($($(#[doc = $doc:literal])+ $kind:ident => $name:literal,)+) => {
        /// A kind of fault, with a name that stays the same from version to version.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum FaultKind {
            $($(#[doc = $doc])+ $kind,)+
        }

        impl FaultKind {
            /// All kinds, in the order of their counters.
            pub const ALL: &'static [FaultKind] = &[$(FaultKind::$kind),+];

            /// Its name in reports.
            pub fn name(self) -> &'static str {
                match self {
                    $(FaultKind::$kind => $name,)+
                }
            }
        }
    };
}

fault_kinds! {
    /// A process ended without notice; the machine went on.
    ProcessKill => "process-kill",
    /// A machine lost its power.
    PowerLoss => "power-loss",
    /// A process stood still.
    ProcessPause => "process-pause",
    /// A core stood still.
    CoreStall => "core-stall",
    /// A task was polled without having been woken.
    SpuriousWake => "spurious-wake",
    /// A wall clock started off the true time.
    ClockOffset => "clock-offset",
    /// A wall clock ran too fast or too slow.
    ClockDrift => "clock-drift",
    /// A wall clock jumped.
    ClockJump => "clock-jump",
    /// A monotonic clock ran too fast or too slow.
    MonotonicRate => "monotonic-rate",
    /// A write that was not durable survived a power loss.
    UnsyncedWriteKept => "unsynced-write-kept",
    /// A write that was not durable was lost with the power.
    UnsyncedWriteDropped => "unsynced-write-dropped",
    /// Some sectors of a write that was not durable were lost with the power.
    UnsyncedWriteTorn => "unsynced-write-torn",
    /// A new name that was not synced was lost with the power.
    UnsyncedCreateUndone => "unsynced-create-undone",
    /// A rename that was not synced was undone by a power loss.
    UnsyncedRenameUndone => "unsynced-rename-undone",
    /// A removal that was not synced was undone by a power loss.
    UnsyncedUnlinkUndone => "unsynced-unlink-undone",
    /// A stored bit changed.
    BitFlip => "bit-flip",
    /// A read met a block that can't be read.
    LatentReadError => "latent-read-error",
    /// A write landed at another place.
    MisdirectedWrite => "misdirected-write",
    /// A write was reported as done and never stored.
    LostWrite => "lost-write",
    /// A disk operation failed with an error of the device.
    DiskError => "disk-error",
    /// A disk operation failed for lack of space.
    DiskFull => "disk-full",
    /// A disk operation took a multiple of its time.
    SlowDisk => "slow-disk",
    /// A disk operation did not end until the disk was healed.
    HungDisk => "hung-disk",
    /// A segment was lost and sent again.
    SegmentLoss => "segment-loss",
    /// A segment arrived twice.
    SegmentDuplicate => "segment-duplicate",
    /// A segment arrived after later ones.
    SegmentReorder => "segment-reorder",
    /// A segment took far longer than others.
    DelaySpike => "delay-spike",
    /// A segment was held back by a partition of one direction.
    PartitionOneWay => "partition-one-way",
    /// A segment was held back by a partition of both directions.
    PartitionFull => "partition-full",
    /// A connection was reset.
    ConnectionReset => "connection-reset",
    /// One direction of a connection was closed.
    HalfClose => "half-close",
    /// A disk stopped at a chosen operation, for a crash there.
    CrashAtOperation => "crash-at-operation",
}

impl FaultKind {
    /// True for what a plan inflicts beside crashes. False for crashes, for what a crash makes of unsynced writes and
    /// names, and for the whims of the scheduler: those come without anybody's doing.
    pub fn is_inflicted(self) -> bool {
        !matches!(
            self,
            FaultKind::ProcessKill
                | FaultKind::PowerLoss
                | FaultKind::CrashAtOperation
                | FaultKind::SpuriousWake
                | FaultKind::UnsyncedWriteKept
                | FaultKind::UnsyncedWriteDropped
                | FaultKind::UnsyncedWriteTorn
                | FaultKind::UnsyncedCreateUndone
                | FaultKind::UnsyncedRenameUndone
                | FaultKind::UnsyncedUnlinkUndone
        )
    }
}

/// Counters by kind.
#[derive(Clone, PartialEq, Eq)]
pub struct Counters(Vec<u64>);

impl Default for Counters {
    fn default() -> Self {
        Counters(vec![0; FaultKind::ALL.len()])
    }
}

impl Counters {
    /// How often this kind happened.
    pub fn get(&self, kind: FaultKind) -> u64 {
        self.0[kind as usize]
    }

    /// Kinds with their counters, zero included.
    pub fn iter(&self) -> impl Iterator<Item = (FaultKind, u64)> + '_ {
        FaultKind::ALL.iter().map(|kind| (*kind, self.get(*kind)))
    }

    /// Number of kinds that a plan inflicts ([`FaultKind::is_inflicted`]) and that happened at least once.
    pub fn inflicted_kinds(&self) -> usize {
        let struck = self.iter().filter(|(_, count)| *count > 0);
        struck.filter(|(kind, _)| kind.is_inflicted()).count()
    }

    /// Kinds that did not happen.
    pub fn missing(&self) -> Vec<FaultKind> {
        let missing = self.iter().filter(|(_, count)| *count == 0);
        missing.map(|(kind, _)| kind).collect()
    }

    /// Adds the counters of another run.
    pub fn add_all(&mut self, other: &Counters) {
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine += theirs;
        }
    }

    pub(super) fn add(&mut self, kind: FaultKind) {
        self.0[kind as usize] += 1;
    }
}

impl fmt::Debug for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let happened = self.iter().filter(|(_, count)| *count > 0);
        f.debug_map()
            .entries(happened.map(|(kind, count)| (kind.name(), count)))
            .finish()
    }
}
