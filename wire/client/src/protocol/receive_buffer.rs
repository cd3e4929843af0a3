//! Received bytes that are not yet taken: one buffer, moved to its front only when its end is reached.
//!
//! Invariant: `start <= end <= bytes.len()`; the bytes between them are received and not taken.

/// Least room that is offered to one read.
const READ_BYTES_MIN: usize = 64 * 1024;

/// An empty buffer longer than this is given back: one big value must not hold its memory for the rest of a
/// connection.
const KEEP_BYTES_MAX: usize = 2 * 1024 * 1024;

#[derive(Debug, Default)]
pub(super) struct ReceiveBuffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl ReceiveBuffer {
    /// What is received and not taken.
    pub(super) fn received(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Room to read into, so much that what is there and the room together hold at least `whole_bytes`.
    pub(super) fn room(&mut self, whole_bytes: usize) -> &mut [u8] {
        let held = self.end - self.start;
        if held == 0 {
            self.start = 0;
            self.end = 0;
            if self.bytes.len() > KEEP_BYTES_MAX {
                self.bytes = Vec::new();
            }
        }
        let needed = whole_bytes.saturating_sub(held).max(READ_BYTES_MIN);
        if self.bytes.len() - self.end < needed {
            self.bytes.copy_within(self.start..self.end, 0);
            self.start = 0;
            self.end = held;
            if self.bytes.len() < held + needed {
                self.bytes.resize(held + needed, 0);
            }
        }
        &mut self.bytes[self.end..]
    }

    /// `count` bytes were read into the room.
    pub(super) fn filled(&mut self, count: usize) {
        assert!(
            count <= self.bytes.len() - self.end,
            "{count} bytes were read into less room"
        );
        self.end += count;
    }

    /// The first `count` bytes are taken.
    pub(super) fn take(&mut self, count: usize) {
        assert!(count <= self.end - self.start, "{count} bytes taken of fewer");
        self.start += count;
    }
}
