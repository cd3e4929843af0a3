//! Ostrakon's client protocol: frames, messages, routing of keys to shards.
//!
//! A connection is a TCP stream of frames ([`frame`]); the body of a frame is one flatbuffers table
//! ([`message`]); a key finds its shard by the hash of its routing key ([`routing`]). What is too big for any
//! of them is in [`limits`].
//!
//! This crate guarantees that bytes from outside are verified before they are read and that no input makes it
//! panic (`Request::decode_trusted` is the one exception, and says so). It never does IO, reads a clock or
//! starts a thread, and knows nothing of the engine. There is no unsafe code outside what `flatc` generates.

pub mod frame;
pub mod limits;
pub mod message;
pub mod routing;

#[allow(
    missing_docs,
    unreachable_pub,
    unsafe_op_in_unsafe_fn,
    rust_2018_idioms,
    clippy::all,
    clippy::pedantic,
    clippy::undocumented_unsafe_blocks,
    reason = "made by flatc"
)]
#[rustfmt::skip]
mod generated;

pub use message::ClusterId;
