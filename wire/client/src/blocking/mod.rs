//! A blocking client: a session over sockets of the standard library, driven by whoever waits.
//!
//! Sockets never block; `poll` does, and only while a caller waits for an answer. No thread works behind the caller's
//! back: between two calls nothing is sent and nothing is read.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a client library runs in the user's program and has the standard library's sockets and clock"
)]

mod client;
mod driver;
mod interrupter;
mod pipeline;
mod scan;
mod socket;

pub use client::Client;
pub use interrupter::Interrupter;
pub use pipeline::{Pipeline, Ticket};
pub use scan::Scan;
