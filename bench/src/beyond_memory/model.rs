//! What each key must hold: one byte a key, since a value follows from its key and the pass that wrote it.
//!
//! Keys are numbers in decimal digits, so a scan meets them in the order of their numbers. Each pass writes a key at
//! most once at a time. What is under way when the power goes has an unknown outcome: the key may be as before or as
//! the pass wanted it. The first read that sees which settles it.

use std::sync::atomic::{AtomicU8, Ordering};

use loadgen::random::mix;

use crate::engines::rows::{self, KEY_BYTES};

/// Bytes of a value that say which it is: number of the key, pass.
pub const HEAD_BYTES: usize = 16;

/// A pass over the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pass {
    /// All keys are put for the first time.
    Load = 1,
    /// All are put again.
    Overwrite = 2,
    /// And again.
    OverwriteAgain = 3,
    /// Half of them are deleted.
    Delete = 4,
}

impl Pass {
    /// All, in order.
    pub const ALL: [Self; 4] = [Self::Load, Self::Overwrite, Self::OverwriteAgain, Self::Delete];

    /// For tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Load => "load in random order",
            Self::Overwrite => "overwrite",
            Self::OverwriteAgain => "overwrite again",
            Self::Delete => "delete half",
        }
    }

    /// Does it change the key of this number?
    pub fn wants(self, number: u64) -> bool {
        self != Self::Delete || mix(number) & 1 == 0
    }
}

/// What the database has promised about each key.
#[derive(Debug)]
pub struct Model {
    /// Bits 0 to 3: the last pass that was acknowledged, 0 for none. Bits 4 to 7: the pass that is under way, or of
    /// unknown outcome.
    states: Vec<AtomicU8>,
    values: Values,
}

/// What a read has shown to be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A key that was acknowledged is not there.
    Lost,
    /// Its value is not the last acknowledged one, or none that was ever written.
    Wrong,
    /// It is there, and was deleted or never written.
    Risen,
}

impl Model {
    /// Of so many keys, none of them written.
    pub fn new(keys: u64, values: Values) -> Self {
        Self {
            states: (0..keys).map(|_| AtomicU8::new(0)).collect(),
            values,
        }
    }

    /// Keys.
    pub fn keys(&self) -> u64 {
        self.states.len() as u64
    }

    /// Their values.
    pub fn values(&self) -> &Values {
        &self.values
    }

    /// Has the pass still to write this key?
    pub fn is_due(&self, number: u64, pass: Pass) -> bool {
        pass.wants(number) && self.states[number as usize].load(Ordering::Relaxed) & 0xF < pass as u8
    }

    /// A write of the pass is sent.
    pub fn sent(&self, number: u64, pass: Pass) {
        let state = &self.states[number as usize];
        let before = state.load(Ordering::Relaxed);
        assert!(before < 0x10, "one write of a key at a time");
        state.store(before | (pass as u8) << 4, Ordering::Relaxed);
    }

    /// It was acknowledged.
    pub fn acknowledged(&self, number: u64, pass: Pass) {
        self.states[number as usize].store(pass as u8, Ordering::Relaxed);
    }

    /// It was refused, and has changed nothing.
    pub fn refused(&self, number: u64) {
        self.states[number as usize].fetch_and(0xF, Ordering::Relaxed);
    }

    /// Keys that must be there. Nothing may be of unknown outcome.
    pub fn live_keys(&self) -> u64 {
        let is_live = |state: &&AtomicU8| holds_value(state.load(Ordering::Relaxed));
        self.states.iter().filter(is_live).count() as u64
    }

    /// Writes of unknown outcome.
    pub fn unknown(&self) -> u64 {
        let is_unknown = |state: &&AtomicU8| state.load(Ordering::Relaxed) > 0xF;
        self.states.iter().filter(is_unknown).count() as u64
    }

