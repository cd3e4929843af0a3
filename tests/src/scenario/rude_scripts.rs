//! What each rude connection sends, and what `docs/wire.md` says must come of it.

use ostrakon_wire::ClusterId;
use ostrakon_wire::frame::{self, FrameError};
use ostrakon_wire::limits::{HELLO_BODY_BYTES_MAX, KEY_BYTES_MAX, MULTI_MAX, TTL_MS_MAX, VALUE_BYTES_MAX};
use ostrakon_wire::message::{
    Action, BatchOperation, BatchOperations, Condition, Encoder, ErrorCode, Hello, Keys, PROTOCOL_VERSION,
    PutEntries, PutEntry, Request, Response, Retry, ScanRequest,
};

use super::node::IDLE_TIMEOUT_MS;
use super::plan::{Rudeness, RudenessKind};
use super::values;

/// Requests that are sent without reading an answer.
const UNREAD_REQUESTS: u64 = 1_500;
/// Longest body of a request after the hello: `frame_bytes_max` of `docs/wire.md` without the header.
const BODY_BYTES_MAX: usize = KEY_BYTES_MAX + VALUE_BYTES_MAX + 4096;
/// A timestamp that no honest clock shows before the year 2041.
const FAR_AHEAD: u64 = u64::MAX >> 1;
/// Id of the error that ends a connection.
const NO_ID: u64 = 0;
const SECOND_NS: u64 = 1_000_000_000;
/// Time-outs of `docs/wire.md`: for the hello, and for a frame that was begun.
const HELLO_TIMEOUT_NS: u64 = 10 * SECOND_NS;
const FRAME_TIMEOUT_NS: u64 = 30 * SECOND_NS;

/// One conversation.
pub struct Script {
    /// What is sent.
    pub bytes: Vec<u8>,
    /// By request id, what must be answered, in any order.
    pub answers: Vec<(u64, Answer)>,
    /// What becomes of the connection.
    pub ending: Ending,
}

/// What a frame of the node says, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The connection is open, on this core if one was asked for.
    Hello(Option<u16>),
    /// A get was answered; where it is expected, a refusal that has its reason will do.
    Get,
    /// A scan was answered; where it is expected, a refusal that has its reason will do.
    Scan,
    /// A sign of life.
    Pong,
    /// An error.
    Refused(ErrorCode),
    /// Something that no request here asks for.
    Other,
}

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The node closes it at once.
    Closed {
        /// The node may find enough to close it before it has read everything.
        may_be_reset: bool,
    },
    /// The node closes it when it was silent for too long.
    TimesOut {
        /// For how long at least.
        after_ns: u64,
    },
    /// It stays open, and nothing comes any more: the node waits for the rest of a frame.
    Waits,
    /// It stays open, and is served.
    StaysOpen,
    /// The same, after it has left everything unread for a while.
    ReadsLate,
    /// The client goes away without having read anything.
    Leaves,
}

impl Ending {
    /// True if a request is answered after all others.
    pub fn is_open(self) -> bool {
        matches!(self, Ending::StaysOpen | Ending::ReadsLate)
    }
}

impl Answer {
    /// What a response is.
    pub fn of(response: &Response<'_>) -> Answer {
        match response {
            Response::Hello(reply) => Answer::Hello(Some(reply.core)),
            Response::Get { .. } => Answer::Get,
            Response::Scan(_) => Answer::Scan,
            Response::Pong => Answer::Pong,
            Response::Error(error) => Answer::Refused(error.code),
            _ => Answer::Other,
        }
    }

    /// True if `found` is what is expected here.
    pub fn is_met_by(self, found: Answer) -> bool {
        match (self, found) {
            (Answer::Hello(None), Answer::Hello(_)) => true,
            (expected, found) => expected == found,
        }
    }
}

