//! From received bytes to decoded requests, some frames at a time.
//!
//! A lookup in a large memtable waits for memory twice: for the index slot, then for the record. The frames of one
//! chunk are therefore decoded ahead, up to [`LOOK_AHEAD_FRAMES`]; each asks for its slot at once, and all for their
//! records before the first is executed. Execution is in order, one by one, and may stop at any frame: what was not
//! executed counts as not received.

use ostrakon_wire::frame::{self, FrameHeader};
use ostrakon_wire::limits::HELLO_BODY_BYTES_MAX;
use ostrakon_wire::message::{Action, Condition, DecodeError, ErrorCode, Request, Retry};
use ostrakon_wire::routing::ShardId;

use ostrakon_core::hlc::Timestamp;

use super::core::Core;
use super::status::counters::Reason;
use crate::env::CoreId;
use crate::limits::REQUEST_BODY_BYTES_MAX;

/// Frames that are decoded before the first of them is executed.
const LOOK_AHEAD_FRAMES: usize = 16;

/// How far the serving of received bytes came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Served {
    /// All whole frames are served; more bytes are needed.
    All,
    /// The connection has no room for another answer; the rest is kept.
    Blocked,
    /// The client wants this connection on another core; its hello's request id.
    HandOver(CoreId, u64),
    /// The connection is to be ended.
    End,
}

/// What handling one frame means for the next.
pub(super) enum After {
    Continue,
    Stop(Served),
}

/// A request for one key.
#[derive(Clone, Copy)]
pub(super) struct KeyRequest<'a> {
    pub(super) key: &'a [u8],
    pub(super) operation: KeyOperation<'a>,
}

/// What is to be done with the key.
#[derive(Clone, Copy)]
pub(super) enum KeyOperation<'a> {
    Get,
    Write {
        action: Action<'a>,
        condition: Condition<'a>,
        retry: Option<Retry>,
    },
}

/// Where a key lies.
#[derive(Clone, Copy)]
pub(super) struct KeyPlace {
    pub(super) owner: CoreId,
    pub(super) shard: ShardId,
    /// The key's hash in its shard's memtable.
    pub(super) hash: u64,
}

/// A frame whose checksum is right.
pub(super) struct DecodedFrame<'a> {
    pub(super) header: FrameHeader,
    pub(super) body: &'a [u8],
    request: Result<Request<'a>, DecodeError>,
    /// Set if the request names one key.
    pub(super) place: Option<KeyPlace>,
    /// True if it is answered from what the memtable has now. A write without a condition does not look.
    looks_up: bool,
}

impl<'a> KeyRequest<'a> {
    /// `None` for requests that name no key, or more than one.
    pub(super) fn of(request: &Request<'a>) -> Option<KeyRequest<'a>> {
        let (key, action, condition, retry) = match *request {
            Request::Get { key } => {
                let operation = KeyOperation::Get;
                return Some(KeyRequest { key, operation });
            }
            Request::Put {
                key,
                value,
                condition,
                ttl_ms,
                retry,
            } => (key, Action::Put { value, ttl_ms }, condition, retry),
            Request::Delete {
                key,
                condition,
                retry,
            } => (key, Action::Delete, condition, retry),
            Request::Add {
                key,
                delta,
                ttl_ms,
                retry,
            } => (key, Action::Add { delta, ttl_ms }, Condition::None, retry),
            _ => return None,
        };
        let operation = KeyOperation::Write {
            action,
            condition,
            retry,
        };
        Some(KeyRequest { key, operation })
    }
}

impl DecodedFrame<'_> {
    /// Where the frame will look a key up, if that is on this core.
    fn looks_up_at(&self, own: CoreId) -> Option<KeyPlace> {
        self.place.filter(|place| place.owner == own && self.looks_up)
    }
}

impl Core {
    /// Serves bytes as they came from the network; what can't be served yet is kept with the connection.
    pub(super) fn serve(&mut self, id: u64, bytes: &[u8]) -> Served {
        self.answers.counters.received(bytes.len());
        self.begin_turn();
        let received_ns = self.answers.turn_ns;
        match self.answers.connections.get(id) {
            None => Served::End,
            Some(connection) if connection.is_ending() => Served::End,
            Some(connection) if connection.keeps_bytes() => {
                let mut all = self.answers.connections.take_kept(id);
                all.extend_from_slice(bytes);
                self.serve_owned(id, received_ns, all)
            }
            Some(_) => {
                let (served, used_bytes) = self.serve_frames(id, received_ns, bytes);
                self.keep(id, served, used_bytes > 0, || bytes[used_bytes..].to_vec())
            }
        }
    }

    /// Serves bytes that were kept.
    pub(super) fn serve_kept(&mut self, id: u64) -> Served {
        self.begin_turn();
        let Some(connection) = self.answers.connections.get(id) else {
            return Served::End;
        };
        let received_ns = connection.blocked_since_ns().unwrap_or(self.answers.turn_ns);
        let all = self.answers.connections.take_kept(id);
        self.serve_owned(id, received_ns, all)
    }

    fn serve_owned(&mut self, id: u64, received_ns: u64, mut bytes: Vec<u8>) -> Served {
        let (served, used_bytes) = self.serve_frames(id, received_ns, &bytes);
        self.keep(id, served, used_bytes > 0, || {
            bytes.drain(..used_bytes);
            if bytes.is_empty() { Vec::new() } else { bytes }
        })
    }

