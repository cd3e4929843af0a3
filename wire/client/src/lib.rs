//! Client library of Ostrakon.
//!
//! | | what it is | IO |
//! |---|---|---|
//! | [`Client`] | blocking: one method per request, pipelines, scans | sockets of the standard library and `poll` |
//! | `AsyncClient` | the same for tokio, with handles that can be cloned; feature `tokio` | tokio |
//! | [`Session`] | the state machine behind both: several connections, routing, repetition, deadlines | none |
//! | [`Protocol`] | the state machine of one connection | none |
//!
//! ```no_run
//! use ostrakon_client::{Client, Condition, Options, PutOptions, ScanOptions};
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
//! // Counted once, whatever becomes of the connection; and a key that goes by itself after a minute.
//! let (_, visits) = client.add(b"{user:7}/visits", 1)?;
//! let minute = PutOptions { ttl_ms: 60_000, ..PutOptions::default() };
//! client.put_with(b"{user:7}/session", visits.to_string().as_bytes(), minute)?;
//!
//! for entry in client.scan(ScanOptions::prefix(b"{user:7}/")) {
//!     let entry = entry?;
//!     println!("{} has {} bytes", entry.key.escape_ascii(), entry.value.len());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Several keys of one tag change together:
//!
//! ```no_run
//! # use ostrakon_client::{Action, BatchOperation, Client, Condition, Options};
//! # fn main() -> Result<(), ostrakon_client::Error> {
//! # let mut client = Client::connect("127.0.0.1:5750", Options::default())?;
//! let take = BatchOperation {
//!     key: b"{account}/7",
//!     action: Action::Add { delta: -10, ttl_ms: 0 },
//!     condition: Condition::Present,
//! };
//! let give = BatchOperation { key: b"{account}/8", action: Action::Add { delta: 10, ttl_ms: 0 }, ..take };
//! let reply = client.batch(&[take, give])?;
//! println!("{}, {:?}", reply.applied, reply.numbers);
//! # Ok(())
//! # }
//! ```
//!
//! A request whose answer is lost is sent again until its time is up, and so is one that the server refuses for the
//! moment. A write has a name by which the server recognises it, so that it happens once; where that can't be told in
//! time, the error is [`Error::UnknownOutcome`], and never otherwise. [`Options::retry`] switches this off.
#![cfg_attr(
    feature = "tokio",
    doc = r#"
```no_run
use ostrakon_client::{AsyncClient, Options};

# async fn example() -> Result<(), ostrakon_client::Error> {
let client = AsyncClient::connect("127.0.0.1:5750", Options::default()).await?;
let other = client.clone();
tokio::spawn(async move { other.add(b"visits", 1).await });
let visits = client.get(b"visits").await?;
# Ok(())
# }
```"#
)]

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
pub use blocking::{Client, Interrupter, Pipeline, Scan, Ticket};
pub use error::{Error, ProtocolError, SubmitError};
pub use options::{Options, PutOptions, ScanOptions};
pub use ostrakon_wire::ClusterId;
pub use ostrakon_wire::frame::StageTimings;
pub use ostrakon_wire::message::{
    Action, BatchOperation, BatchReply, CheckpointAction, CheckpointShard, Condition, ErrorCode, Kind,
    PutEntry, Request, Response, Retry, ScanRequest, TopologyReply,
};
pub use protocol::{Protocol, RequestId};
pub use session::{CallId, CallOptions, ConnectionId, Duty, Finished, Session};
pub use values::{Answer, Checkpoint, Entry, MultiValue, MultiWritten, Page, Server, Value, Written};