fn batch<'a>(operations: &'a [BatchOperation<'a>]) -> Request<'a> {
    Request::Batch {
        operations: BatchOperations::from(operations),
        retry: None,
    }
}

fn multi_put<'a>(entries: &'a [PutEntry<'a>]) -> Request<'a> {
    Request::MultiPut {
        entries: PutEntries::from(entries),
        retry: None,
    }
}

/// Writes requests and what is expected of them.
struct Writer {
    encoder: Encoder,
    script: Script,
    next_id: u64,
}

impl Writer {
    fn say(&mut self, request: &Request<'_>, timestamp: u64, answer: Option<Answer>) {
        self.encoder
            .request(&mut self.script.bytes, self.next_id, timestamp, request);
        self.script
            .answers
            .extend(answer.map(|answer| (self.next_id, answer)));
        self.next_id += 1;
    }

    fn greet(&mut self) {
        self.say(&Request::Hello(hello(None)), 0, Some(Answer::Hello(None)));
    }

    /// Many gets, and a few scans.
    fn ask_much(&mut self, get: &Request<'_>) {
        for request in 0..UNREAD_REQUESTS {
            if request % 50 == 0 {
                self.say(&scan(0, 0), 0, Some(Answer::Scan));
            } else {
                self.say(get, 0, Some(Answer::Get));
            }
        }
    }

    fn refuse(&mut self, request: &Request<'_>, code: ErrorCode) {
        self.say(request, 0, Some(Answer::Refused(code)));
    }

    /// Keys that come twice, lists without an element or with too many, keys of several shards.
    fn say_wrong_lists(&mut self) {
        let bad = ErrorCode::BadRequest;
        let put = |key| BatchOperation {
            key,
            action: Action::Put {
                value: b"rude",
                ttl_ms: 0,
            },
            condition: Condition::None,
        };
        let entry = |key| PutEntry {
            key,
            value: b"rude",
            ttl_ms: 0,
        };
        self.refuse(&batch(&[put(b"key 00001"), put(b"key 00001")]), bad);
        self.refuse(&multi_put(&[entry(b"key 00001"), entry(b"key 00001")]), bad);
        self.refuse(&batch(&[]), bad);
        self.refuse(&multi_put(&[]), bad);
        self.refuse(
            &Request::MultiGet {
                keys: Keys::from(&[][..]),
            },
            bad,
        );
        let many: Vec<Vec<u8>> = (0..=MULTI_MAX)
            .map(|key| format!("{{rude}}{key}").into_bytes())
            .collect();
        let keys: Vec<&[u8]> = many.iter().map(Vec::as_slice).collect();
        let puts: Vec<BatchOperation<'_>> = keys.iter().map(|key| put(*key)).collect();
        let entries: Vec<PutEntry<'_>> = keys.iter().map(|key| entry(*key)).collect();
        self.refuse(
            &Request::MultiGet {
                keys: Keys::from(keys.as_slice()),
            },
            bad,
        );
        self.refuse(&batch(&puts), bad);
        self.refuse(&multi_put(&entries), bad);
        // With 16 shards and more, some of these keys lie in different ones.
        let apart: Vec<Vec<u8>> = (0..8).map(values::key).collect();
        let apart: Vec<BatchOperation<'_>> = apart.iter().map(|key| put(key.as_slice())).collect();
        self.refuse(&batch(&apart), ErrorCode::NotOneShard);
    }

    /// Lifetimes beyond all bounds, reports of what is not answered, checks of nothing.
    fn say_wrong_writes(&mut self) {
        let bad = ErrorCode::BadRequest;
        let key = b"key 00001";
        let put = |ttl_ms, retry| Request::Put {
            key,
            value: b"rude",
            condition: Condition::None,
            ttl_ms,
            retry,
        };
        let retry = Retry {
            session: 1,
            sequence: 4,
            answered_below: 5,
            first_sent: 0,
        };
        let check = BatchOperation {
            key,
            action: Action::Check,
            condition: Condition::None,
        };
        self.refuse(&put(TTL_MS_MAX + 1, None), bad);
        self.refuse(
            &Request::Add {
                key,
                delta: 1,
                ttl_ms: u64::MAX,
                retry: None,
            },
            bad,
        );
        self.refuse(&put(0, Some(retry)), bad);
        self.refuse(&batch(&[check]), bad);
    }

    /// Sets flags of the frame that begins there and ends the script.
    fn flag(&mut self, start: usize, flags: u16) {
        let frame = &mut self.script.bytes[start..];
        frame[26..28].copy_from_slice(&flags.to_le_bytes());
        // Changes nothing, and makes the checksum fit.
        frame::change_timings(frame, |_| {});
    }

    fn ends(mut self, ending: Ending) -> Script {
        if let Ending::TimesOut { .. } = ending {
            let refusal = (NO_ID, Answer::Refused(ErrorCode::IdleTimeout));
            self.script.answers.push(refusal);
        }
        self.script.ending = ending;
        self.script
    }

    /// The bytes from `start` on are damaged: what comes of it depends on what the damage made of them.
    fn ends_after_bad_bytes(mut self, start: usize, body_bytes_max: usize, while_waiting: Ending) -> Script {
        let bytes = &self.script.bytes[start..];
        match frame::decode(bytes, body_bytes_max) {
            Ok(Some(_)) => unreachable!("the checksum of a frame covers every bit of it"),
            Ok(None) => self.ends(while_waiting),
            Err(error) => {
                let seen_bytes = match error {
                    FrameError::TooLarge { .. } => 4,
                    _ => frame::frame_bytes(bytes).expect("its length was read"),
                };
                let may_be_reset = seen_bytes < bytes.len();
                let refusal = (NO_ID, Answer::Refused(ErrorCode::BadFrame));
                self.script.answers.push(refusal);
                self.ends(Ending::Closed { may_be_reset })
            }
        }
    }
}

fn hello(core: Option<u16>) -> Hello<'static> {
    Hello {
        version_min: PROTOCOL_VERSION,
        version_max: PROTOCOL_VERSION,
        cluster_id: ClusterId::ANY,
        core,
        client: "rude",
    }
}

fn wrong_hello(number: u64) -> (Hello<'static>, ErrorCode) {
    match number % 3 {
        0 => {
            let newer = Hello {
                version_min: PROTOCOL_VERSION + 1,
                version_max: PROTOCOL_VERSION + 1,
                ..hello(None)
            };
            (newer, ErrorCode::UnsupportedVersion)
        }
        1 => {
            let foreign = Hello {
                cluster_id: ClusterId { high: 1, low: number },
                ..hello(None)
            };
            (foreign, ErrorCode::WrongCluster)
        }
        _ => (hello(Some(60_000)), ErrorCode::BadRequest),
    }
}

fn scan(limit: u32, snapshot: u64) -> Request<'static> {
    Request::Scan(ScanRequest {
        limit,
        snapshot,
        ..ScanRequest::ALL
    })
}

