//! Looks for an order of one key's calls that explains all answers: the search of Wing and Gong ("Testing and
//! verifying concurrent objects", 1993) in the just-in-time form of Lowe ("Testing for linearizability", 2017).
//!
//! 1. Events are passed in order. Only when an answer is reached whose call has not taken effect yet does the
//!    search choose which call takes effect next.
//! 2. A call that sees the present state and changes nothing takes effect at once: it never harms later ones.
//! 3. A call whose version is known takes effect only after all calls of smaller known versions. With versions
//!    given there is hardly a choice left.
//! 4. Calls of unknown outcome come last among the choices, and one may only be chosen right before a call that
//!    was impossible without it. (In an order with as few of them as possible, each as late as possible, that
//!    holds: a write that makes nothing possible can be left out or moved back.)
//! 5. A choice that led nowhere is remembered by place, state and set of calls that took effect, and never made
//!    again. The set is kept as a 128-bit sum of random numbers per call; two sets being taken for one, which
//!    alone could make a verdict wrong, has a probability below 2^-80 in any search that ends.

use std::collections::{BTreeSet, HashSet};

use super::calls::{Call, Calls, Effect};
use super::model::State;

/// What a search came to.
#[derive(Debug)]
pub(super) enum Found {
    /// There is an order.
    Order,
    /// There is none; this is as far as the best attempt came.
    NoOrder(DeadEnd),
    /// The budget ended before either was known.
    BudgetEnded,
}

/// How far the best attempt came.
#[derive(Debug)]
pub(super) struct DeadEnd {
    /// The call whose answer could not be explained.
    pub(super) stuck: usize,
    /// The state in which it was tried.
    pub(super) state: State,
    /// The last calls that took effect before, in their order.
    pub(super) trail: Vec<usize>,
}

/// How many calls of the trail a dead end keeps.
const TRAIL_CALLS: usize = 6;

/// Looks for an order; takes its steps from `steps_left`.
pub(super) fn search(calls: &Calls, steps_left: &mut u64) -> Found {
    let mut search = Search::new(calls);
    loop {
        if *steps_left == 0 {
            return Found::BudgetEnded;
        }
        *steps_left -= 1;
        match search.advance(steps_left) {
            Some(true) => return Found::Order,
            Some(false) => (),
            None if search.back() => (),
            None => return Found::NoOrder(search.dead_end()),
        }
    }
}

/// One change of the search's position, for taking it back.
#[derive(Clone, Copy)]
enum Change {
    /// A call was made.
    Opened(usize),
    /// The answer of a call that had taken effect was passed.
    Closed(usize),
    /// A call took effect, in this state.
    Applied {
        call: usize,
        before: State,
        chain: Option<State>,
    },
}

/// A point where there was a choice.
struct Choice {
    changes: usize,
    place: usize,
    /// Calls, each with its place in [`State::steps`]. Not yet tried, the next one last.
    candidates: Vec<(usize, usize)>,
    /// Calls of unknown outcome are among the candidates already.
    has_unknown: bool,
}

struct Search<'c> {
    calls: &'c Calls,
    /// Calls (false) and answers (true) in order.
    events: Vec<(usize, bool)>,
    /// For a call of known version: how many calls of known version must have taken effect before it.
    ranks: Vec<Option<usize>>,
    place: usize,
    state: State,
    /// Made, without effect so far, with a known answer or seen by version.
    open: BTreeSet<usize>,
    /// Made, without effect so far, of unknown outcome.
    open_unknown: BTreeSet<usize>,
    applied: Vec<bool>,
    ranked_applied: usize,
    /// The state before the calls of unknown outcome that were chosen last, if the next call must justify them.
    chain: Option<State>,
    set: u128,
    changes: Vec<Change>,
    choices: Vec<Choice>,
    dead: HashSet<(usize, State, u128)>,
    order: Vec<usize>,
    farthest: Option<(usize, DeadEnd)>,
}

