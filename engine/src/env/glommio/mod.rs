//! The environment of a real node: glommio executors (`io_uring`), one pinned to a CPU for each core.
//!
//! [`start`] is a node's only way in. What it hands out is an [`Env`](crate::env::Env) per core; nothing above
//! `env` sees a type of this module. [`executors`] is for programs beside the node that use glommio themselves.
//!
//! Architecture invariants:
//! 1. An IO future of glommio is awaited to its end by the operation that made it, inside one task.
//!    None takes part in a `select`: every poll of a pending one stores another waker.
//! 2. Sources of events (accept, mesh receive) have one task each for life, which feeds a local queue.
//! 3. System calls that may block run on the executor's helper thread ([`disk`]).
//! 4. Tasks are spawned into a queue, never run inside the call that spawns them.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "this is the side of the seam that calls the operating system"
)]

pub mod executors;
pub mod runtime;

mod clock;
mod disk;
mod listener;
mod mesh;
mod network;
mod pulse;
mod socket;
mod system;
mod tasks;

use std::io;

use ::glommio::GlommioError;

pub use disk::DiskError;
pub use runtime::{Cores, JoinError, RuntimeConfig, StartError, start};

/// The system's error inside an error of glommio, or that error itself.
fn system_error(error: GlommioError<()>) -> io::Error {
    match error {
        GlommioError::IoError(source) | GlommioError::EnhancedIoError { source, .. } => source,
        other => io::Error::other(other.to_string()),
    }
}
