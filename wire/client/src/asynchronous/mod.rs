//! An asynchronous client for tokio: handles that can be cloned, and one task that owns the session.
//!
//! A request goes to the task through a bounded channel, encoded; its answer comes back through a channel of its own.
//! When a caller drops the future of a request, the task hears of it and abandons the call.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a client library runs in the user's program and has its runtime's sockets and clock"
)]

mod client;
mod scan;
mod task;

pub use client::AsyncClient;
pub use scan::AsyncScan;
