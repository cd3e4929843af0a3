//! Random histories against a model that remembers every entry of the log for ever.
//!
//! Clients keep their part of the rules: sequences and first sends rise, reports cover what was answered or given up.
//! The network keeps every message, and delivers any of them at any time, as often as it likes. Answers get lost;
//! leaders change, and with them goes a part of what is in flight; horizons come in between.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::super::*;
use super::{memory_bytes_unchanged, replicated};

pub(super) const CLIENTS: usize = 12;

#[derive(Clone, Debug)]
pub(super) enum Step {
    /// A write is put on the network, after so many that go to other shards.
    Send {
        client: usize,
        elsewhere: u64,
    },
    /// All that went to other shards is answered.
    AnswerElsewhere {
        client: usize,
    },
    /// A message is put on the network again, with the client's newest report.
    Resend {
        message: usize,
    },
    /// The newest messages are delivered, or any old one.
    DeliverNew {
        back: usize,
    },
    DeliverAny {
        message: usize,
    },
    /// A client stops to wait for its oldest write.
    GiveUp {
        client: usize,
    },
    /// So many entries are applied; whether their answers reach the clients.
    Apply {
        count: usize,
        is_lost: bool,
    },
    /// The leader proposes a horizon so far behind the clock.
    Horizon {
        lag: u64,
    },
    Tick {
        by: u64,
    },
    /// Another leader, whose log has so many of the entries in flight, with the table kept or rebuilt.
    ChangeLeader {
        kept: usize,
        is_rebuilt: bool,
    },
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let client = 0..CLIENTS;
    prop_oneof![
        6 => (client.clone(), prop_oneof![4 => Just(0), 4 => 0u64..4, 1 => 2000u64..5000])
            .prop_map(|(client, elsewhere)| Step::Send { client, elsewhere }),
        1 => client.clone().prop_map(|client| Step::AnswerElsewhere { client }),
        2 => any::<usize>().prop_map(|message| Step::Resend { message }),
        6 => (0usize..4).prop_map(|back| Step::DeliverNew { back }),
        6 => any::<usize>().prop_map(|message| Step::DeliverAny { message }),
        1 => client.prop_map(|client| Step::GiveUp { client }),
        4 => (1usize..6, any::<bool>()).prop_map(|(count, is_lost)| Step::Apply { count, is_lost }),
        1 => (0u64..60).prop_map(|lag| Step::Horizon { lag }),
        2 => (1u64..20).prop_map(|by| Step::Tick { by }),
        1 => (0usize..4, any::<bool>()).prop_map(|(kept, is_rebuilt)| Step::ChangeLeader { kept, is_rebuilt }),
    ]
}

#[derive(Clone, Default)]
struct Client {
    next: u64,
    open: BTreeSet<u64>,
    /// The oldest sequence that went to another shard and is not answered.
    open_elsewhere: Option<u64>,
}

impl Client {
    fn answered_below(&self) -> u64 {
        let oldest = self
            .open
            .first()
            .copied()
            .into_iter()
            .chain(self.open_elsewhere)
            .min();
        oldest.unwrap_or(self.next)
    }
}

#[derive(Clone)]
pub(super) enum LogEntry {
    Write(Retry, Answer),
    Horizon(Timestamp),
}

impl LogEntry {
    fn write(&self) -> Option<&Retry> {
        match self {
            LogEntry::Write(retry, _) => Some(retry),
            LogEntry::Horizon(_) => None,
        }
    }

    pub(super) fn apply(&self, table: &mut Sessions) {
        match self {
            LogEntry::Write(retry, answer) => table.apply(retry, answer.clone()),
            LogEntry::Horizon(horizon) => table.advance_horizon(*horizon),
        }
    }
}

/// How often a look-up came to what, over all histories: the test has to see each.
#[derive(Default)]
pub(super) struct Seen {
    new: Cell<usize>,
    answered: Cell<usize>,
    in_flight: Cell<usize>,
    below_horizon: Cell<usize>,
    reported: Cell<usize>,
    window_exceeded: Cell<usize>,
    dropped: Cell<usize>,
}

pub(super) fn count(counter: &Cell<usize>) {
    counter.set(counter.get() + 1);
}

