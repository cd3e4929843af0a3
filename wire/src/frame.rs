//! The frame: 32 bytes of header, then the body. All numbers are little-endian.
//!
//! ```text
//!  0  u32 body_bytes
//!  4  u32 checksum     crc32c over everything from byte 8 to the end of the body
//!  8  u64 request_id   chosen by the client, repeated in the response
//! 16  u64 timestamp    highest hybrid logical clock the sender has seen (µs << 12 | counter), 0: none
//! 24  u16 kind         see `message::Kind`
//! 26  u16 flags        bit 0: stage timings; any other set bit is refused
//! 28  u32 reserved     0; else refused
//! 32  body             flatbuffers table of the kind
//! ```
//!
//! A request with bit 0 set asks for [`StageTimings`]. A response with bit 0 set has them before its table: five u64,
//! which count as part of the body ([`split_timings`]).
//!
//! [`decode`] guarantees that what it returns came through whole and unchanged, not that the body means
//! anything: that is [`crate::message`]'s part. It never copies and never looks at the body except for the
//! checksum.

use std::error::Error;
use std::fmt;
use std::ops::AddAssign;

/// Length of the header of every frame, in bytes.
pub const HEADER_BYTES: usize = 32;

/// Where the checksum's cover starts, in bytes from the start of the frame.
const CHECKED_FROM: usize = 8;

/// Flag of a request that wants to know where its time went, and of a response that says so.
const FLAG_TIMINGS: u16 = 1;

/// Length of the stage timings before the table of a response, in bytes.
pub const TIMINGS_BYTES: usize = 40;

/// Where the time between the receipt of a request and the making of its answer went, in nanoseconds of the server's
/// monotonic clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageTimings {
    /// Received and not looked at: waiting for its turn on its connection.
    pub queue_ns: u64,
    /// On the way to the core that owns the key, and back.
    pub hop_ns: u64,
    /// From the proposal of a write until it was on stable storage, or until all that a read had to wait for was.
    pub log_ns: u64,
    /// Lookup, decision, application and encoding: what the other stages are not.
    pub apply_ns: u64,
    /// From receipt to answer: the sum of all stages.
    pub total_ns: u64,
}

impl AddAssign for StageTimings {
    fn add_assign(&mut self, more: StageTimings) {
        self.queue_ns += more.queue_ns;
        self.hop_ns += more.hop_ns;
        self.log_ns += more.log_ns;
        self.apply_ns += more.apply_ns;
        self.total_ns += more.total_ns;
    }
}

/// What the header says, reserved bytes aside: those are 0 in version 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Length of the body, in bytes.
    pub body_bytes: u32,
    /// Number of the kind; `message::Kind::try_from` knows the ones of this version.
    pub kind: u16,
    /// Chosen by the client, repeated in the response. 0 only in the hello and in an error that closes the
    /// connection.
    pub request_id: u64,
    /// Highest hybrid logical clock the sender has seen (microseconds << 12 | counter), 0: none.
    pub timestamp: u64,
    /// In a request: its answer shall have stage timings. In a response: it has them.
    pub timings: bool,
}

impl FrameHeader {
    /// Length of the whole frame, in bytes.
    pub fn frame_bytes(&self) -> usize {
        HEADER_BYTES + self.body_bytes as usize
    }
}

/// Why bytes are no frame. After any of these the stream can't be followed further: the connection has to be
/// closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// The header announces a body above the bound.
    TooLarge {
        /// What the header announces.
        body_bytes: u32,
        /// The bound.
        max_body_bytes: usize,
    },
    /// The frame was changed on its way, or these bytes are no frame.
    Checksum {
        /// As computed from the bytes.
        expected: u32,
        /// As the header says.
        found: u32,
    },
    /// A flag is set that this version doesn't know.
    Flags {
        /// All flags as found.
        found: u16,
    },
    /// The flags announce stage timings, and the body is shorter than those.
    NoTimings {
        /// Length of the body.
        body_bytes: u32,
    },
    /// Reserved bytes are not 0.
    Reserved {
        /// The reserved bytes as found.
        found: u32,
    },
}

