//! Client library of Ostrakon.
//!
//! [`Protocol`] is the client's side of a connection as a state machine without IO: bytes received go in,
//! bytes to send and responses come out. It has no socket and no clock, so any runtime can drive it.
//! [`Client`] drives it over a blocking TCP connection of the standard library.
//!
//! ```no_run
//! use ostrakon_client::{Client, Condition, Options, ScanOptions};
//!
//! # fn main() -> Result<(), ostrakon_client::Error> {
//! let mut client = Client::connect("127.0.0.1:5750", Options::default())?;
//! let version = client.put(b"{user:7}/name", b"Kleisthenes")?;
//!
//! let value = client.get(b"{user:7}/name")?.expect("written above");
//! assert_eq!(value.value, b"Kleisthenes");
//!
//! // Replaced only if nobody else wrote in between.
//! let written = client.put_if(b"{user:7}/name", b"Perikles", Condition::Version(version))?;
//! assert!(written.applied);
//!
//! for entry in client.scan(ScanOptions::prefix(b"{user:7}/")) {
//!     let entry = entry?;
//!     println!("{} has {} bytes", entry.key.escape_ascii(), entry.value.len());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Nothing is ever sent twice: a request that failed comes back as an [`Error`], which says whether a write
//! may have happened ([`Error::UnknownOutcome`]) and when a busy server wants to be asked again.

#[cfg(feature = "tokio")]
mod asynchronous;
mod blocking;
mod error;
mod options;
mod protocol;
mod session;
mod steps;
mod values;

#[cfg(feature = "tokio")]
pub use asynchronous::{AsyncClient, AsyncScan};
pub use blocking::{Client, Pipeline, Scan, Ticket};
pub use error::{Error, ProtocolError, SubmitError};
pub use options::{Options, PutOptions, ScanOptions};
pub use ostrakon_wire::ClusterId;
pub use ostrakon_wire::frame::StageTimings;
pub use ostrakon_wire::message::{
    Action, BatchOperation, BatchReply, Condition, ErrorCode, Kind, PutEntry, Request, Response, Retry,
    ScanRequest, TopologyReply,
};
pub use protocol::{Protocol, RequestId};
pub use session::{CallId, CallOptions, ConnectionId, Duty, Finished, Session};
pub use values::{Answer, Entry, MultiValue, MultiWritten, Page, Server, Value, Written};
