//! The client's side of one Redis connection, without IO: RESP2, answers in the order of the requests.
//!
//! A get is `GET`, a put `SET` (with `PX` if it expires), an add of one `INCR`, a delete `DEL`, a ping `PING`.
//! Answers are read by the crate `redis-protocol`; values are lent from the receive buffer, never copied.

use std::collections::VecDeque;

use ostrakon_client::{Request, Response};
use ostrakon_wire::message::Found;
use redis_protocol::resp2::decode::decode_range;
use redis_protocol::resp2::types::RangeFrame;

use super::{Answer, WireError};
use crate::keys::decimal;

/// Least room for a read.
const ROOM_BYTES: usize = 64 * 1024;
/// An answer of more bytes than that is refused: Redis's own bound of a value is 512 MiB.
const ANSWER_BYTES_MAX: usize = (512 << 20) + 1024;

/// What an answer must fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaited {
    Ping,
    Get,
    Set,
    Delete,
    Add,
}

/// Invariant: the requests in flight have the slots `first_slot..`, round the `capacity`, in the order of
/// `awaited`.
#[derive(Debug)]
pub(crate) struct RedisProtocol {
    send: Vec<u8>,
    sent_bytes: usize,
    receive: Vec<u8>,
    /// What has arrived and is not taken lies in `receive[taken_bytes..filled_bytes]`.
    taken_bytes: usize,
    filled_bytes: usize,
    awaited: VecDeque<Awaited>,
    first_slot: usize,
    capacity: usize,
}

