//! How fast a core may flush, merge, and take writes: continuous in what there is to do, so that a core under too many
//! writes slows down and never stops.
//!
//! - Merges go on at a slow pace while there is little to do, so that requests find the device free, and faster the
//!   more bytes they have to move ([`due_bytes`](super::due_bytes)).
//! - Flushes empty what is sealed in a fraction of a second, and go on without a bound when memory gets scarce.
//! - Writes are free until merges are far behind ([`debt_bytes`](super::debt_bytes)), very many young runs of a shard
//!   wait for them ([`waiting_runs`](super::waiting_runs)), or memory is almost full. From there on they slow down with
//!   the cube of what is left, down to a trickle. In tiered trees only the number of runs says whether merges are
//!   behind: a merge of large runs is due whenever there are several, and takes its time.

use super::{CompactionStrategy, Options};

const MIB: u64 = 1 << 20;

/// No bound.
pub const UNBOUNDED: u64 = u64::MAX;

/// What merges always may write, in bytes a second.
const MERGE_BYTES_MIN: u64 = 32 * MIB;
/// Seconds in which merges move what is due, if nothing comes in addition.
const MERGE_SECONDS: u64 = 4;
/// What flushes always may write, in bytes a second.
const FLUSH_BYTES_MIN: u64 = 64 * MIB;
/// So many times a second flushes empty what is sealed.
const FLUSHES_PER_SECOND: u64 = 4;

/// One, in fixed point.
const ONE: u64 = 1000;
/// The pressure at which writes are down to the least.
const PRESSURE_MAX: u64 = 4 * ONE;
/// Debt of one pressure, in base levels.
const DEBT_BASES: u64 = 4;
/// Young runs of one pressure, in those that are merged at once.
const YOUNG_TIMES: u64 = 3;
/// The part of the memory, in thousandths, from which on its pressure rises above one.
const MEMORY_FREE: u64 = 750;
/// What is left to writes just above a pressure of one, in bytes a second.
const WRITE_BYTES_MAX: u64 = 512 * MIB;
/// What is left to writes under any pressure.
const WRITE_BYTES_MIN: u64 = 2 * MIB;

/// What a core has to do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load {
    /// Bytes that merges are behind, of all shards.
    pub debt_bytes: u64,
    /// Bytes that the merges which are due may have to read, of all shards.
    pub due_bytes: u64,
    /// Young runs that wait for merges, of the shard that has the most.
    pub waiting_runs: usize,
    /// Bytes of the memtables that wait to be flushed.
    pub sealed_bytes: u64,
    /// Bytes of all memtables.
    pub memory_bytes: u64,
    /// The bound on them.
    pub memory_budget_bytes: u64,
}

/// Bytes a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Of flushes.
    pub flush: u64,
    /// Of merges.
    pub merge: u64,
    /// Of the log.
    pub log: u64,
}

/// How fast a core with this load may write.
pub fn rates(load: &Load, options: &Options) -> Rates {
    let memory = memory_thousandths(load);
    let flush = if memory >= MEMORY_FREE {
        UNBOUNDED
    } else {
        FLUSH_BYTES_MIN.saturating_add(load.sealed_bytes.saturating_mul(FLUSHES_PER_SECOND))
    };
    Rates {
        flush,
        merge: MERGE_BYTES_MIN.saturating_add(load.due_bytes / MERGE_SECONDS),
        log: log_rate(pressure(load, options)),
    }
}

fn memory_thousandths(load: &Load) -> u64 {
    load.memory_bytes.saturating_mul(ONE) / load.memory_budget_bytes.max(1)
}

/// How far the core is from where it can't take writes any more, in thousandths: free up to a thousand.
fn pressure(load: &Load, options: &Options) -> u64 {
    let debt = match options.strategy {
        CompactionStrategy::Leveled => {
            load.debt_bytes.saturating_mul(ONE) / options.base_bytes.saturating_mul(DEBT_BASES).max(1)
        }
        CompactionStrategy::Tiered => 0,
    };
    let young = load.waiting_runs as u64 * ONE / (options.young_runs as u64 * YOUNG_TIMES);
    let beyond = memory_thousandths(load).saturating_sub(MEMORY_FREE);
    let memory = ONE * beyond.min(1) + beyond * (PRESSURE_MAX - ONE) / (ONE - MEMORY_FREE);
    debt.max(young).max(memory).min(PRESSURE_MAX)
}

fn log_rate(pressure: u64) -> u64 {
    if pressure <= ONE {
        return UNBOUNDED;
    }
    let left = (PRESSURE_MAX - pressure) * ONE / (PRESSURE_MAX - ONE);
    WRITE_BYTES_MIN + WRITE_BYTES_MAX / ONE * left / ONE * left / ONE * left
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load() -> Load {
        Load {
            memory_budget_bytes: 1000 * MIB,
            ..Load::default()
        }
    }

    #[test]
    fn a_core_with_nothing_to_do_merges_slowly_and_takes_all_writes() {
        let rates = rates(&load(), &Options::default());
        let expected = Rates {
            flush: FLUSH_BYTES_MIN,
            merge: MERGE_BYTES_MIN,
            log: UNBOUNDED,
        };
        assert_eq!(rates, expected);
    }

    #[test]
    fn merges_and_flushes_go_faster_the_more_there_is() {
        let of = |due_bytes, sealed_bytes| {
            let load = Load {
                due_bytes,
                sealed_bytes,
                ..load()
            };
            rates(&load, &Options::default())
        };
        assert_eq!(of(400 * MIB, 0).merge, MERGE_BYTES_MIN + 100 * MIB);
        assert_eq!(of(0, 100 * MIB).flush, FLUSH_BYTES_MIN + 400 * MIB);
        assert_eq!(of(u64::MAX, u64::MAX).flush, UNBOUNDED);
    }

    #[test]
    fn writes_slow_down_without_a_step_and_never_stop() {
        let options = Options::default();
        let rising: [&dyn Fn(u64) -> Load; 3] = [
            &|part| Load {
                debt_bytes: options.base_bytes * DEBT_BASES / 1000 * part,
                ..load()
            },
            &|part| Load {
                waiting_runs: (part * options.young_runs as u64 * YOUNG_TIMES / 1000) as usize,
                ..load()
            },
            &|part| Load {
                memory_bytes: part * MIB / 4,
                ..load()
            },
        ];
        for (kind, load_at) in rising.into_iter().enumerate() {
            assert_eq!(rates(&load_at(1000), &options).log, UNBOUNDED, "kind {kind}");
            let mut before = WRITE_BYTES_MAX + WRITE_BYTES_MIN;
            for part in 1000..=5000 {
                let rate = rates(&load_at(part), &options).log.min(before);
                let is_step = before - rate > WRITE_BYTES_MAX / 2;
                assert!(
                    rate >= WRITE_BYTES_MIN && !is_step,
                    "kind {kind}, part {part}: {before} to {rate}"
                );
                assert!(
                    rates(&load_at(part), &options).log >= rate,
                    "kind {kind}, part {part}"
                );
                before = rate;
            }
            assert_eq!(before, WRITE_BYTES_MIN, "kind {kind}");
        }
    }

    #[test]
    fn flushes_have_no_bound_when_memory_gets_scarce() {
        let scarce = Load {
            memory_bytes: 750 * MIB,
            ..load()
        };
        assert_eq!(rates(&scarce, &Options::default()).flush, UNBOUNDED);
    }
}
