//! Benchmarks of Ostrakon against the raw device and its peers: one subcommand each, see `README.md` beside
//! this.
//!
//! Reading order: [`cli`] is the command line. The subcommands are [`put_latency`], [`syscalls`], [`instructions`],
//! [`throughput`], [`memory`], [`connections`], [`beyond_memory`], [`compaction_latency`] and [`engines`]; each but the
//! last starts what it measures as a process of its own ([`server`]), in a directory of its own ([`workspace`]), and
//! drives it with [`load`], a [`crowd`] of connections, or the crate `loadgen`. A server may have a
//! [`control_group`] and a [`power_disk`] of its own; [`settled`] waits until it has nothing more to do. [`raw_write`]
//! is the device without a database, [`mod@echo`] the network without one, [`redis`] a peer; what they have in common
//! is in [`peer`]. [`strace`] and [`callgrind`] run those tools and read what they write. [`report`] is all that a user
//! sees.
//!
//! Guarantees: a binary with the `verify` feature is refused; every process that was started is stopped and
//! every directory that was made is removed, also after an error or Ctrl-C; every figure is printed, good
//! or bad. Only [`engines`] measures code of the engine inside its own process, as a program that embeds it would.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a benchmark is outside the engine: it has clocks, threads, files and sockets of its own"
)]

pub mod cli;

pub mod beyond_memory;
pub mod compaction_latency;
pub mod connections;
pub mod engines;
pub mod instructions;
pub mod memory;
pub mod put_latency;
pub mod syscalls;
pub mod throughput;

pub mod callgrind;
pub mod control_group;
pub mod crowd;
pub mod echo;
pub mod load;
pub mod machine;
pub mod peer;
pub mod power_disk;
pub mod process;
pub mod raw_write;
pub mod redis;
pub mod report;
pub mod server;
pub mod settled;
pub mod statistics;
pub mod strace;
pub mod workspace;
