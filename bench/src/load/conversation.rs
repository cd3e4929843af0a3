//! What every system's protocol has to offer to the load: requests in, bytes out, bytes in, answers out; no
//! IO.

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Store a value.
    Put,
    /// Read a value.
    Get,
}

impl Operation {
    /// For tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
        }
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answered {
    /// The value was stored.
    Stored,
    /// There is a value.
    Found {
        /// Its length.
        value_bytes: usize,
    },
    /// There is no such key.
    Missing,
    /// The server refused, with this sentence.
    Refused(String),
}

/// One connection's protocol state.
pub trait Conversation: Sized {
    /// A connection on which so many requests will be unanswered at most. The handshake, if any, is queued.
    ///
    /// # Errors
    /// A sentence.
    fn new(pipeline: usize) -> Result<Self, String>;

    /// Is the handshake over?
    fn is_ready(&self) -> bool;

    /// Queues a request and returns its slot: below the most requests that may be unanswered, and of no
    /// other unanswered request. A get ignores the value.
    ///
    /// # Errors
    /// A sentence, if the protocol does not allow it.
    fn submit(&mut self, operation: Operation, key: &[u8], value: &[u8]) -> Result<usize, String>;

    /// What is to be sent.
    fn bytes_to_send(&self) -> &[u8];

    /// So many bytes of that went out.
    fn sent(&mut self, count: usize);

    /// Where to read to; never empty.
    fn receive_room(&mut self) -> &mut [u8];

    /// So many bytes were read.
    fn received(&mut self, count: usize);

    /// The next answer that has arrived whole, and the slot of its request.
    ///
    /// # Errors
    /// A sentence, if the server broke the protocol.
    fn next_answer(&mut self) -> Result<Option<(usize, Answered)>, String>;
}