    /// Holds what was read of a key against what was promised; a write of unknown outcome is known then.
    ///
    /// # Errors
    /// What is wrong.
    pub fn read(&self, number: u64, value: Option<&[u8]>) -> Result<(), Fault> {
        let state = &self.states[number as usize];
        let now = state.load(Ordering::Relaxed);
        let fits = |pass: u8| match value {
            Some(value) => holds_value(pass) && self.values.is(value, number, pass),
            None => !holds_value(pass),
        };
        // The older one first where both are absences: it makes no difference then.
        let (acknowledged, under_way) = (now & 0xF, now >> 4);
        let found = [acknowledged, under_way].into_iter().find(|pass| {
            let is_possible = *pass == acknowledged || under_way != 0;
            is_possible && fits(*pass)
        });
        match found {
            Some(pass) => {
                state.store(pass, Ordering::Relaxed);
                Ok(())
            }
            None if value.is_none() => Err(Fault::Lost),
            None if !holds_value(acknowledged) && under_way == 0 => Err(Fault::Risen),
            None => Err(Fault::Wrong),
        }
    }

    /// A sentence about a fault, for people.
    pub fn sentence(&self, fault: Fault, number: u64, value: Option<&[u8]>) -> String {
        let state = self.states[number as usize].load(Ordering::Relaxed);
        let promised = match state & 0xF {
            0 => "was never acknowledged".to_owned(),
            pass => format!("was acknowledged by pass {pass}"),
        };
        let under_way = match state >> 4 {
            0 => String::new(),
            pass => format!(", with a write of pass {pass} of unknown outcome"),
        };
        let found = match value {
            None => "absent".to_owned(),
            Some(value) => describe(value),
        };
        format!("{fault:?}: key {number} {promised}{under_way}, and is {found}")
    }
}

fn holds_value(pass: u8) -> bool {
    (Pass::Load as u8..Pass::Delete as u8).contains(&pass)
}

fn describe(value: &[u8]) -> String {
    let word = |at: usize| Some(u64::from_le_bytes(value.get(at..at + 8)?.try_into().ok()?));
    match (word(0), word(8)) {
        (Some(number), Some(pass)) => {
            format!("{} bytes with the head of key {number}, pass {pass}", value.len())
        }
        _ => format!("{} bytes", value.len()),
    }
}

/// How values are made: a head that names key and pass, noise that follows from both, and zeros.
#[derive(Debug, Clone, Copy)]
pub struct Values {
    /// Bytes of a value, the head included.
    pub bytes: usize,
    /// Of them, those that do not compress.
    pub noise_bytes: usize,
}

impl Values {
    /// Bytes of a key and its value.
    pub fn record_bytes(self) -> u64 {
        (KEY_BYTES + self.bytes) as u64
    }

    /// Fills `value` with what a pass writes to a key.
    pub fn fill(self, value: &mut Vec<u8>, number: u64, pass: u8) {
        value.clear();
        value.extend_from_slice(&number.to_le_bytes());
        value.extend_from_slice(&u64::from(pass).to_le_bytes());
        let seed = mix(number) ^ mix(u64::from(pass) << 56);
        let mut word = 0;
        while value.len() < self.noise_bytes {
            word += 1;
            value.extend_from_slice(&mix(seed.wrapping_add(word)).to_le_bytes());
        }
        value.truncate(self.noise_bytes.max(HEAD_BYTES));
        value.resize(self.bytes, 0);
    }

    fn is(self, value: &[u8], number: u64, pass: u8) -> bool {
        // A look at the head spares most of the work when it is another pass.
        if value.len() != self.bytes || value[8..HEAD_BYTES] != u64::from(pass).to_le_bytes() {
            return false;
        }
        let mut expected = Vec::with_capacity(self.bytes);
        self.fill(&mut expected, number, pass);
        value == expected
    }
}

/// The key of a number.
pub fn key(number: u64) -> [u8; KEY_BYTES] {
    let mut bytes = [0; KEY_BYTES];
    rows::key(number, &mut bytes);
    bytes
}

