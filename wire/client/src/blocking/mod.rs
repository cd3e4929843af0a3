//! A blocking client over one TCP connection of the standard library.
//!
//! The only part of this crate that knows a socket or a clock.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a client library runs in the user's program and has the standard library's sockets and clock"
)]

mod client;
mod connection;
mod pipeline;
mod scan;

pub use client::Client;
pub use pipeline::{Pipeline, Ticket};
pub use scan::Scan;