impl fmt::Display for FrameError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::TooLarge {
                body_bytes,
                max_body_bytes,
            } => write!(
                formatter,
                "a frame announces a body of {body_bytes} bytes, but at most {max_body_bytes} are accepted \
                 here; is the other side an Ostrakon program?"
            ),
            FrameError::Checksum { expected, found } => write!(
                formatter,
                "the checksum of a frame is {found:#010x} but its bytes give {expected:#010x}: they were \
                 changed on their way, or the other side is no Ostrakon program"
            ),
            FrameError::Flags { found } => write!(
                formatter,
                "a frame has flags {found:#06x}, and version 1 of the protocol knows only 0x0001: the other \
                 side is newer"
            ),
            FrameError::NoTimings { body_bytes } => write!(
                formatter,
                "a response announces stage timings of {TIMINGS_BYTES} bytes in a body of {body_bytes}"
            ),
            FrameError::Reserved { found } => write!(
                formatter,
                "the reserved bytes of a frame are {found:#010x} instead of 0: the other side is newer"
            ),
        }
    }
}

impl Error for FrameError {}

/// Takes the first frame off `input`: its header and its body. The frame's length is
/// [`FrameHeader::frame_bytes`].
///
/// `Ok(None)`: not a whole frame yet. `max_body_bytes` is compared with the length field as soon as that is
/// there, before anyone waits for (or makes room for) the body.
///
/// # Errors
/// See [`FrameError`]; the connection can't be used further.
pub fn decode(input: &[u8], max_body_bytes: usize) -> Result<Option<(FrameHeader, &[u8])>, FrameError> {
    let Some(length_field) = input.first_chunk::<4>() else {
        return Ok(None);
    };
    let body_bytes = u32::from_le_bytes(*length_field);
    if body_bytes as usize > max_body_bytes {
        return Err(FrameError::TooLarge {
            body_bytes,
            max_body_bytes,
        });
    }
    let Some(frame) = input.get(..HEADER_BYTES + body_bytes as usize) else {
        return Ok(None);
    };
    let found = u32::from_le_bytes(field(frame, 4));
    let expected = crc32c::crc32c(&frame[CHECKED_FROM..]);
    if found != expected {
        return Err(FrameError::Checksum { expected, found });
    }
    let flags = u16::from_le_bytes(field(frame, 26));
    if flags & !FLAG_TIMINGS != 0 {
        return Err(FrameError::Flags { found: flags });
    }
    let reserved = u32::from_le_bytes(field(frame, 28));
    if reserved != 0 {
        return Err(FrameError::Reserved { found: reserved });
    }
    let header = FrameHeader {
        body_bytes,
        kind: u16::from_le_bytes(field(frame, 24)),
        request_id: u64::from_le_bytes(field(frame, 8)),
        timestamp: u64::from_le_bytes(field(frame, 16)),
        timings: flags & FLAG_TIMINGS != 0,
    };
    Ok(Some((header, &frame[HEADER_BYTES..])))
}

/// Total length in bytes of the frame whose first bytes are `input`, once its length field (4 bytes) is
/// there.
pub fn frame_bytes(input: &[u8]) -> Option<usize> {
    let length_field = input.first_chunk::<4>()?;
    Some(HEADER_BYTES + u32::from_le_bytes(*length_field) as usize)
}

/// Appends a whole frame with this body to `out`.
///
/// # Panics
/// If the body is longer than a frame may be ([`crate::limits::BODY_BYTES_MAX`]).
pub fn append(out: &mut Vec<u8>, kind: u16, request_id: u64, timestamp: u64, body: &[u8]) {
    out.reserve(HEADER_BYTES + body.len());
    let start = out.len();
    out.extend_from_slice(&header_without_lengths(kind, request_id, timestamp));
    out.extend_from_slice(body);
    seal(out, start);
}

