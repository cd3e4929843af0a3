//! The simulated environment: a second implementation of `ostrakon::env`, deterministic under one seed.
//!
//! A [`World`] holds virtual time, hosts with disks and clocks, the network between them, and the tasks of all
//! processes. The production code above `env` runs in it unchanged. Guarantees:
//! 1. The same seed, configuration and calls give the same run, down to [`World::trace_hash`].
//! 2. Without a fault, every promise in the docs of `env`'s traits holds, and nothing more than those promises:
//!    what is not synced may be lost with the power, what is not ordered may be reordered.
//! 3. A fault is counted ([`World::counters`]) when it strikes, not when it is asked for.
//!
//! Nothing here reads a real clock, starts a thread, opens a file or a socket, or iterates over a container
//! whose order is random. A world lives on one thread; several worlds may run on several threads.
//!
//! Reading order: [`random`], [`world`], [`host`], `executor`, `mesh`, [`disk`], [`network`], [`faults`].

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod random;

pub mod world;

pub mod host;

pub mod clock;

mod events;
mod executor;
mod mesh;
mod wake;

pub mod disk;
pub mod network;

pub mod counters;
pub mod faults;
pub mod trace;

pub use counters::{Counters, FaultKind};
pub use disk::harness::{DamageRecord, DiskSnapshot, HostDisk};
pub use disk::{CrashPoint, DiskConfig};
pub use faults::{Fault, FaultAction, FaultAt, FaultAtKind};
pub use host::{CrashStyle, HostId, ProcessId, ProcessStatus};
pub use network::faults::NetworkTrouble;
pub use network::{ConnectionNumber, NetworkConfig};
pub use random::SimRandom;
pub use trace::{TraceEvent, TraceKind};
pub use world::{MeshConfig, PanicRecord, RunEnd, SchedulerConfig, World, WorldConfig};
