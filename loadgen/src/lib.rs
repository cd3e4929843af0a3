//! `loadgen`: load generator and verifier for Ostrakon.
//!
//! Reading order: [`cli`] turns the command line into a configuration; [`run`] takes it through its phases.
//! The load and run phases are driven by [`driver`], which takes operations as [`workload`] and [`keys`]
//! define them, and measures into [`statistics`]. Values prove themselves ([`mod@value`]), the [`register`]
//! knows what the database has promised, and [`check`] compares it with a full scan. [`report`] and
//! [`progress`] are all that a user sees, [`embedded`] is the node that is started when none is named. On
//! request, [`history`] writes down every request and answer for checkers outside of loadgen.
//!
//! loadgen speaks to a node only over the wire, embedded or not, and shares no code with the engine that it
//! checks, save the wire format's own crates.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "loadgen is a client: it has clocks, threads, files and sockets of its own"
)]

pub mod check;
pub mod cli;
pub mod driver;
pub mod embedded;
pub mod history;
pub mod kernel;
pub mod keys;
pub mod progress;
pub mod random;
pub mod register;
pub mod report;
pub mod run;
pub mod statistics;
pub mod value;
pub mod workload;