    /// Keeps what was not served, if the core has room for it.
    fn keep(
        &mut self,
        id: u64,
        served: Served,
        made_progress: bool,
        rest: impl FnOnce() -> Vec<u8>,
    ) -> Served {
        if !self.answers.connections.keep(id, rest()) {
            self.answers.counters.connection_refused(Reason::KeptBytes);
            let message = "this core keeps as many bytes of unfinished frames as it may; the connection is being \
                           closed: try again";
            self.connection_error(id, 0, ErrorCode::Busy, message);
            return Served::End;
        }
        let now_ns = self.answers.turn_ns;
        self.answers
            .connections
            .served(id, now_ns, served == Served::Blocked, made_progress);
        served
    }

    fn serve_frames(&mut self, id: u64, received_ns: u64, bytes: &[u8]) -> (Served, usize) {
        let mut used_bytes = 0;
        let served = loop {
            match self.serve_ahead(id, received_ns, &bytes[used_bytes..], &mut used_bytes) {
                After::Continue => {}
                After::Stop(served) => break served,
            }
        };
        self.finish_turn();
        (served, used_bytes)
    }

    /// Decodes some frames, asks for the memory that they will look at, and then executes them in order.
    fn serve_ahead(&mut self, id: u64, received_ns: u64, bytes: &[u8], used_bytes: &mut usize) -> After {
        let has_room = self.answers.connections.has_room(id);
        let Some(connection) = self.answers.connections.get(id) else {
            return After::Stop(Served::End);
        };
        if !has_room {
            return After::Stop(Served::Blocked);
        }
        // What follows a hello may be meant for another core.
        let is_open = connection.is_open();
        let (frames_max, body_bytes_max) = if is_open {
            (LOOK_AHEAD_FRAMES, REQUEST_BODY_BYTES_MAX)
        } else {
            (1, HELLO_BODY_BYTES_MAX)
        };
        let mut ahead = [const { None }; LOOK_AHEAD_FRAMES];
        let mut decoded_bytes = 0;
        let mut end = None;
        for slot in ahead.iter_mut().take(frames_max) {
            match frame::decode(&bytes[decoded_bytes..], body_bytes_max) {
                Ok(Some((header, body))) => {
                    decoded_bytes += header.frame_bytes();
                    *slot = Some(self.decode(header, body));
                }
                Ok(None) => {
                    end = Some(Ok(()));
                    break;
                }
                Err(error) => {
                    end = Some(Err(error));
                    break;
                }
            }
        }
        let own = self.id();
        let frames = ahead.iter().map_while(Option::as_ref);
        for place in frames.filter_map(|frame| frame.looks_up_at(own)) {
            self.host.prefetch_record(place.shard, place.hash);
        }
        for (position, frame) in ahead.iter().map_while(Option::as_ref).enumerate() {
            // The answers to the frames before have taken room.
            if position > 0 && !self.answers.connections.has_room(id) {
                let is_there = self.answers.connections.get(id).is_some();
                return After::Stop(if is_there { Served::Blocked } else { Served::End });
            }
            *used_bytes += frame.header.frame_bytes();
            if let After::Stop(served) = self.handle(id, received_ns, is_open, frame) {
                return After::Stop(served);
            }
        }
        match end {
            None => After::Continue,
            Some(Ok(())) => After::Stop(Served::All),
            Some(Err(error)) => {
                let message = format!("{error}; the connection is being closed");
                self.answers.counters.connection_refused(Reason::BadFrame);
                self.connection_error(id, 0, ErrorCode::BadFrame, &message);
                After::Stop(Served::End)
            }
        }
    }

    /// Decodes one frame, and asks for the index slot of a key that it looks up here.
    fn decode<'a>(&self, header: FrameHeader, body: &'a [u8]) -> DecodedFrame<'a> {
        let request = Request::decode(header.kind, body);
        let (key, looks_up) = match &request {
            Ok(Request::Get { key } | Request::Add { key, .. }) => (Some(*key), true),
            Ok(Request::Put { key, condition, .. } | Request::Delete { key, condition, .. }) => {
                (Some(*key), *condition != Condition::None)
            }
            _ => (None, false),
        };
        let frame = DecodedFrame {
            header,
            body,
            place: key.map(|key| self.place_of(key)),
            looks_up,
            request,
        };
        if let Some(place) = frame.looks_up_at(self.id()) {
            self.host.prefetch_slot(place.shard, place.hash);
        }
        frame
    }

    fn handle(&mut self, id: u64, received_ns: u64, is_open: bool, frame: &DecodedFrame<'_>) -> After {
        let header = &frame.header;
        let request = match &frame.request {
            Ok(request) => request,
            Err(error) => {
                self.connection_error(id, header.request_id, error.error_code(), &error.to_string());
                return if is_open {
                    After::Continue
                } else {
                    After::Stop(Served::End)
                };
            }
        };
        if let Err(message) = self.observe(header.timestamp) {
            self.connection_error(id, header.request_id, ErrorCode::TimestampAhead, &message);
            return if is_open {
                After::Continue
            } else {
                After::Stop(Served::End)
            };
        }
        match request {
            Request::Hello(hello) if !is_open => self.hello(id, header.request_id, hello),
            Request::Hello(_) => {
                let message = "a second hello; a connection says hello once";
                self.connection_error(id, header.request_id, ErrorCode::BadRequest, message);
                After::Continue
            }
            _ if !is_open => {
                let message = "the first request of a connection must be a hello";
                self.connection_error(id, header.request_id, ErrorCode::BadRequest, message);
                After::Stop(Served::End)
            }
            request => {
                if let Some(connection) = self.answers.connections.get(id) {
                    connection.begin_request();
                }
                self.execute(id, received_ns, frame, request);
                After::Continue
            }
        }
    }

    fn observe(&mut self, timestamp: u64) -> Result<(), String> {
        if timestamp == 0 {
            return Ok(());
        }
        self.observe_client(Timestamp(timestamp)).map_err(|error| {
            format!("{error}; check the clock of the machine that the client learned it from")
        })
    }
}
