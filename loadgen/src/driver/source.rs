//! Which operation comes next on one executor.

use std::ops::Range;
use std::time::{Duration, Instant};

use crate::keys::{KeyChooser, KeyIndex};
use crate::random::Random;
use crate::workload::{OperationKind, Workload};

/// The operations of one executor in one phase.
#[derive(Debug)]
pub(crate) enum Source {
    /// Each record of a range once.
    Load(Range<u64>),
    /// A workload.
    Run {
        /// Which.
        workload: Workload,
        /// Chooses records.
        chooser: KeyChooser,
        /// Of this executor.
        random: Random,
        /// When it ends.
        end: End,
    },
}

/// The end of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    /// After so many more operations of this executor.
    Operations(u64),
    /// So long after the first operation.
    Lasting(Duration),
    /// At this moment.
    At(Instant),
}

impl Source {
    /// The next operation, or `None` when the phase is over.
    pub(crate) fn next(&mut self, now: Instant) -> Option<(OperationKind, KeyIndex)> {
        match self {
            Self::Load(records) => records
                .next()
                .map(|record| (OperationKind::Insert, KeyIndex(record))),
            Self::Run {
                workload,
                chooser,
                random,
                end,
            } => end
                .has_more(now)
                .then(|| (workload.next_kind(random), chooser.next(random))),
        }
    }
}

impl End {
    /// Is there one more? Then it counts as taken.
    fn has_more(&mut self, now: Instant) -> bool {
        match self {
            Self::Operations(left) => {
                let has_more = *left > 0;
                *left = left.saturating_sub(1);
                has_more
            }
            Self::Lasting(duration) => {
                *self = Self::At(now + *duration);
                true
            }
            Self::At(end) => now < *end,
        }
    }
}

/// The part of `total` that falls to `part` of `parts`: the parts are as equal as can be, follow one another
/// and add up.
pub(crate) fn share_of(total: u64, part: usize, parts: usize) -> Range<u64> {
    let bound = |part: usize| (u128::from(total) * part as u128 / parts as u128) as u64;
    bound(part)..bound(part + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_gives_each_record_once() {
        let mut seen = vec![0; 1003];
        for part in 0..4 {
            let mut source = Source::Load(share_of(1003, part, 4));
            while let Some((kind, key)) = source.next(Instant::now()) {
                assert_eq!(kind, OperationKind::Insert);
                seen[key.0 as usize] += 1;
            }
        }
        assert!(seen.iter().all(|count| *count == 1));
        assert_eq!(share_of(u64::MAX, 6, 7).end, u64::MAX);
    }

    fn run(end: End) -> Source {
        Source::Run {
            workload: Workload::A,
            chooser: KeyChooser::uniform(10),
            random: Random::new(1),
            end,
        }
    }

    #[test]
    fn a_run_ends_after_its_operations() {
        let mut source = run(End::Operations(5));
        assert_eq!(std::iter::from_fn(|| source.next(Instant::now())).count(), 5);
        assert_eq!(source.next(Instant::now()), None);
    }

    #[test]
    fn a_run_ends_after_its_time_from_the_first_operation() {
        let mut source = run(End::Lasting(Duration::from_secs(2)));
        let start = Instant::now() + Duration::from_secs(100);
        assert!(source.next(start).is_some());
        assert!(source.next(start + Duration::from_millis(1999)).is_some());
        assert_eq!(source.next(start + Duration::from_millis(2001)), None);
    }
}
