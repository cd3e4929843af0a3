//! Counters that `add` operations increment, and the account of what they must hold.
//!
//! The counters of a run have keys of their own, which no other run uses: `counter:`, the run's random number and
//! the counter's, in hexadecimal digits. All are absent at first, and an add is always of 1, so a counter holds the
//! number of adds that were applied to it. The rules:
//! 1. An add is answered with a number above every number that was answered before it was sent, and not above the
//!    number of adds that were sent by then.
//! 2. At the end a counter holds at least the acknowledged adds and the highest answer, and at most those and the
//!    adds of unknown outcome. Without any of those it is exact.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::keys::KeyIndex;
use crate::register::{Violation, ViolationKind};

const PREFIX: &[u8] = b"counter:";
const KEY_BYTES: usize = PREFIX.len() + 16 + 1 + 8;

/// Number of a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CounterIndex(pub u32);

/// A counter's key, on the stack.
#[derive(Debug, Clone, Copy)]
pub struct CounterKey([u8; KEY_BYTES]);

/// Goes with an add until its outcome is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddTicket {
    /// Which counter.
    pub counter: CounterIndex,
    /// The highest number that was answered before the add was sent.
    floor: u64,
}

/// All counters of a run; shared by all executors.
#[derive(Debug)]
pub struct Counters {
    run: u64,
    counters: Box<[Counter]>,
}

#[derive(Debug, Default)]
struct Counter {
    sent: AtomicU64,
    acknowledged: AtomicU64,
    unknown: AtomicU64,
    /// Highest number that was answered.
    highest: AtomicU64,
}

/// What the check of all counters found right.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct CounterSummary {
    /// Sum over all counters.
    pub sum: u64,
    /// Adds that were acknowledged.
    pub acknowledged: u64,
    /// Adds of unknown outcome.
    pub unknown: u64,
}

/// The check of a database at rest: takes what a full scan finds, then looks for what was missing.
#[derive(Debug)]
pub struct CounterCheck<'a> {
    counters: &'a Counters,
    found: Vec<u64>,
}

impl CounterKey {
    /// The bytes to send.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Is this the key of a counter, of whatever run?
pub fn is_counter(key: &[u8]) -> bool {
    key.len() == KEY_BYTES && key.starts_with(PREFIX)
}

impl Counters {
    /// So many, all absent; `run` is a random number.
    pub fn new(run: u64, count: u32) -> Self {
        Self {
            run,
            counters: (0..count).map(|_| Counter::default()).collect(),
        }
    }

    /// The counter that stands for a record in the choice of what is added to.
    pub fn of_record(&self, record: KeyIndex) -> CounterIndex {
        CounterIndex((record.0 % self.counters.len() as u64) as u32)
    }

    /// The key of a counter.
    pub fn key(&self, counter: CounterIndex) -> CounterKey {
        let mut key = [b':'; KEY_BYTES];
        key[..PREFIX.len()].copy_from_slice(PREFIX);
        hexadecimal(&mut key[PREFIX.len()..PREFIX.len() + 16], self.run);
        hexadecimal(&mut key[PREFIX.len() + 17..], u64::from(counter.0));
        CounterKey(key)
    }

    /// Before an add is handed to its connection.
    pub fn begin_add(&self, counter: CounterIndex) -> AddTicket {
        let account = &self.counters[counter.0 as usize];
        account.sent.fetch_add(1, Ordering::SeqCst);
        AddTicket {
            counter,
            floor: account.highest.load(Ordering::SeqCst),
        }
    }

    /// An add was answered with this number.
    ///
    /// # Errors
    /// When rule 1 is broken.
    pub fn acknowledged(&self, ticket: &AddTicket, number: i64) -> Result<(), Violation> {
        let account = &self.counters[ticket.counter.0 as usize];
        account.acknowledged.fetch_add(1, Ordering::SeqCst);
        let sent = account.sent.load(Ordering::SeqCst);
        let is_possible = u64::try_from(number).is_ok_and(|number| ticket.floor < number && number <= sent);
        if !is_possible {
            let expected = format!("a number from {} to {sent}", ticket.floor + 1);
            return Err(self.wrong(ticket.counter, expected, format!("the answer {number}")));
        }
        account.highest.fetch_max(number as u64, Ordering::SeqCst);
        Ok(())
    }

    /// The add's outcome will not be known.
    pub fn unknown(&self, ticket: &AddTicket) {
        self.counters[ticket.counter.0 as usize]
            .unknown
            .fetch_add(1, Ordering::SeqCst);
    }

    /// Nothing found yet.
    pub fn check(&self) -> CounterCheck<'_> {
        CounterCheck {
            counters: self,
            found: vec![0; self.counters.len()],
        }
    }

    fn wrong(&self, counter: CounterIndex, expected: String, found: String) -> Violation {
        Violation::of_key(
            ViolationKind::WrongCount,
            self.key(counter).bytes(),
            expected,
            found,
        )
    }
}