pub(super) struct World<'a> {
    seen: &'a Seen,
    pub(super) clock: u64,
    clients: Vec<Client>,
    pub(super) network: Vec<Retry>,
    pub(super) log: Vec<LogEntry>,
    pub(super) applied: usize,
    pub(super) leader: Sessions,
    pub(super) follower: Sessions,
    /// The answer of each write that was ever executed.
    answers: BTreeMap<(SessionId, Sequence), Answer>,
}

impl World<'_> {
    pub(super) fn new(seen: &Seen) -> World<'_> {
        World {
            seen,
            clock: 100,
            clients: vec![Client::default(); CLIENTS],
            network: Vec::new(),
            log: Vec::new(),
            applied: 0,
            leader: Sessions::new(),
            follower: Sessions::new(),
            answers: BTreeMap::new(),
        }
    }

    pub(super) fn step(&mut self, step: &Step) {
        match *step {
            Step::Send { client, elsewhere } => self.send(client, elsewhere),
            Step::AnswerElsewhere { client } => self.clients[client].open_elsewhere = None,
            Step::Resend { message } => {
                if let Some(retry) = self.message(message) {
                    let answered_below = self.client(&retry).answered_below().min(retry.sequence.0);
                    self.network.push(Retry {
                        answered_below: Sequence(answered_below),
                        ..retry
                    });
                }
            }
            Step::DeliverNew { back } => {
                if let Some(place) = self.network.len().checked_sub(back + 1) {
                    self.deliver(self.network[place]);
                }
            }
            Step::DeliverAny { message } => {
                if let Some(retry) = self.message(message) {
                    self.deliver(retry);
                }
            }
            Step::GiveUp { client } => {
                self.clients[client].open.pop_first();
            }
            Step::Apply { count, is_lost } => self.apply(count, is_lost),
            Step::Horizon { lag } => {
                let horizon = Timestamp(self.clock.saturating_sub(lag));
                self.log.push(LogEntry::Horizon(horizon));
            }
            Step::Tick { by } => self.clock += by,
            Step::ChangeLeader { kept, is_rebuilt } => self.change_leader(kept, is_rebuilt),
        }
    }

    fn message(&self, number: usize) -> Option<Retry> {
        let place = number.checked_rem(self.network.len())?;
        Some(self.network[place])
    }

    fn client(&mut self, retry: &Retry) -> &mut Client {
        &mut self.clients[retry.session.0 as usize]
    }

    fn send(&mut self, number: usize, elsewhere: u64) {
        let client = &mut self.clients[number];
        if elsewhere > 0 {
            client.open_elsewhere.get_or_insert(client.next);
            client.next += elsewhere;
        }
        let sequence = client.next;
        client.next += 1;
        client.open.insert(sequence);
        let retry = Retry {
            session: SessionId(number as u128),
            sequence: Sequence(sequence),
            answered_below: Sequence(client.answered_below()),
            first_sent: Timestamp(self.clock),
        };
        self.network.push(retry);
    }

    fn deliver(&mut self, retry: Retry) {
        let key = (retry.session, retry.sequence);
        let is_it = |entry: &&LogEntry| {
            entry
                .write()
                .is_some_and(|write| (write.session, write.sequence) == key)
        };
        let in_flight = self.log[self.applied..].iter().find(is_it).is_some();
        let reports = self.log.iter().filter_map(LogEntry::write);
        let reports = reports.filter(|write| write.session == retry.session);
        let reported = reports.map(|write| write.answered_below.0).max().unwrap_or(0);
        let is_reported = retry.sequence.0 < reported;
        let is_below_horizon = retry.first_sent < self.leader.horizon();
        let executed = self.answers.get(&key);
        match self.leader.look_up(&retry) {
            Lookup::New => {
                assert!(executed.is_none() && !in_flight, "executed twice: {retry:?}");
                assert!(!is_reported, "executed after the client gave it up: {retry:?}");
                assert!(!is_below_horizon, "executed below the horizon: {retry:?}");
                let start = reported.max(retry.answered_below.0);
                assert!(
                    retry.sequence.0 < start + WINDOW,
                    "outside of the window: {retry:?}"
                );
                count(&self.seen.new);
                self.propose(retry);
            }
            Lookup::InFlight(index) => {
                assert!(index.0 as usize >= self.applied, "applied already: {retry:?}");
                assert!(
                    is_it(&&self.log[index.0 as usize]),
                    "another write is at {index:?}"
                );
                count(&self.seen.in_flight);
            }
            Lookup::Answered(answer) => {
                assert_eq!(Some(answer), executed, "another answer than the first: {retry:?}");
                count(&self.seen.answered);
                self.client(&retry).open.remove(&retry.sequence.0);
            }
            Lookup::OutcomeUnknown => {
                assert!(!in_flight, "unknown, though in flight: {retry:?}");
                assert!(
                    is_reported || is_below_horizon,
                    "refused without a reason: {retry:?}"
                );
                count(if is_reported {
                    &self.seen.reported
                } else {
                    &self.seen.below_horizon
                });
                self.client(&retry).open.remove(&retry.sequence.0);
            }
            Lookup::WindowExceeded => {
                assert!(
                    executed.is_none() && !in_flight,
                    "refused what was executed: {retry:?}"
                );
                assert!(
                    retry.sequence.0 >= retry.answered_below.0 + WINDOW,
                    "within the window: {retry:?}"
                );
                count(&self.seen.window_exceeded);
            }
            Lookup::BadRequest => panic!("it is well-formed: {retry:?}"),
        }
    }

    /// The decision is a function of the place in the log, so that no two are the same.
    fn propose(&mut self, retry: Retry) {
        let index = self.log.len();
        let version = Timestamp(index as u64);
        let answer = match index % 4 {
            0 => Answer::Failed(Failure::ConditionFailed {
                version,
                operation: 0,
            }),
            numbers => Answer::Applied {
                version,
                numbers: Numbers::new(&[7, 8][..numbers - 1]),
            },
        };
        self.leader.proposed(&retry, LogIndex(index as u64));
        self.log.push(LogEntry::Write(retry, answer));
    }

    pub(super) fn apply(&mut self, count_max: usize, is_lost: bool) {
        for _ in 0..count_max.min(self.log.len() - self.applied) {
            let entry = self.log[self.applied].clone();
            self.applied += 1;
            let before = self.leader.session_count();
            entry.apply(&mut self.leader);
            entry.apply(&mut self.follower);
            assert_eq!(replicated(&self.leader), replicated(&self.follower));
            if self.leader.session_count() < before {
                count(&self.seen.dropped);
            }
            if let LogEntry::Write(retry, answer) = entry {
                assert_eq!(self.leader.look_up(&retry), Lookup::Answered(&answer));
                let before = self.answers.insert((retry.session, retry.sequence), answer);
                assert_eq!(before, None, "executed twice: {retry:?}");
                if !is_lost {
                    self.client(&retry).open.remove(&retry.sequence.0);
                }
            }
        }
    }

    /// The new leader serves only once all that it inherits is applied.
    pub(super) fn change_leader(&mut self, kept: usize, is_rebuilt: bool) {
        self.leader.forget_in_flight();
        let kept = self.log.len().min(self.applied + kept);
        self.log.truncate(kept);
        self.apply(usize::MAX, true);
        let mut rebuilt = Sessions::new();
        for entry in &self.log {
            entry.apply(&mut rebuilt);
        }
        assert_eq!(replicated(&self.leader), replicated(&rebuilt));
        assert_eq!(
            memory_bytes_unchanged(&self.leader),
            memory_bytes_unchanged(&rebuilt)
        );
        if is_rebuilt {
            self.leader = rebuilt;
        }
    }
}

#[test]
fn no_write_executes_twice_and_every_answer_is_the_first() {
    let seen = Seen::default();
    let mut runner = TestRunner::new(ProptestConfig {
        source_file: Some(file!()),
        ..ProptestConfig::with_cases(400)
    });
    let steps = prop::collection::vec(step(), 1..400);
    let outcome = runner.run(&steps, |steps| {
        let mut world = World::new(&seen);
        for step in &steps {
            world.step(step);
        }
        world.change_leader(usize::MAX >> 1, false);
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    for (counter, name) in [
        (&seen.new, "new"),
        (&seen.answered, "answered"),
        (&seen.in_flight, "in flight"),
        (&seen.below_horizon, "below the horizon"),
        (&seen.reported, "reported"),
        (&seen.window_exceeded, "window exceeded"),
        (&seen.dropped, "sessions dropped"),
    ] {
        assert!(counter.get() >= 10, "seen {} times: {name}", counter.get());
    }
}
