//! Random histories with flushes and restarts: a table that was stored, restored and brought up to date from the log
//! goes on as the one that was never stopped.
//!
//! Beside the clients there is a crowd of sessions, so many that the sweep needs several calls for a round: restarts
//! come in the middle of it, and what it drops comes again.

use std::cell::Cell;
use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::super::*;
use super::histories::{CLIENTS, LogEntry, Seen, Step, World, count, step};
use super::{answer, changes, memory_bytes_unchanged, replicated, write_of};

const CROWD: usize = EXAMINED_PER_HORIZON + 100;

#[derive(Clone, Debug)]
enum Act {
    Step(Step),
    /// So many sessions of the crowd, from a place in it on, get a write applied each.
    Crowd {
        first: usize,
        count: usize,
    },
    /// All of the crowd get a write. Then comes a horizon, with which a round begins that does not reach the last of
    /// them, and so many writes that go on with it; then perhaps a flush, and perhaps a restart.
    Sweep {
        writes: usize,
        is_flushed: bool,
        is_restarted: bool,
    },
    Flush,
    /// The leader is stopped, and one that was built from the last flush and the log goes on.
    Restart,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        60 => step().prop_map(Act::Step),
        1 => (0..CROWD, 1..CROWD / 2).prop_map(|(first, count)| Act::Crowd { first, count }),
        1 => (0usize..20, any::<bool>(), any::<bool>()).prop_map(|(writes, is_flushed, is_restarted)| {
            Act::Sweep { writes, is_flushed, is_restarted }
        }),
        3 => Just(Act::Flush),
        3 => Just(Act::Restart),
    ]
}

/// What all histories together must have come upon.
#[derive(Default)]
struct Met {
    shown: Cell<usize>,
    gone: Cell<usize>,
    /// Sessions that were gone from what is stored and came again.
    came_again: Cell<usize>,
    noted_twice: Cell<usize>,
    restarts_in_a_round: Cell<usize>,
    restarts_with_entries: Cell<usize>,
    restarts_without: Cell<usize>,
    forgotten_in_flight: Cell<usize>,
}

/// What the flushes have written.
struct Stored {
    progress: [u8; PROGRESS_BYTES],
    /// As merged from all flushes: `None` where something was stored and then removed.
    sessions: BTreeMap<SessionId, Option<Vec<u8>>>,
    /// Entries of the log that it covers.
    applied: usize,
}

impl Stored {
    fn new() -> Stored {
        Stored {
            progress: Sessions::new().encode_progress(),
            sessions: BTreeMap::new(),
            applied: 0,
        }
    }

    fn flush(&mut self, table: &mut Sessions, applied: usize, met: &Met) {
        let noted = table.changes.note_count();
        let changes = changes(table);
        assert!(changes.is_sorted_by(|(one, _), (next, _)| one < next));
        if noted > changes.len() {
            count(&met.noted_twice);
        }
        for (id, bytes) in changes {
            count(if bytes.is_some() { &met.shown } else { &met.gone });
            let is_gone = self.sessions.get(&id) == Some(&None);
            if is_gone && bytes.is_some() {
                count(&met.came_again);
            }
            self.sessions.insert(id, bytes);
        }
        self.progress = table.encode_progress();
        self.applied = applied;
    }

    /// The table as of the last flush.
    fn restore(&self) -> Sessions {
        let mut table = Sessions::restore(&self.progress).expect("it was encoded");
        for (id, bytes) in &self.sessions {
            if let Some(bytes) = bytes {
                assert!(table.restore_session(*id, bytes), "it was encoded");
            }
        }
        assert_eq!(table.in_flight_count(), 0);
        table
    }
}

struct Restarting<'a> {
    met: &'a Met,
    world: World<'a>,
    stored: Stored,
}