/// The number of a key, if it is one of ours.
pub fn number_of(key: &[u8]) -> Option<u64> {
    if key.len() != KEY_BYTES {
        return None;
    }
    std::str::from_utf8(key).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: Values = Values {
        bytes: 100,
        noise_bytes: 50,
    };

    fn value(number: u64, pass: Pass) -> Vec<u8> {
        let mut value = Vec::new();
        VALUES.fill(&mut value, number, pass as u8);
        value
    }

    #[test]
    fn what_was_acknowledged_must_be_there() {
        let model = Model::new(2, VALUES);
        let (old, new) = (value(1, Pass::Load), value(1, Pass::Overwrite));
        assert_eq!(model.read(1, None), Ok(()));
        assert_eq!(model.read(1, Some(&old)), Err(Fault::Risen));
        for pass in [Pass::Load, Pass::Overwrite] {
            model.sent(1, pass);
            model.acknowledged(1, pass);
        }
        assert_eq!(model.read(1, Some(&new)), Ok(()));
        assert_eq!(model.read(1, Some(&old)), Err(Fault::Wrong));
        assert_eq!(model.read(1, None), Err(Fault::Lost));
        assert_eq!(model.read(1, Some(&value(0, Pass::Overwrite))), Err(Fault::Wrong));
        let mut damaged = new.clone();
        damaged[40] ^= 1;
        assert_eq!(model.read(1, Some(&damaged)), Err(Fault::Wrong));
        assert_eq!(model.live_keys(), 1);
    }

    #[test]
    fn either_outcome_of_an_unknown_write_is_right_and_stays() {
        for (seen, other) in [(Pass::Load, Pass::Overwrite), (Pass::Overwrite, Pass::Load)] {
            let model = Model::new(1, VALUES);
            model.acknowledged(0, Pass::Load);
            model.sent(0, Pass::Overwrite);
            assert_eq!(model.unknown(), 1);
            assert_eq!(model.read(0, Some(&value(0, seen))), Ok(()));
            assert_eq!(model.unknown(), 0);
            assert_eq!(model.read(0, Some(&value(0, other))), Err(Fault::Wrong));
            assert_eq!(model.is_due(0, Pass::Overwrite), seen == Pass::Load);
        }
    }

    #[test]
    fn a_delete_of_unknown_outcome_may_have_been() {
        let number = (0..10).find(|number| Pass::Delete.wants(*number)).unwrap();
        for is_there in [true, false] {
            let model = Model::new(10, VALUES);
            model.acknowledged(number, Pass::OverwriteAgain);
            model.sent(number, Pass::Delete);
            let found = is_there.then(|| value(number, Pass::OverwriteAgain));
            assert_eq!(model.read(number, found.as_deref()), Ok(()));
            let wrong = (!is_there).then(|| value(number, Pass::OverwriteAgain));
            let fault = if is_there { Fault::Lost } else { Fault::Risen };
            assert_eq!(model.read(number, wrong.as_deref()), Err(fault));
        }
    }

    #[test]
    fn a_refused_write_has_changed_nothing() {
        let model = Model::new(1, VALUES);
        model.acknowledged(0, Pass::Load);
        model.sent(0, Pass::Overwrite);
        model.refused(0);
        assert!(model.is_due(0, Pass::Overwrite));
        assert_eq!(model.read(0, Some(&value(0, Pass::Overwrite))), Err(Fault::Wrong));
    }

    #[test]
    fn keys_are_told_from_those_of_others() {
        assert_eq!(number_of(&key(987)), Some(987));
        assert_eq!(number_of(b"987"), None);
        assert_eq!(number_of(b"000000000000098x"), None);
    }

    #[test]
    fn half_of_the_keys_are_deleted() {
        let deleted = (0..10_000).filter(|number| Pass::Delete.wants(*number)).count();
        assert!((4_800..5_200).contains(&deleted), "{deleted}");
    }
}
