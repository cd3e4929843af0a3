//! Writing of whole frames: `requests` on the client's side, `responses` on the server's.

mod requests;
mod responses;

use std::fmt;

use flatbuffers::FlatBufferBuilder;

use super::Kind;
use crate::frame;

/// Appends whole frames to buffers of the caller. One per core or connection: it keeps one builder for the
/// rare kinds and uses it again and again.
///
/// It checks no limits but that of the frame: [`Request::check`](super::Request::check) is the sender's part. A body
/// that doesn't fit a frame is a bug of the caller and panics.
#[derive(Default)]
pub struct Encoder {
    builder: FlatBufferBuilder<'static>,
}

impl fmt::Debug for Encoder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Encoder").finish_non_exhaustive()
    }
}

impl Encoder {
    /// An encoder. Allocates with the first frame that needs the builder.
    pub fn new() -> Encoder {
        Encoder {
            builder: FlatBufferBuilder::new(),
        }
    }

    /// Appends what the builder has finished.
    fn append(&mut self, out: &mut Vec<u8>, kind: Kind, request_id: u64, timestamp: u64) {
        frame::append(
            out,
            kind as u16,
            request_id,
            timestamp,
            self.builder.finished_data(),
        );
    }
}
