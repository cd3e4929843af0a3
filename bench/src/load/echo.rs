//! An echo for the load: each request is as many bytes as a key and a value have, and comes back as it went.

use super::conversation::{Answered, Conversation, Operation};

/// Room for one read.
const READ_BYTES: usize = 64 * 1024;

/// One connection to an echo. All its requests have one length.
pub(super) struct EchoConversation {
    pipeline: u64,
    submitted: u64,
    answered: u64,
    /// Of a request, once there was one.
    request_bytes: usize,
    value_bytes: usize,
    send: Vec<u8>,
    sent_bytes: usize,
    receive: Vec<u8>,
    /// Bytes that came and are not counted as an answer yet.
    unclaimed_bytes: usize,
}

impl Conversation for EchoConversation {
    fn new(pipeline: usize) -> Result<Self, String> {
        Ok(Self {
            pipeline: pipeline as u64,
            submitted: 0,
            answered: 0,
            request_bytes: 0,
            value_bytes: 0,
            send: Vec::new(),
            sent_bytes: 0,
            receive: vec![0; READ_BYTES],
            unclaimed_bytes: 0,
        })
    }

    fn is_ready(&self) -> bool {
        true
    }

    fn submit(&mut self, _operation: Operation, key: &[u8], value: &[u8]) -> Result<usize, String> {
        let request_bytes = key.len() + value.len();
        if self.submitted > 0 && request_bytes != self.request_bytes {
            return Err("requests to an echo have one length".to_owned());
        }
        self.request_bytes = request_bytes;
        self.value_bytes = value.len();
        self.send.extend_from_slice(key);
        self.send.extend_from_slice(value);
        self.submitted += 1;
        Ok(((self.submitted - 1) % self.pipeline) as usize)
    }

    fn bytes_to_send(&self) -> &[u8] {
        &self.send[self.sent_bytes..]
    }

    fn sent(&mut self, count: usize) {
        self.sent_bytes += count;
        if self.sent_bytes == self.send.len() {
            self.send.clear();
            self.sent_bytes = 0;
        }
    }

    fn receive_room(&mut self) -> &mut [u8] {
        &mut self.receive
    }

    fn received(&mut self, count: usize) {
        self.unclaimed_bytes += count;
    }

    fn next_answer(&mut self) -> Result<Option<(usize, Answered)>, String> {
        if self.unclaimed_bytes == 0 || self.unclaimed_bytes < self.request_bytes {
            return Ok(None);
        }
        if self.answered == self.submitted {
            return Err("an echo sent more than it was sent".to_owned());
        }
        self.unclaimed_bytes -= self.request_bytes;
        let slot = (self.answered % self.pipeline) as usize;
        self.answered += 1;
        let value_bytes = self.value_bytes;
        Ok(Some((slot, Answered::Found { value_bytes })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_their_bytes() {
        let mut echo = EchoConversation::new(2).unwrap();
        assert_eq!(echo.submit(Operation::Get, b"key", b"value"), Ok(0));
        assert_eq!(echo.submit(Operation::Get, b"key", b"value"), Ok(1));
        assert_eq!(echo.bytes_to_send(), b"keyvaluekeyvalue");
        echo.received(7);
        assert_eq!(echo.next_answer(), Ok(None));
        echo.received(9);
        let found = Answered::Found { value_bytes: 5 };
        assert_eq!(echo.next_answer(), Ok(Some((0, found.clone()))));
        assert_eq!(echo.next_answer(), Ok(Some((1, found))));
        assert_eq!(echo.next_answer(), Ok(None));
        echo.received(8);
        assert!(echo.next_answer().is_err(), "nothing more was asked");
    }
}
