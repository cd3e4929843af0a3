//! Connections that do what no client should: each of one [`Kind`], all driven by one thread.
//!
//! [`Hostile::turn`] is called again and again. It does the kind's next misdeed, if there is one, and takes in what
//! the server sent, without ever waiting. What must be answered is counted when it is sent, so that
//! [`Hostile::missing`] tells what the server owes.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use ostrakon_client::{Condition, Request, Response};
use ostrakon_wire::frame::{self, HEADER_BYTES};
use ostrakon_wire::limits::BODY_BYTES_MAX;
use ostrakon_wire::message::Encoder;

use crate::{crowd, machine};

/// Bytes of nonsense that are sent in place of a hello.
const NONSENSE_BYTES: usize = 256;
/// Gets that are put into the socket at once by who never reads.
const UNREAD_GETS: usize = 16;

/// What a connection does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// A whole request whose checksum is wrong.
    WrongChecksum,
    /// A frame that announces 4 GiB.
    HugeLength,
    /// Sound frames of tables whose offsets and lengths lie.
    LyingTable,
    /// Nonsense in place of a hello.
    Nonsense,
    /// Half a put, then silence.
    HalfFrame,
    /// No hello, ever.
    NoHello,
    /// Asks and asks, and never reads an answer.
    NeverReads,
    /// A sound request, byte by byte.
    Slow,
}

impl Kind {
    pub(super) const ALL: [Self; 8] = [
        Self::WrongChecksum,
        Self::HugeLength,
        Self::LyingTable,
        Self::Nonsense,
        Self::HalfFrame,
        Self::NoHello,
        Self::NeverReads,
        Self::Slow,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::WrongChecksum => "wrong checksum",
            Self::HugeLength => "length of 4 GiB",
            Self::LyingTable => "lying tables",
            Self::Nonsense => "random bytes",
            Self::HalfFrame => "half a frame",
            Self::NoHello => "no hello",
            Self::NeverReads => "never reads",
            Self::Slow => "byte by byte",
        }
    }
}

/// One connection.
pub(super) struct Hostile {
    pub(super) kind: Kind,
    /// None when the server has ended it.
    stream: Option<TcpStream>,
    /// What is sent next: all of it, or its first byte.
    send: Vec<u8>,
    received: Vec<u8>,
    /// Turns so far.
    turns: usize,
    /// What must be answered.
    owed: usize,
    answers: usize,
    /// By code.
    pub(super) errors: BTreeMap<u16, u64>,
    /// What came that is no frame, if anything.
    pub(super) garbage: Option<String>,
}

impl Hostile {
    /// Opens one. `number` makes it differ from others of its kind; `key` is one that has a value, and a long one
    /// should it never be read.
    pub(super) fn open(address: &str, kind: Kind, number: usize, key: &[u8]) -> Result<Self, String> {
        let stream = match kind {
            Kind::Nonsense | Kind::NoHello => crowd::open(address)?,
            _ => crowd::greet(address)?,
        };
        if kind == Kind::NeverReads {
            machine::shrink_receive_buffer(&stream)?;
        }
        let unblocked = stream.set_nonblocking(true);
        unblocked.map_err(|error| format!("a connection can't be used without waiting: {error}"))?;
        let (send, owed) = misdeed(kind, number, key);
        Ok(Self {
            kind,
            stream: Some(stream),
            send,
            received: Vec::new(),
            turns: 0,
            owed,
            answers: 0,
            errors: BTreeMap::new(),
            garbage: None,
        })
    }

    /// Has the server ended it?
    pub(super) fn is_ended(&self) -> bool {
        self.stream.is_none()
    }

    /// Answers that the server owes.
    pub(super) fn missing(&self) -> usize {
        // Who does not even say hello may be left without a word.
        if self.is_ended() && self.kind == Kind::Nonsense {
            return 0;
        }
        self.owed.saturating_sub(self.answers)
    }

    /// Answers that came and are no errors.
    pub(super) fn good_answers(&self) -> u64 {
        self.answers as u64 - self.errors.values().sum::<u64>()
    }

    /// The next misdeed, and what came. Nothing new is done if `is_over`.
    pub(super) fn turn(&mut self, is_over: bool) {
        let Some(stream) = &mut self.stream else {
            return;
        };
        let is_again = matches!(self.kind, Kind::NeverReads | Kind::Slow);
        let bytes = match self.kind {
            // One byte of the frame, which begins anew at its end; a frame that was begun is ended.
            Kind::Slow => {
                let at = self.turns % self.send.len();
                if is_over && at == 0 {
                    &[][..]
                } else {
                    &self.send[at..=at]
                }
            }
            _ if is_over || self.turns > 0 && !is_again => &[],
            _ => &self.send[..],
        };
        let sent = if bytes.is_empty() {
            Ok(0)
        } else {
            stream.write(bytes)
        };
        match sent {
            Ok(0) => {}
            Ok(count) => {
                self.turns += 1;
                if self.kind == Kind::NeverReads {
                    // Part of a frame may have gone out: the rest of it comes first next time.
                    self.send.rotate_left(count);
                } else if self.kind == Kind::Slow && self.turns.is_multiple_of(self.send.len()) {
                    self.owed += 1;
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_ended) => self.stream = None,
        }
        if self.kind != Kind::NeverReads {
            self.take_in();
        }
    }

    fn take_in(&mut self) {
        let mut chunk = [0; 4096];
        while let Some(stream) = &mut self.stream {
            match stream.read(&mut chunk) {
                Ok(0) => self.stream = None,
                Ok(count) => self.received.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_ended) => self.stream = None,
            }
        }
        loop {
            match frame::decode(&self.received, BODY_BYTES_MAX) {
                Ok(None) => return,
                Ok(Some((header, body))) => {
                    self.answers += 1;
                    match Response::decode(header.kind, body) {
                        Ok(Response::Error(error)) => {
                            *self.errors.entry(error.code.number()).or_default() += 1;
                        }
                        Ok(_) => {}
                        Err(error) => self.garbage = Some(error.to_string()),
                    }
                    let frame_bytes = header.frame_bytes();
                    self.received.drain(..frame_bytes);
                }
                Err(error) => {
                    self.garbage = Some(error.to_string());
                    self.received.clear();
                    return;
                }
            }
        }
    }
}