impl<'c> Search<'c> {
    fn new(calls: &'c Calls) -> Search<'c> {
        let mut events: Vec<(usize, usize, bool)> = Vec::new();
        for (number, call) in calls.all.iter().enumerate() {
            events.push((call.called_at, number, false));
            events.extend(call.answered_at.map(|answered_at| (answered_at, number, true)));
        }
        events.sort_unstable();
        Search {
            calls,
            events: events
                .into_iter()
                .map(|(_, number, answer)| (number, answer))
                .collect(),
            ranks: ranks(&calls.all),
            place: 0,
            state: State::START,
            open: BTreeSet::new(),
            open_unknown: BTreeSet::new(),
            applied: vec![false; calls.all.len()],
            ranked_applied: 0,
            chain: None,
            set: 0,
            changes: Vec::new(),
            choices: Vec::new(),
            dead: HashSet::new(),
            order: Vec::new(),
            farthest: None,
        }
    }

    /// Goes on to the next choice and makes it. True at the end of the history, none at a dead end.
    fn advance(&mut self, steps_left: &mut u64) -> Option<bool> {
        while let Some(&(call, answer)) = self.events.get(self.place) {
            if !answer {
                self.open_set(call).insert(call);
                self.changes.push(Change::Opened(call));
                self.place += 1;
            } else if self.applied[call] {
                self.set ^= mark(call);
                self.changes.push(Change::Closed(call));
                self.place += 1;
            } else if !self.apply_observers(steps_left) {
                return self.choose(call);
            }
        }
        Some(true)
    }

    /// Lets every open call that sees the present state and changes nothing take effect. True if any did.
    fn apply_observers(&mut self, steps_left: &mut u64) -> bool {
        let sees = |call: &usize| {
            let call = &self.calls.all[*call];
            call.observes() && self.state.steps(call, self.calls.versioned)[0] == Some(self.state)
        };
        let seeing: Vec<usize> = self
            .open
            .iter()
            .copied()
            .filter(sees)
            .filter(|call| self.justifies(*call))
            .collect();
        for call in &seeing {
            *steps_left = steps_left.saturating_sub(1);
            self.apply(*call, self.state);
        }
        !seeing.is_empty()
    }

    /// Starts a choice for the sake of `stuck`.
    fn choose(&mut self, stuck: usize) -> Option<bool> {
        if self
            .farthest
            .as_ref()
            .is_none_or(|(place, _)| *place < self.place)
        {
            let recent = self.order.len().saturating_sub(TRAIL_CALLS);
            let dead_end = DeadEnd {
                stuck,
                state: self.state,
                trail: self.order[recent..].to_vec(),
            };
            self.farthest = Some((self.place, dead_end));
        }
        // Inside a chain of unknown calls the state alone does not tell what may follow.
        if self.chain.is_none() && self.dead.contains(&(self.place, self.state, self.set)) {
            return None;
        }
        let mut candidates: Vec<(usize, usize)> =
            self.open.iter().flat_map(|call| self.possible(*call)).collect();
        // The earlier answer first, and what does not need an expiry: it is tried last-in, first-out.
        candidates
            .sort_by_key(|(call, step)| std::cmp::Reverse((self.calls.all[*call].answered_at, *call, *step)));
        self.choices.push(Choice {
            changes: self.changes.len(),
            place: self.place,
            candidates,
            has_unknown: false,
        });
        self.take().then_some(false)
    }

    /// Takes the next candidate of the newest choice. False if there is none.
    fn take(&mut self) -> bool {
        while let Some(choice) = self.choices.last_mut() {
            if let Some((call, step)) = choice.candidates.pop() {
                if let Some(after) = self.state.steps(&self.calls.all[call], self.calls.versioned)[step] {
                    self.apply(call, after);
                    return true;
                }
            } else if choice.has_unknown {
                return false;
            } else {
                choice.has_unknown = true;
                let unknown = self.open_unknown.iter().rev();
                let possible = unknown.flat_map(|call| self.possible(*call)).collect();
                if let Some(choice) = self.choices.last_mut() {
                    choice.candidates = possible;
                }
            }
        }
        false
    }

    /// Takes back what followed the newest choice that has another candidate, and makes that. False if none has.
    fn back(&mut self) -> bool {
        while let Some(choice) = self.choices.last() {
            let (changes, place) = (choice.changes, choice.place);
            while self.changes.len() > changes {
                self.undo();
            }
            self.place = place;
            if self.take() {
                return true;
            }
            self.choices.pop();
            if self.chain.is_none() {
                self.dead.insert((self.place, self.state, self.set));
            }
        }
        false
    }

    /// The call with each place in [`State::steps`] at which it could take effect now.
    fn possible(&self, call: usize) -> Vec<(usize, usize)> {
        let in_turn = self.ranks[call].is_none_or(|rank| rank == self.ranked_applied);
        let call_is = &self.calls.all[call];
        if !(in_turn || call_is.observes()) || !self.justifies(call) {
            return Vec::new();
        }
        let steps = self.state.steps(call_is, self.calls.versioned);
        let places = (0..steps.len()).filter(|step| steps[*step].is_some());
        places.map(|step| (call, step)).collect()
    }

    /// False if `call` could as well take effect before the chain of unknown calls that was chosen last.
    fn justifies(&self, call: usize) -> bool {
        let Some(before) = self.chain else { return true };
        let call = &self.calls.all[call];
        let steps = before.steps(call, self.calls.versioned);
        if call.observes() {
            !steps.contains(&Some(before))
        } else {
            matches!(call.effect, Effect::Add { .. }) || steps.iter().all(Option::is_none)
        }
    }

    fn apply(&mut self, call: usize, after: State) {
        self.changes.push(Change::Applied {
            call,
            before: self.state,
            chain: self.chain,
        });
        self.open_set(call).remove(&call);
        self.chain = if self.is_unknown(call) {
            Some(self.state)
        } else {
            None
        };
        self.state = after;
        self.applied[call] = true;
        self.ranked_applied += usize::from(self.ranks[call].is_some());
        self.set ^= mark(call);
        self.order.push(call);
    }

    fn undo(&mut self) {
        match self.changes.pop() {
            Some(Change::Opened(call)) => {
                self.open_set(call).remove(&call);
            }
            Some(Change::Closed(call)) => self.set ^= mark(call),
            Some(Change::Applied { call, before, chain }) => {
                self.state = before;
                self.chain = chain;
                self.applied[call] = false;
                self.ranked_applied -= usize::from(self.ranks[call].is_some());
                self.set ^= mark(call);
                self.order.pop();
                self.open_set(call).insert(call);
            }
            None => (),
        }
    }

    /// Unknown outcome, and nobody saw its version: it need not take effect at all.
    fn is_unknown(&self, call: usize) -> bool {
        self.calls.all[call].answered_at.is_none() && self.ranks[call].is_none()
    }

    fn open_set(&mut self, call: usize) -> &mut BTreeSet<usize> {
        if self.is_unknown(call) {
            &mut self.open_unknown
        } else {
            &mut self.open
        }
    }

    fn dead_end(self) -> DeadEnd {
        let (_, dead_end) = self.farthest.expect("a search fails at a choice");
        dead_end
    }
}

/// How many calls of smaller known version there are, for each call of known version.
fn ranks(calls: &[Call]) -> Vec<Option<usize>> {
    let version = |call: &Call| call.version.filter(|version| *version > 0);
    let mut known: Vec<u64> = calls.iter().filter_map(version).collect();
    known.sort_unstable();
    let rank = |version: u64| known.partition_point(|other| *other < version);
    calls.iter().map(|call| version(call).map(rank)).collect()
}

/// A fixed random number for each call: two rounds of `SplitMix64` (Steele, Lea and Flood 2014).
fn mark(call: usize) -> u128 {
    let mix = |seed: u64| {
        let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let seed = call as u64 * 2 + 1;
    u128::from(mix(seed)) << 64 | u128::from(mix(seed + 1))
}