impl Restarting<'_> {
    fn act(&mut self, act: &Act) {
        match *act {
            Act::Step(ref step) => self.world.step(step),
            Act::Crowd { first, count } => {
                for place in first..first + count {
                    self.log_write(place % CROWD);
                }
            }
            Act::Sweep {
                writes,
                is_flushed,
                is_restarted,
            } => {
                for place in 0..CROWD {
                    self.log_write(place);
                }
                let horizon = Timestamp(self.world.clock);
                self.world.log.push(LogEntry::Horizon(horizon));
                self.world.clock += 1;
                for place in 0..writes {
                    self.log_write(place);
                }
                if is_flushed {
                    self.flush();
                }
                if is_restarted {
                    self.restart();
                }
            }
            Act::Flush => self.flush(),
            Act::Restart => self.restart(),
        }
    }

    /// A write of the crowd's, which no leader proposed here, is applied with all entries before it.
    fn log_write(&mut self, place: usize) {
        let index = self.world.log.len() as u64;
        let write = write_of((CLIENTS + place) as u128, index, 0, self.world.clock);
        self.world.log.push(LogEntry::Write(write, answer(index)));
        self.world.apply(usize::MAX, true);
    }

    fn flush(&mut self) {
        self.stored
            .flush(&mut self.world.leader, self.world.applied, self.met);
        let restored = self.stored.restore();
        assert_eq!(replicated(&restored), replicated(&self.world.leader));
        assert_eq!(
            restored.changes.note_count(),
            0,
            "what is restored has not changed"
        );
    }

    /// From here on each applied entry compares the stopped table, as the world's follower, with the restored one.
    fn restart(&mut self) {
        let Restarting { met, world, stored } = self;
        let mut restored = stored.restore();
        let entries = &world.log[stored.applied..world.applied];
        for entry in entries {
            entry.apply(&mut restored);
        }
        let mut stopped = std::mem::replace(&mut world.leader, restored);
        if stopped.in_flight_count() > 0 {
            count(&met.forgotten_in_flight);
        }
        if stopped.sweep_from.is_some() {
            count(&met.restarts_in_a_round);
        }
        count(if entries.is_empty() {
            &met.restarts_without
        } else {
            &met.restarts_with_entries
        });
        stopped.forget_in_flight();
        world.follower = stopped;
        self.compare();
        // What the stopped one had proposed is applied, or vanishes.
        self.world.change_leader(1, false);
        self.compare();
    }

    /// The two tables, with nothing in flight in either.
    fn compare(&self) {
        let World { leader, follower, .. } = &self.world;
        assert_eq!(replicated(leader), replicated(follower));
        assert_eq!(leader.held, follower.held);
        assert_eq!(memory_bytes_unchanged(leader), memory_bytes_unchanged(follower));
        for retry in &self.world.network {
            assert_eq!(leader.look_up(retry), follower.look_up(retry), "{retry:?}");
        }
    }
}

#[test]
fn a_restored_table_goes_on_as_the_one_that_was_stored() {
    let (seen, met) = (Seen::default(), Met::default());
    let mut runner = TestRunner::new(ProptestConfig {
        source_file: Some(file!()),
        ..ProptestConfig::with_cases(30)
    });
    let acts = prop::collection::vec(act(), 1..400);
    let outcome = runner.run(&acts, |acts| {
        let mut restarting = Restarting {
            met: &met,
            world: World::new(&seen),
            stored: Stored::new(),
        };
        for act in &acts {
            restarting.act(act);
        }
        restarting.flush();
        restarting.restart();
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    for (counter, name) in [
        (&met.shown, "shown"),
        (&met.gone, "gone"),
        (&met.came_again, "gone and come again"),
        (&met.noted_twice, "noted twice"),
        (&met.restarts_in_a_round, "restarts in a round"),
        (&met.restarts_with_entries, "restarts with entries to apply"),
        (&met.restarts_without, "restarts without"),
        (&met.forgotten_in_flight, "forgotten in flight"),
    ] {
        assert!(counter.get() >= 10, "met {} times: {name}", counter.get());
    }
}
