//! RESP version 2 for the load, as far as SET and GET need it.
//!
//! Requests are arrays of bulk strings. Answers come in the order of the requests: `+OK`, `-sentence`, a
//! bulk string `$length` with its bytes, or `$-1` for no such key. Each line ends with CR LF.

use super::conversation::{Answered, Conversation, Operation};

/// Room for one read.
const READ_BYTES: usize = 64 * 1024;

/// One connection to Redis.
pub(super) struct RedisConversation {
    pipeline: u64,
    submitted: u64,
    answered: u64,
    send: Vec<u8>,
    sent_bytes: usize,
    /// What was read lies in `taken_bytes..filled_bytes`.
    receive: Vec<u8>,
    taken_bytes: usize,
    filled_bytes: usize,
}

impl Conversation for RedisConversation {
    fn new(pipeline: usize) -> Result<Self, String> {
        Ok(Self {
            pipeline: pipeline as u64,
            submitted: 0,
            answered: 0,
            send: Vec::new(),
            sent_bytes: 0,
            receive: Vec::new(),
            taken_bytes: 0,
            filled_bytes: 0,
        })
    }

    fn is_ready(&self) -> bool {
        true
    }

    fn submit(&mut self, operation: Operation, key: &[u8], value: &[u8]) -> Result<usize, String> {
        match operation {
            Operation::Put => {
                self.send.extend_from_slice(b"*3\r\n$3\r\nSET\r\n");
                push_bulk(&mut self.send, key);
                push_bulk(&mut self.send, value);
            }
            Operation::Get => {
                self.send.extend_from_slice(b"*2\r\n$3\r\nGET\r\n");
                push_bulk(&mut self.send, key);
            }
        }
        let slot = self.submitted % self.pipeline;
        self.submitted += 1;
        Ok(slot as usize)
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
        self.receive.copy_within(self.taken_bytes..self.filled_bytes, 0);
        self.filled_bytes -= self.taken_bytes;
        self.taken_bytes = 0;
        if self.receive.len() < self.filled_bytes + READ_BYTES {
            self.receive.resize(self.filled_bytes + READ_BYTES, 0);
        }
        &mut self.receive[self.filled_bytes..]
    }

    fn received(&mut self, count: usize) {
        self.filled_bytes += count;
    }

    fn next_answer(&mut self) -> Result<Option<(usize, Answered)>, String> {
        let unread = &self.receive[self.taken_bytes..self.filled_bytes];
        let Some((answered, bytes)) = parse(unread)? else {
            return Ok(None);
        };
        if self.answered == self.submitted {
            return Err("an answer without a request".to_owned());
        }
        self.taken_bytes += bytes;
        let slot = self.answered % self.pipeline;
        self.answered += 1;
        Ok(Some((slot as usize, answered)))
    }
}

fn push_bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(format!("${}\r\n", bytes.len()).as_bytes());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// The answer at the start of the bytes, and its length; `None` if it is not there whole.
fn parse(unread: &[u8]) -> Result<Option<(Answered, usize)>, String> {
    let Some(line_bytes) = unread.windows(2).position(|pair| pair == b"\r\n") else {
        return Ok(None);
    };
    let (line, head_bytes) = (String::from_utf8_lossy(&unread[..line_bytes]), line_bytes + 2);
    if line == "+OK" {
        return Ok(Some((Answered::Stored, head_bytes)));
    }
    if line == "$-1" {
        return Ok(Some((Answered::Missing, head_bytes)));
    }
    if let Some(sentence) = line.strip_prefix('-') {
        return Ok(Some((Answered::Refused(sentence.to_owned()), head_bytes)));
    }
    let length = line
        .strip_prefix('$')
        .and_then(|length| length.parse::<usize>().ok());
    let value_bytes = length.ok_or_else(|| format!("no answer to SET or GET: {line}"))?;
    let whole_bytes = head_bytes + value_bytes + 2;
    Ok((unread.len() >= whole_bytes).then_some((Answered::Found { value_bytes }, whole_bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_arrays_of_bulk_strings() {
        let mut conversation = RedisConversation::new(2).unwrap();
        assert_eq!(conversation.submit(Operation::Put, b"k", b"value"), Ok(0));
        assert_eq!(conversation.submit(Operation::Get, b"k", b"value"), Ok(1));
        let expected = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nvalue\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n";
        assert_eq!(conversation.bytes_to_send(), expected);
    }

    #[test]
    fn answers_arrive_in_pieces_of_any_size() {
        let answers = b"+OK\r\n$5\r\na\r\nbc\r\n$-1\r\n-ERR no\r\n";
        let expected = [
            (0, Answered::Stored),
            (1, Answered::Found { value_bytes: 5 }),
            (2, Answered::Missing),
            (0, Answered::Refused("ERR no".to_owned())),
        ];
        for piece_bytes in 1..answers.len() {
            let mut conversation = RedisConversation::new(3).unwrap();
            for _ in 0..4 {
                conversation.submit(Operation::Get, b"k", b"").unwrap();
            }
            let mut found = Vec::new();
            for piece in answers.chunks(piece_bytes) {
                conversation.receive_room()[..piece.len()].copy_from_slice(piece);
                conversation.received(piece.len());
                while let Some(answer) = conversation.next_answer().unwrap() {
                    found.push(answer);
                }
            }
            assert_eq!(found, expected, "in pieces of {piece_bytes} bytes");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(parse(b"*1\r\n").is_err());
        assert!(parse(b"$x\r\n").is_err());
        let mut conversation = RedisConversation::new(1).unwrap();
        conversation.receive_room()[..5].copy_from_slice(b"+OK\r\n");
        conversation.received(5);
        assert!(conversation.next_answer().is_err());
    }
}
