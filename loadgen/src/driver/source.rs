//! Which operation comes next on one executor, and when.
//!
//! 1. An operation is drawn when its moment has come: in a closed loop whenever a connection asks, in an open
//!    loop when its arrival is due.
//! 2. If connections are in groups ([`super::route`]) and it belongs to another group than the one that
//!    asked, it waits in the stash of its group. The stash is bounded; while it is full nobody draws.
//! 3. The source is over when nothing is drawn any more, and over for a group when its stash is empty too.
//!
//! In an open loop every operation that is due before the end is carried out, however late, so that a stalled
//! server cannot make the slow ones disappear. When there is no end to it the source gives up, and counts them
//! as unstarted.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::route::Router;
use crate::arrival::Schedule;
use crate::counters::Counters;
use crate::distribution::KeyChooser;
use crate::keys::KeyIndex;
use crate::random::Random;
use crate::records::Records;
use crate::workload::{Mix, OperationKind};

/// Operations of other groups that wait, per connection of the executor.
const STASH_PER_CONNECTION: usize = 4;

/// What is drawn.
#[derive(Debug)]
pub(crate) enum Draw {
    /// Each record of a range once.
    Load(Range<u64>),
    /// A workload.
    Run {
        /// Which operations.
        mix: Mix,
        /// Chooses records.
        chooser: Box<KeyChooser>,
        /// Of this executor.
        random: Random,
        /// Shared by all executors.
        records: Arc<Records>,
        /// Most records of a scan; every length from 1 on is as likely.
        scan_records_max: u32,
        /// Records of a request for several.
        multi_records: u32,
        /// What adds increment.
        counters: Arc<Counters>,
    },
}

/// When operations begin.
#[derive(Debug)]
pub(crate) enum Pace {
    /// As soon as a connection is free.
    Closed,
    /// When they are due.
    Open {
        /// Of this executor.
        schedule: Schedule,
        /// What the schedule counts from.
        origin: Instant,
        /// How long after the end the last operation may begin.
        give_up_after: Duration,
    },
}

/// The end of a phase.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    /// With the last record of a load.
    Never,
    /// After so many operations of this executor that begin after the warm-up.
    Operations(u64),
    /// At this moment.
    At(Instant),
}

/// An operation whose moment has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Drawn {
    pub(crate) kind: OperationKind,
    pub(crate) key: KeyIndex,
    /// Of a scan, or of a request for several.
    pub(crate) records: u32,
    /// A request for several takes the records from `key` on, after the last of so many the first.
    pub(crate) among: u64,
    /// When it was due: what its latency is counted from.
    pub(crate) due_at: Instant,
}

/// What a connection gets that asks for an operation.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    Operation(Drawn),
    /// None at the moment.
    NotYet,
    /// None any more.
    Over,
}

/// See the head of the module.
#[derive(Debug)]
pub(crate) struct Source {
    draw: Draw,
    pace: Pace,
    end: End,
    /// The end of the warm-up.
    measure_from: Instant,
    router: Router,
    stash: Vec<VecDeque<Drawn>>,
    stashed: usize,
    stash_max: usize,
    is_exhausted: bool,
    unstarted: u64,
}

impl Source {
    /// For so many connections; operations that begin before `measure_from` do not count towards the end.
    pub(crate) fn new(
        draw: Draw,
        pace: Pace,
        end: End,
        measure_from: Instant,
        router: Router,
        connections: usize,
    ) -> Self {
        let groups = router.groups();
        Self {
            draw,
            pace,
            end,
            measure_from,
            router,
            stash: (0..groups).map(|_| VecDeque::new()).collect(),
            stashed: 0,
            stash_max: connections * STASH_PER_CONNECTION,
            is_exhausted: false,
            unstarted: 0,
        }
    }

    /// The next operation for a connection of this group.
    pub(crate) fn take(&mut self, group: usize, now: Instant) -> Taken {
        self.give_up_if_late(now);
        if let Some(drawn) = self.stash[group].pop_front() {
            self.stashed -= 1;
            return Taken::Operation(drawn);
        }
        loop {
            if self.is_exhausted {
                return Taken::Over;
            }
            if self.stashed >= self.stash_max {
                return Taken::NotYet;
            }
            let due_at = match &self.pace {
                Pace::Closed => now,
                Pace::Open { schedule, origin, .. } => *origin + schedule.due(),
            };
            if !self.end.is_before(due_at, self.measure_from) {
                self.is_exhausted = true;
                continue;
            }
            if due_at > now {
                return Taken::NotYet;
            }
            let Some(drawn) = self.draw.next(due_at) else {
                self.is_exhausted = true;
                continue;
            };
            self.end.count(due_at, self.measure_from);
            if let Pace::Open { schedule, .. } = &mut self.pace {
                schedule.advance();
            }
            let of = self.draw.group_of(&drawn, &self.router);
            if of == group {
                return Taken::Operation(drawn);
            }
            self.stash[of].push_back(drawn);
            self.stashed += 1;
        }
    }