impl RedisProtocol {
    /// A connection just made, for at most `capacity` unanswered requests.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            send: Vec::new(),
            sent_bytes: 0,
            receive: Vec::new(),
            taken_bytes: 0,
            filled_bytes: 0,
            awaited: VecDeque::with_capacity(capacity),
            first_slot: 0,
            capacity,
        }
    }

    /// An array of bulk strings. Written here because the crate's encoder takes 1,800 instructions per request
    /// (it counts digits by logarithms), two fifths of all that a request costs the generator.
    fn command(&mut self, words: &[&[u8]]) {
        self.header(b'*', words.len());
        for word in words {
            self.header(b'$', word.len());
            self.send.extend_from_slice(word);
            self.send.extend_from_slice(b"\r\n");
        }
    }

    fn header(&mut self, sort: u8, length: usize) {
        let mut digits = [0; 20];
        let first = decimal(&mut digits, length as u64);
        self.send.push(sort);
        self.send.extend_from_slice(&digits[first..]);
        self.send.extend_from_slice(b"\r\n");
    }

    pub(crate) fn submit(&mut self, request: &Request<'_>) -> Result<usize, String> {
        if self.awaited.len() == self.capacity {
            return Err(format!("more than {} requests are unanswered", self.capacity));
        }
        let awaited = match *request {
            Request::Ping => {
                self.command(&[b"PING"]);
                Awaited::Ping
            }
            Request::Get { key } => {
                self.command(&[b"GET", key]);
                Awaited::Get
            }
            Request::Put {
                key,
                value,
                ttl_ms: 0,
                ..
            } => {
                self.command(&[b"SET", key, value]);
                Awaited::Set
            }
            Request::Put {
                key, value, ttl_ms, ..
            } => {
                let mut digits = [0; 20];
                let first = decimal(&mut digits, ttl_ms);
                self.command(&[b"SET", key, value, b"PX", &digits[first..]]);
                Awaited::Set
            }
            Request::Add { key, delta: 1, .. } => {
                self.command(&[b"INCR", key]);
                Awaited::Add
            }
            Request::Delete { key, .. } => {
                self.command(&[b"DEL", key]);
                Awaited::Delete
            }
            _ => return Err("Redis has no such request".to_owned()),
        };
        let slot = (self.first_slot + self.awaited.len()) % self.capacity;
        self.awaited.push_back(awaited);
        Ok(slot)
    }

    pub(crate) fn bytes_to_send(&self) -> &[u8] {
        &self.send[self.sent_bytes..]
    }

    pub(crate) fn sent(&mut self, count: usize) {
        self.sent_bytes += count;
        assert!(
            self.sent_bytes <= self.send.len(),
            "more bytes sent than there were"
        );
        if self.sent_bytes == self.send.len() {
            self.send.clear();
            self.sent_bytes = 0;
        } else if self.sent_bytes >= ROOM_BYTES && 2 * self.sent_bytes >= self.send.len() {
            self.send.drain(..self.sent_bytes);
            self.sent_bytes = 0;
        }
    }

    pub(crate) fn receive_room(&mut self) -> &mut [u8] {
        if self.taken_bytes > 0 {
            self.receive.copy_within(self.taken_bytes..self.filled_bytes, 0);
            self.filled_bytes -= self.taken_bytes;
            self.taken_bytes = 0;
        }
        // An answer that does not fit makes the room grow by halves, so it is moved a few times only.
        let wanted = self.filled_bytes + (self.filled_bytes / 2).max(ROOM_BYTES);
        if self.receive.len() < wanted {
            self.receive.resize(wanted, 0);
        }
        &mut self.receive[self.filled_bytes..]
    }

    pub(crate) fn received(&mut self, count: usize) {
        self.filled_bytes += count;
        assert!(
            self.filled_bytes <= self.receive.len(),
            "more bytes read than there was room"
        );
    }

    pub(crate) fn next_answer(&mut self) -> Result<Option<(usize, Answer<'_>)>, WireError> {
        let arrived = &self.receive[self.taken_bytes..self.filled_bytes];
        let decoded = decode_range(arrived)
            .map_err(|error| WireError::Broken(format!("what came is not Redis's protocol: {error}")))?;
        let Some((frame, frame_bytes)) = decoded else {
            if arrived.len() > ANSWER_BYTES_MAX {
                let reason = format!("an answer is longer than {ANSWER_BYTES_MAX} bytes");
                return Err(WireError::Broken(reason));
            }
            return Ok(None);
        };
        self.taken_bytes += frame_bytes;
        let awaited = self.awaited.pop_front();
        let awaited = awaited.ok_or_else(|| WireError::Broken("an answer came to no request".to_owned()))?;
        let slot = self.first_slot;
        self.first_slot = (slot + 1) % self.capacity;
        let range = |(from, to): (usize, usize)| &arrived[from..to];
        let written = Response::Write {
            applied: true,
            version: 0,
        };
        let answer = match (awaited, frame) {
            (_, RangeFrame::Error(line)) => {
                let line = std::str::from_utf8(range(line));
                Answer::RedisError(line.unwrap_or("ERR an error that is no text"))
            }
            (Awaited::Get, RangeFrame::BulkString(value)) => Answer::Response(Response::Get {
                found: Some(Found {
                    version: 0,
                    expires: 0,
                    value: range(value),
                }),
            }),
            (Awaited::Get, RangeFrame::Null) => Answer::Response(Response::Get { found: None }),
            (Awaited::Set, RangeFrame::SimpleString(line)) if range(line) == b"OK" => {
                Answer::Response(written)
            }
            (Awaited::Delete, RangeFrame::Integer(_)) => Answer::Response(written),
            (Awaited::Add, RangeFrame::Integer(number)) => {
                Answer::Response(Response::Add { version: 0, number })
            }
            (Awaited::Ping, RangeFrame::SimpleString(line)) if range(line) == b"PONG" => {
                Answer::Response(Response::Pong)
            }
            (awaited, frame) => {
                let reason = format!("Redis answered a {awaited:?} with {frame:?}");
                return Err(WireError::Broken(reason));
            }
        };
        Ok(Some((slot, answer)))
    }

    pub(crate) fn requests_in_flight(&self) -> usize {
        self.awaited.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ostrakon_client::Condition;

    fn receive(protocol: &mut RedisProtocol, bytes: &[u8]) {
        protocol.receive_room()[..bytes.len()].copy_from_slice(bytes);
        protocol.received(bytes.len());
    }

    fn put<'a>(key: &'a [u8], value: &'a [u8]) -> Request<'a> {
        Request::put(key, value, Condition::None)
    }

    #[test]
    fn requests_are_as_redis_documents_them() {
        let mut protocol = RedisProtocol::new(4);
        assert_eq!(protocol.submit(&put(b"key", b"a\r\nb")), Ok(0));
        assert_eq!(protocol.submit(&Request::Get { key: b"key" }), Ok(1));
        let wanted = b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$4\r\na\r\nb\r\n*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n";
        assert_eq!(protocol.bytes_to_send(), wanted);
        protocol.sent(10);
        assert_eq!(protocol.bytes_to_send(), &wanted[10..]);
        protocol.sent(wanted.len() - 10);
        assert!(protocol.bytes_to_send().is_empty());
        let brief = Request::Put {
            key: b"key",
            value: b"v",
            condition: Condition::None,
            ttl_ms: 1500,
            retry: None,
        };
        let add = Request::Add {
            key: b"n",
            delta: 1,
            ttl_ms: 0,
            retry: None,
        };
        assert_eq!((protocol.submit(&brief), protocol.submit(&add)), (Ok(2), Ok(3)));
        let put = "*5\r\n$3\r\nSET\r\n$3\r\nkey\r\n$1\r\nv\r\n$2\r\nPX\r\n$4\r\n1500\r\n";
        let wanted = format!("{put}*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n");
        assert_eq!(protocol.bytes_to_send(), wanted.as_bytes());
        receive(&mut protocol, b"+OK\r\n$-1\r\n+OK\r\n:7\r\n");
        for _ in 0..3 {
            assert!(protocol.next_answer().unwrap().is_some());
        }
        let (_, answer) = protocol.next_answer().unwrap().unwrap();
        assert!(
            matches!(answer, Answer::Response(Response::Add { number: 7, .. })),
            "{answer:?}"
        );
    }

    #[test]
    fn answers_come_in_order_and_in_pieces() {
        let mut protocol = RedisProtocol::new(3);
        for round in 0..10 {
            let slots: Vec<usize> = [
                Request::Get { key: b"a" },
                put(b"b", b"c"),
                Request::Get { key: b"d" },
            ]
            .iter()
            .map(|request| protocol.submit(request).unwrap())
            .collect();
            assert_eq!(slots, [0, 1, 2]);
            assert!(protocol.submit(&Request::Ping).is_err(), "the pipeline is full");
            let bytes = b"$5\r\nva\r\nl\r\n+OK\r\n$-1\r\n";
            let cut = round % bytes.len();
            receive(&mut protocol, &bytes[..cut]);
            let mut found = Vec::new();
            let drain = |protocol: &mut RedisProtocol, found: &mut Vec<String>| {
                while let Some((slot, answer)) = protocol.next_answer().unwrap() {
                    found.push(format!("{slot} {answer:?}"));
                }
            };
            drain(&mut protocol, &mut found);
            receive(&mut protocol, &bytes[cut..]);
            drain(&mut protocol, &mut found);
            assert_eq!(found.len(), 3);
            assert!(found[0].contains("[118, 97, 13, 10, 108]"), "{found:?}");
            assert!(
                found[1].contains("applied: true") && found[2].contains("found: None"),
                "{found:?}"
            );
        }
        assert_eq!(protocol.requests_in_flight(), 0);
    }

    #[test]
    fn refusals_and_nonsense_are_told_apart() {
        let mut protocol = RedisProtocol::new(2);
        protocol.submit(&put(b"a", b"b")).unwrap();
        receive(&mut protocol, b"-OOM command not allowed\r\n");
        let (slot, answer) = protocol.next_answer().unwrap().unwrap();
        assert!(matches!(answer, Answer::RedisError("OOM command not allowed")) && slot == 0);
        protocol.submit(&put(b"a", b"b")).unwrap();
        receive(&mut protocol, b":7\r\n");
        assert!(matches!(protocol.next_answer(), Err(WireError::Broken(_))));
        let mut other = RedisProtocol::new(2);
        receive(&mut other, b"HTTP/1.1 400 Bad Request\r\n\r\n");
        assert!(matches!(other.next_answer(), Err(WireError::Broken(_))));
        let mut early = RedisProtocol::new(2);
        receive(&mut early, b"+OK\r\n");
        assert!(matches!(early.next_answer(), Err(WireError::Broken(_))));
    }
}