/// The bytes of a misdeed, and how many answers they demand; those of the slow are counted as they are ended.
fn misdeed(kind: Kind, number: usize, key: &[u8]) -> (Vec<u8>, usize) {
    let mut encoder = Encoder::new();
    let mut request = |id, request: &Request<'_>| {
        let mut bytes = Vec::new();
        encoder.request(&mut bytes, id, 0, request);
        bytes
    };
    match kind {
        Kind::WrongChecksum => {
            let mut bytes = request(1, &Request::Get { key });
            bytes[4 + number % 4] ^= 1 << (number % 8);
            (bytes, 1)
        }
        Kind::HugeLength => {
            let mut bytes = request(1, &Request::Get { key });
            bytes[..4].copy_from_slice(&u32::MAX.to_le_bytes());
            (bytes, 1)
        }
        Kind::LyingTable => {
            let put = request(1, &Request::put(key, &[b'v'; 64], Condition::None));
            let get = request(2, &Request::Get { key });
            let bytes = [lie(&put, number), lie(&get, number)].concat();
            (bytes, 2)
        }
        Kind::Nonsense => {
            let mut state = number as u64;
            let mut bytes = vec![0; NONSENSE_BYTES];
            for byte in &mut bytes {
                // The upper bits of a linear congruential generator (Knuth's MMIX).
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                *byte = (state >> 56) as u8;
            }
            // Surely no length of a hello, which the server would wait for.
            bytes[3] |= 0x80;
            (bytes, 1)
        }
        Kind::HalfFrame => {
            let mut bytes = request(1, &Request::put(key, &[b'v'; 1000], Condition::None));
            bytes.truncate(bytes.len() / 2);
            (bytes, 0)
        }
        Kind::NoHello => (Vec::new(), 0),
        Kind::NeverReads => {
            let gets = (1..=UNREAD_GETS).flat_map(|id| request(id as u64, &Request::Get { key }));
            (gets.collect(), 0)
        }
        Kind::Slow => (request(1, &Request::Get { key }), 0),
    }
}

/// The same frame with four bytes of its table changed to a huge number, and sound otherwise.
fn lie(request: &[u8], number: usize) -> Vec<u8> {
    let decoded = frame::decode(request, BODY_BYTES_MAX);
    let (header, body) = decoded
        .ok()
        .flatten()
        .expect("a request that was encoded just now is a frame");
    let mut body = body.to_vec();
    let at = number * 4 % (body.len() - 3);
    body[at..at + 4].copy_from_slice(&(u32::MAX - number as u32).to_le_bytes());
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    frame::append(
        &mut bytes,
        header.kind,
        header.request_id,
        header.timestamp,
        &body,
    );
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misdeeds_are_what_they_are_called() {
        let key = b"key:000000000001";
        let decoded = |kind, number| {
            let (bytes, _) = misdeed(kind, number, key);
            let found = frame::decode(&bytes, BODY_BYTES_MAX).map(|found| found.is_some());
            found.map_err(|error| error.to_string())
        };
        for number in 0..64 {
            assert!(
                decoded(Kind::WrongChecksum, number)
                    .unwrap_err()
                    .contains("checksum")
            );
            assert!(
                decoded(Kind::HugeLength, number)
                    .unwrap_err()
                    .contains("4294967295 bytes")
            );
            assert!(decoded(Kind::Nonsense, number).is_err());
            assert_eq!(decoded(Kind::LyingTable, number), Ok(true));
            assert_eq!(decoded(Kind::HalfFrame, number), Ok(false));
            assert_eq!(decoded(Kind::Slow, number), Ok(true));
        }
    }

    #[test]
    fn most_lies_are_no_requests() {
        let mut bytes = Vec::new();
        Encoder::new().request(&mut bytes, 1, 0, &Request::Get { key: b"key" });
        let refused = (0..64).filter(|number| {
            let lie = lie(&bytes, *number);
            let (header, body) = frame::decode(&lie, BODY_BYTES_MAX).unwrap().unwrap();
            Request::decode(header.kind, body).is_err()
        });
        assert!(refused.count() > 30);
    }
}