/// What this rudeness sends to a node with so many cores, and what must come of it.
#[expect(clippy::too_many_lines, reason = "one arm for each kind")]
pub fn script_of(rudeness: &Rudeness, cores: u16) -> Script {
    let number = rudeness.number;
    let mut writer = Writer {
        encoder: Encoder::new(),
        script: Script {
            bytes: Vec::new(),
            answers: Vec::new(),
            ending: Ending::Waits,
        },
        next_id: 1 + number % 7,
    };
    let closed = Ending::Closed { may_be_reset: false };
    let no_hello = Ending::TimesOut {
        after_ns: HELLO_TIMEOUT_NS,
    };
    let refused = |code| Some(Answer::Refused(code));
    let get = Request::Get { key: b"key 00001" };
    match rudeness.kind {
        RudenessKind::Garbage => {
            let garbage = (0..number % 3_000).map(|place| (place.wrapping_mul(number) >> 3) as u8);
            writer.script.bytes.extend(garbage);
            writer.ends_after_bad_bytes(0, HELLO_BODY_BYTES_MAX, no_hello)
        }
        RudenessKind::HalfHello => {
            writer.say(&Request::Hello(hello(None)), 0, None);
            let half = writer.script.bytes.len() / 2;
            writer.script.bytes.truncate(half);
            writer.ends(no_hello)
        }
        RudenessKind::NoHello => {
            writer.say(&get, 0, refused(ErrorCode::BadRequest));
            writer.ends(closed)
        }
        RudenessKind::WrongHello => {
            let (hello, code) = wrong_hello(number);
            writer.say(&Request::Hello(hello), 0, refused(code));
            writer.ends(closed)
        }
        RudenessKind::SecondHello => {
            let core = (number % 2) as u16 % cores;
            let answer = Answer::Hello(Some(core));
            writer.say(&Request::Hello(hello(Some(core))), 0, Some(answer));
            writer.say(&Request::Hello(hello(None)), 0, refused(ErrorCode::BadRequest));
            writer.ends(Ending::StaysOpen)
        }
        RudenessKind::FarAhead => {
            writer.greet();
            writer.say(&get, FAR_AHEAD, refused(ErrorCode::TimestampAhead));
            writer.say(&scan(1, FAR_AHEAD), 0, refused(ErrorCode::TimestampAhead));
            writer.ends(Ending::StaysOpen)
        }
        RudenessKind::DamagedFrame => {
            writer.greet();
            let start = writer.script.bytes.len();
            let put = Request::put(b"key 00001", &[1; 100], Condition::None);
            writer.say(&put, 0, None);
            let bytes = &mut writer.script.bytes[start..];
            bytes[number as usize % bytes.len()] ^= 1 << (number % 8);
            writer.ends_after_bad_bytes(start, BODY_BYTES_MAX, Ending::Waits)
        }
        RudenessKind::NeverReads => {
            writer.greet();
            writer.ask_much(&get);
            let leaves = number.is_multiple_of(2);
            writer.ends(if leaves { Ending::Leaves } else { Ending::ReadsLate })
        }
        RudenessKind::WrongLists => {
            writer.greet();
            writer.say_wrong_lists();
            writer.ends(Ending::StaysOpen)
        }
        RudenessKind::WrongWrites => {
            writer.greet();
            writer.say_wrong_writes();
            writer.ends(Ending::StaysOpen)
        }
        RudenessKind::UnknownFlag => {
            writer.greet();
            let start = writer.script.bytes.len();
            writer.say(&Request::put(b"key 00001", &[1; 100], Condition::None), 0, None);
            // Every flag but the one that asks for stage timings.
            let flag = 1_u16 << (1 + number % 15);
            writer.flag(start, flag);
            writer.ends_after_bad_bytes(start, BODY_BYTES_MAX, Ending::Waits)
        }
        RudenessKind::HalfRequest => {
            writer.greet();
            let start = writer.script.bytes.len();
            writer.say(&get, 0, None);
            let rest = writer.script.bytes.len() - start;
            writer
                .script
                .bytes
                .truncate(start + 1 + number as usize % (rest - 1));
            writer.ends(Ending::TimesOut {
                after_ns: FRAME_TIMEOUT_NS,
            })
        }
        RudenessKind::Idle => {
            writer.greet();
            writer.say(&get, 0, Some(Answer::Get));
            writer.ends(Ending::TimesOut {
                after_ns: IDLE_TIMEOUT_MS * 1_000_000,
            })
        }
    }
}
