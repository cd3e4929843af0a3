//! Looks files through from end to end and tells all that is wrong with them, for the offline check and for the scrub
//! of a running node.
//!
//! [`table`] is about tables; manifests tell of themselves (`manifest::judgement`). Nothing here changes a byte, and
//! nothing stops at the first flaw.

pub mod table;
mod window;

#[cfg(test)]
mod tests;

use core::fmt;

use crate::env::Tasks;
use crate::env::pace::Pace;

/// While a pace makes a walk wait, it asks so many times a second whether it is still wanted.
const ASKS_PER_SECOND: u64 = 10;

/// How a file is read through.
#[derive(Clone, Copy)]
pub struct Reading<'a> {
    /// For yielding.
    pub tasks: &'a dyn Tasks,
    /// How fast it may go.
    pub pace: &'a Pace,
    /// Bytes of one read, as a rule.
    pub portion_bytes: usize,
    /// Asked before each read: no ends the walk where it is.
    pub is_wanted: &'a dyn Fn() -> bool,
    /// Hears how many bytes were read.
    pub has_read: &'a dyn Fn(u64),
}

impl Reading<'_> {
    /// So many bytes were read: waits as the pace says, or until the walk is not wanted any more.
    pub async fn spent(&self, bytes: usize) {
        (self.has_read)(bytes as u64);
        let step_bytes = (self.pace.bytes_per_second() / ASKS_PER_SECOND).max(1);
        let mut left_bytes = bytes as u64;
        while left_bytes > 0 && (self.is_wanted)() {
            let part_bytes = left_bytes.min(step_bytes);
            self.pace.spent(part_bytes as usize).await;
            left_bytes -= part_bytes;
        }
    }
}

/// Something that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// From the start of the file, in bytes.
    pub offset: u64,
    /// Length of the place, in bytes.
    pub bytes: u64,
    /// What was expected and what was found.
    pub what: String,
    /// What can't be read because of it.
    pub lost: Lost,
}

/// What can't be read because of a flaw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lost {
    /// Nothing.
    Nothing,
    /// Versions of keys from the first to the last of these, as tables have them. `None`: from the first of the table
    /// on.
    Keys(Option<Box<[u8]>>, Box<[u8]>),
    /// The file can't be opened any more, so all of it.
    File,
}

impl fmt::Display for Flaw {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "at offset {}: {}", self.offset, self.what)
    }
}
