//! The operations of an ordinary run, drawn from its seed.

use super::plan::{ClientPlan, MILLISECOND_NS, Operation, OperationKind, Sending};
use crate::sim::SimRandom;

/// What operations a run has, with how many of each kind where all are as likely as they can be.
const MIX: [(Draw, u64); 20] = [
    (|_, _| OperationKind::Get, 300),
    (|_, _| OperationKind::Put, 200),
    (|_, _| OperationKind::PutIfAbsent, 60),
    (|_, _| OperationKind::PutIfPresent, 60),
    (|_, _| OperationKind::PutIfVersion, 120),
    (|_, _| OperationKind::PutIfValue, 60),
    (|_, _| OperationKind::PutNumber, 50),
    (|_, _| OperationKind::Add, 130),
    (|_, _| OperationKind::Delete, 70),
    (|_, _| OperationKind::DeleteIfVersion, 40),
    (|_, _| OperationKind::DeleteIfValue, 30),
    (|_, _| OperationKind::MultiGet, 60),
    (|_, _| OperationKind::MultiPut, 50),
    (|_, _| OperationKind::Batch, 120),
    (
        |random, keys| OperationKind::DeleteRange {
            keys: range(random, keys).min(range(random, range_keys_max(keys))),
        },
        30,
    ),
    (|_, _| OperationKind::PutAtWindow, 4),
    (|_, _| OperationKind::Status, 5),
    (scan, 40),
    (
        |random, keys| OperationKind::ScanBack {
            keys: range(random, keys),
        },
        15,
    ),
    (
        |random, _| OperationKind::ScanPrefix {
            bytes: random.between(1, 12) as u32,
        },
        15,
    ),
];

/// One operation of so many makes a checkpoint.
const ONE_CHECKPOINT_IN: u64 = 150;
/// Keys of a range that is deleted, as a rule.
const RANGE_KEYS: u32 = 4;
/// From so many keys on, ranges that are deleted have many of them.
const MANY_KEYS: u32 = 100;

type Draw = fn(&SimRandom, u32) -> OperationKind;

fn scan(random: &SimRandom, keys: u32) -> OperationKind {
    OperationKind::Scan {
        keys: range(random, keys),
    }
}

fn range_keys_max(keys: u32) -> u32 {
    if keys < MANY_KEYS {
        2 * RANGE_KEYS
    } else {
        keys / 2
    }
}

fn range(random: &SimRandom, keys: u32) -> u32 {
    random.between(1, u64::from(keys)) as u32
}

/// The mix of a run.
pub(super) struct Workload {
    keys: u32,
    /// Chances, in the order of [`MIX`].
    weights: Vec<u64>,
    /// Of no pause at all.
    burst_per_thousand: u32,
    pause_ns: u64,
    large_per_thousand: u32,
    pub(super) value_bytes_max: u64,
    /// Of writes that belong to a session, and of those that come late or twice.
    session_per_thousand: u32,
    trouble_per_thousand: u32,
    /// Of values that stay for a while only, and for how long at most.
    ttl_per_thousand: u32,
    ttl_ms_max: u64,
    next_number: u64,
}

impl Workload {
    pub(super) fn draw(random: &SimRandom, keys: u32) -> Workload {
        let weights = MIX.map(|(_, weight)| 1 + random.below(2 * weight));
        let mut workload = Workload {
            keys,
            weights: weights.to_vec(),
            burst_per_thousand: random.between(200, 900) as u32,
            pause_ns: random.between(5, 120) * MILLISECOND_NS,
            large_per_thousand: if random.one_in(3) { 300 } else { 10 },
            value_bytes_max: random.between(200, 30_000),
            session_per_thousand: random.between(200, 900) as u32,
            trouble_per_thousand: random.between(50, 500) as u32,
            ttl_per_thousand: random.between(50, 400) as u32,
            ttl_ms_max: random.between(20, 3_000),
            next_number: 0,
        };
        // So much that a process fills segments of the log, and uses them again.
        let bulk = random.derived("bulk");
        if bulk.one_in(6) {
            workload.large_per_thousand = 1_000;
            workload.value_bytes_max = 30_000;
        }
        workload
    }

    pub(super) fn operation(&mut self, random: &SimRandom) -> Operation {
        let mut draw = random.below(self.weights.iter().sum());
        let mut place = 0;
        while draw >= self.weights[place] {
            draw -= self.weights[place];
            place += 1;
        }
        let drawn = (MIX[place].0)(random, self.keys);
        // Beside the mix, since one takes as long as many others.
        let takes_checkpoint = random.derived("checkpoint").one_in(ONE_CHECKPOINT_IN);
        let kind = if takes_checkpoint {
            OperationKind::Checkpoint
        } else {
            drawn
        };
        let is_burst = random.per_thousand(self.burst_per_thousand);
        let pause_ns = random.below(self.pause_ns);
        let large = random.per_thousand(self.large_per_thousand);
        let value_bytes = random.between(8, if large { self.value_bytes_max } else { 120 });
        // A few keys get most of the work, so that requests for one key meet.
        let key = random
            .below(u64::from(self.keys))
            .min(random.below(u64::from(self.keys)));
        self.next_number += 1;
        let lasts = random.per_thousand(self.ttl_per_thousand);
        let ttl_ms = if lasts {
            random.between(1, self.ttl_ms_max)
        } else {
            0
        };
        let sending = self.sending(random);
        Operation {
            pause_ns: if is_burst { 0 } else { pause_ns },
            kind,
            key: key as u32,
            number: self.next_number,
            value_bytes: value_bytes as u32,
            ttl_ms: ttl_ms as u32,
            sending,
            with_timings: random.one_in(8),
            cancels: sending == Sending::Once && random.one_in(20),
        }
    }

    /// A program in the process of the node, with so many threads of so many operations each.
    pub(super) fn program(&mut self, random: &SimRandom, threads: u64, operations: u64) -> ClientPlan {
        let mut operation = || {
            let drawn = self.operation(random);
            Operation {
                kind: drawn.kind.of_program(),
                sending: Sending::Once,
                with_timings: false,
                cancels: random.one_in(10),
                ..drawn
            }
        };
        ClientPlan {
            core: 0,
            is_program: true,
            threads: (0..threads)
                .map(|_| (0..operations).map(|_| operation()).collect())
                .collect(),
        }
    }

    fn sending(&self, random: &SimRandom) -> Sending {
        if !random.per_thousand(self.session_per_thousand) {
            return Sending::Once;
        }
        let short_ns = random.around(2 * MILLISECOND_NS);
        let long_ns = random.around(200 * MILLISECOND_NS);
        let trouble = if random.per_thousand(self.trouble_per_thousand) {
            random.below(4)
        } else {
            4
        };
        let (hold_ns, patience_ns, cuts) = match trouble {
            // Two at once.
            0 => (0, 0, false),
            // The answer is lost.
            1 => (0, short_ns, true),
            // The original is late.
            2 | 3 => (long_ns, short_ns, false),
            _ => (0, 4_000 * MILLISECOND_NS, false),
        };
        Sending::Session {
            hold_ns,
            patience_ns,
            cuts,
        }
    }
}