impl CounterCheck<'_> {
    /// A counter's entry in the scan; those of other runs are passed over.
    ///
    /// # Errors
    /// When it is one of this run that there is not, or holds no number.
    pub fn entry(&mut self, key: &[u8], value: &[u8]) -> Result<(), Violation> {
        let run = self.counters.key(CounterIndex(0));
        if key[..PREFIX.len() + 16] != run.bytes()[..PREFIX.len() + 16] {
            return Ok(());
        }
        let text = |bytes| std::str::from_utf8(bytes).ok();
        let index = text(&key[PREFIX.len() + 17..]).and_then(|digits| usize::from_str_radix(digits, 16).ok());
        let number = text(value).and_then(|digits| digits.parse().ok());
        let place = index.and_then(|index| self.found.get_mut(index));
        match (place, number) {
            (Some(place), Some(number)) => {
                *place = number;
                Ok(())
            }
            _ => Err(Violation::of_key(
                ViolationKind::WrongCount,
                key,
                "a counter of this run, with a number in decimal digits".to_owned(),
                value.escape_ascii().to_string(),
            )),
        }
    }

    /// All entries were given.
    ///
    /// # Errors
    /// All counters that break rule 2.
    pub fn finish(self) -> Result<CounterSummary, Vec<Violation>> {
        let mut summary = CounterSummary::default();
        let mut violations = Vec::new();
        for (index, (account, found)) in self.counters.counters.iter().zip(&self.found).enumerate() {
            let acknowledged = account.acknowledged.load(Ordering::SeqCst);
            let unknown = account.unknown.load(Ordering::SeqCst);
            let low = acknowledged.max(account.highest.load(Ordering::SeqCst));
            let high = acknowledged + unknown;
            if !(low..=high).contains(found) {
                let expected = if low == high {
                    format!("{low}, the number of acknowledged adds")
                } else {
                    format!("from {low} to {high}: {acknowledged} adds are acknowledged, {unknown} unknown")
                };
                let counter = CounterIndex(index as u32);
                violations.push(self.counters.wrong(counter, expected, format!("{found}")));
            }
            summary.sum += found;
            summary.acknowledged += acknowledged;
            summary.unknown += unknown;
        }
        if violations.is_empty() {
            Ok(summary)
        } else {
            Err(violations)
        }
    }
}

/// As many lower digits of `number` as there is room for.
fn hexadecimal(room: &mut [u8], number: u64) {
    let mut rest = number;
    for digit in room.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(rest % 16) as usize];
        rest /= 16;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNTER: CounterIndex = CounterIndex(1);

    fn checked(counters: &Counters, value: &[u8]) -> Result<CounterSummary, Vec<Violation>> {
        let mut check = counters.check();
        let entry = check.entry(counters.key(COUNTER).bytes(), value);
        entry.map_err(|violation| vec![violation])?;
        check.finish()
    }

    #[test]
    fn keys_are_the_runs_own() {
        let counters = Counters::new(0xAB, 300);
        let key = counters.key(CounterIndex(0x12));
        assert_eq!(key.bytes(), b"counter:00000000000000ab:00000012");
        assert!(is_counter(key.bytes()) && !is_counter(b"user1"));
        assert_eq!(counters.of_record(KeyIndex(301)), COUNTER);
        let mut check = counters.check();
        let foreign = Counters::new(0xAC, 300);
        check.entry(foreign.key(COUNTER).bytes(), b"7").unwrap();
        assert_eq!(check.finish().unwrap().sum, 0);
        let mut check = counters.check();
        assert!(
            check
                .entry(counters.key(CounterIndex(300)).bytes(), b"7")
                .is_err()
        );
        assert!(check.entry(counters.key(COUNTER).bytes(), b"x").is_err());
    }

    #[test]
    fn without_unknown_outcomes_the_sum_is_exact() {
        let counters = Counters::new(1, 2);
        for number in 1..=3 {
            let ticket = counters.begin_add(COUNTER);
            counters.acknowledged(&ticket, number).unwrap();
        }
        let summary = checked(&counters, b"3").unwrap();
        assert_eq!((summary.sum, summary.acknowledged, summary.unknown), (3, 3, 0));
        for wrong in [b"2", b"4"] {
            let violations = checked(&counters, wrong).unwrap_err();
            assert_eq!(violations[0].kind, ViolationKind::WrongCount);
        }
        let lost = counters.check().finish().unwrap_err();
        assert!(lost[0].to_string().contains("counter"), "{}", lost[0]);
    }

    #[test]
    fn an_unknown_outcome_may_count_or_not() {
        let counters = Counters::new(1, 2);
        let (first, second) = (counters.begin_add(COUNTER), counters.begin_add(COUNTER));
        counters.acknowledged(&first, 1).unwrap();
        counters.unknown(&second);
        assert!(checked(&counters, b"1").is_ok() && checked(&counters, b"2").is_ok());
        assert!(checked(&counters, b"3").is_err() && checked(&counters, b"0").is_err());
    }

    #[test]
    fn answers_rise_and_are_never_above_what_was_sent() {
        let counters = Counters::new(1, 2);
        let early = counters.begin_add(COUNTER);
        assert!(counters.acknowledged(&early, 2).is_err(), "one was sent");
        let (first, second) = (counters.begin_add(COUNTER), counters.begin_add(COUNTER));
        counters.acknowledged(&first, 3).unwrap();
        counters.acknowledged(&second, 2).unwrap();
        let late = counters.begin_add(COUNTER);
        assert!(
            counters.acknowledged(&late, 3).is_err(),
            "3 was answered before it was sent"
        );
        assert!(counters.acknowledged(&late, -1).is_err());
    }
}