/// Makes the request that starts at `start` of `out`, and reaches to its end, ask for stage timings.
pub fn ask_for_timings(out: &mut [u8], start: usize) {
    out[start + 26..start + 28].copy_from_slice(&FLAG_TIMINGS.to_le_bytes());
    seal(out, start);
}

/// Puts stage timings before the table of the response that starts at `start` of `out` and reaches to its end.
pub fn insert_timings(out: &mut Vec<u8>, start: usize, timings: &StageTimings) {
    let table = start + HEADER_BYTES;
    out.splice(table..table, timings.to_bytes());
    out[start + 26..start + 28].copy_from_slice(&FLAG_TIMINGS.to_le_bytes());
    seal(out, start);
}

/// Changes the stage timings of a response that this process has encoded, with timings.
///
/// # Panics
/// If the frame is too short to have any.
pub fn change_timings(frame: &mut [u8], change: impl FnOnce(&mut StageTimings)) {
    let place = HEADER_BYTES..HEADER_BYTES + TIMINGS_BYTES;
    let mut timings = StageTimings::from_bytes(&field(frame, HEADER_BYTES));
    change(&mut timings);
    frame[place].copy_from_slice(&timings.to_bytes());
    seal(frame, 0);
}

/// The stage timings of a response, if it has some, and its table.
///
/// # Errors
/// [`FrameError::NoTimings`] when the frame is too short for the timings that its flags announce.
pub fn split_timings<'a>(
    header: &FrameHeader,
    body: &'a [u8],
) -> Result<(Option<StageTimings>, &'a [u8]), FrameError> {
    if !header.timings {
        return Ok((None, body));
    }
    let (timings, table) = body.split_first_chunk().ok_or(FrameError::NoTimings {
        body_bytes: header.body_bytes,
    })?;
    Ok((Some(StageTimings::from_bytes(timings)), table))
}

impl StageTimings {
    fn to_bytes(self) -> [u8; TIMINGS_BYTES] {
        let numbers = [
            self.queue_ns,
            self.hop_ns,
            self.log_ns,
            self.apply_ns,
            self.total_ns,
        ];
        let mut bytes = [0; TIMINGS_BYTES];
        for (place, number) in bytes.chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: &[u8; TIMINGS_BYTES]) -> StageTimings {
        let number = |position: usize| u64::from_le_bytes(field(bytes, 8 * position));
        StageTimings {
            queue_ns: number(0),
            hop_ns: number(1),
            log_ns: number(2),
            apply_ns: number(3),
            total_ns: number(4),
        }
    }
}

/// A header that lacks its length and checksum until [`seal`] fills them in.
pub(crate) fn header_without_lengths(kind: u16, request_id: u64, timestamp: u64) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[8..16].copy_from_slice(&request_id.to_le_bytes());
    header[16..24].copy_from_slice(&timestamp.to_le_bytes());
    header[24..26].copy_from_slice(&kind.to_le_bytes());
    header
}

/// Fills length and checksum into the frame that starts at `start` and reaches to the end of `out`.
pub(crate) fn seal(out: &mut [u8], start: usize) {
    let frame = &mut out[start..];
    let body_bytes = frame.len() - HEADER_BYTES;
    assert!(
        body_bytes <= crate::limits::BODY_BYTES_MAX,
        "a body of {body_bytes} bytes does not fit a frame"
    );
    frame[0..4].copy_from_slice(&(body_bytes as u32).to_le_bytes());
    let checksum = crc32c::crc32c(&frame[CHECKED_FROM..]);
    frame[4..8].copy_from_slice(&checksum.to_le_bytes());
}

/// The `N` bytes at `at`; `at` is a constant within a header whose length was checked.
fn field<const N: usize>(frame: &[u8], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&frame[at..at + N]);
    bytes
}