    /// Will no connection of this group ever get an operation again?
    pub(crate) fn is_over_for(&self, group: usize) -> bool {
        self.is_exhausted && self.stash[group].is_empty()
    }

    /// Will nobody?
    pub(crate) fn is_over(&self) -> bool {
        self.is_exhausted && self.stashed == 0
    }

    /// Nothing is drawn any more, and what waits is forgotten.
    pub(crate) fn stop(&mut self) {
        self.is_exhausted = true;
        self.stash.iter_mut().for_each(VecDeque::clear);
        self.stashed = 0;
    }

    /// In an open loop, when the next operation is due.
    pub(crate) fn next_due_at(&self) -> Option<Instant> {
        match &self.pace {
            Pace::Open { schedule, origin, .. } if !self.is_exhausted => Some(*origin + schedule.due()),
            _ => None,
        }
    }

    /// Is this an open loop?
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.pace, Pace::Open { .. })
    }

    /// Are connections in groups?
    pub(crate) fn is_grouped(&self) -> bool {
        self.stash.len() > 1
    }

    /// Was an operation that was due then due after the warm-up?
    pub(crate) fn is_measured(&self, due_at: Instant) -> bool {
        due_at >= self.measure_from
    }

    /// An insert of the run phase is over, however it ended.
    pub(crate) fn end_insert(&self, key: KeyIndex) {
        if let Draw::Run { records, .. } = &self.draw {
            records.end_insert(key);
        }
    }

    /// Operations that were due and were given up.
    pub(crate) fn unstarted(&self) -> u64 {
        self.unstarted
    }

    fn give_up_if_late(&mut self, now: Instant) {
        let (
            Pace::Open {
                schedule,
                origin,
                give_up_after,
            },
            End::At(end),
        ) = (&mut self.pace, self.end)
        else {
            return;
        };
        if self.is_exhausted && self.stashed == 0 || now < end + *give_up_after {
            return;
        }
        self.unstarted += self.stashed as u64;
        while !self.is_exhausted && *origin + schedule.due() < end {
            self.unstarted += 1;
            schedule.advance();
        }
        self.stop();
    }
}

impl Draw {
    /// The group whose connections take an operation; one for several records goes where its first one does.
    fn group_of(&self, drawn: &Drawn, router: &Router) -> usize {
        match self {
            Self::Run { counters, .. } if drawn.kind == OperationKind::Add => {
                router.group_of_key(counters.key(counters.of_record(drawn.key)).bytes())
            }
            _ => router.group_of(drawn.key),
        }
    }

    fn next(&mut self, due_at: Instant) -> Option<Drawn> {
        match self {
            Self::Load(range) => range.next().map(|record| Drawn {
                kind: OperationKind::Insert,
                key: KeyIndex(record),
                records: 1,
                among: record + 1,
                due_at,
            }),
            Self::Run {
                mix,
                chooser,
                random,
                records,
                scan_records_max,
                multi_records,
                ..
            } => {
                let kind = mix.next_kind(random);
                let key = if kind == OperationKind::Insert {
                    records.begin_insert()
                } else {
                    chooser.next(random, records.count())
                };
                let among = records.count();
                let of_request = match kind {
                    OperationKind::Scan | OperationKind::ReverseScan => {
                        1 + random.next_below(u64::from(*scan_records_max)) as u32
                    }
                    // No record twice.
                    OperationKind::MultiRead | OperationKind::MultiUpdate => {
                        u64::from(*multi_records).min(among) as u32
                    }
                    _ => 1,
                };
                Some(Drawn {
                    kind,
                    key,
                    records: of_request,
                    among,
                    due_at,
                })
            }
        }
    }
}

impl Drawn {
    /// The record at this place of a request for several.
    pub(crate) fn key_at(&self, place: u32) -> KeyIndex {
        KeyIndex((self.key.0 + u64::from(place)) % self.among)
    }
}

impl End {
    /// Does an operation that is due then belong to the phase?
    fn is_before(self, due_at: Instant, measure_from: Instant) -> bool {
        match self {
            Self::Never => true,
            Self::Operations(left) => left > 0 || due_at < measure_from,
            Self::At(end) => due_at < end,
        }
    }

    /// It was taken.
    fn count(&mut self, due_at: Instant, measure_from: Instant) {
        if let Self::Operations(left) = self
            && due_at >= measure_from
        {
            *left -= 1;
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
mod tests;
