//! `loadgen`: load generator and verifier for Ostrakon.
//!
//! Reading order: [`cli`] turns the command line into a configuration; [`run`] takes it through its phases.
//! The load and run phases are driven by [`driver`]: operations are those of [`workload`], on the records that
//! [`distribution`] chooses among [`records`], begun when a connection is free or when [`arrival`] says that
//! they are due. They go out in the words of [`target`] and are measured into [`statistics`], [`series`] and
//! [`stages`]. [`search`] repeats this at rising rates. Values prove themselves ([`mod@value`]), the [`register`]
//! knows what the database has promised, [`counters`] what counters must hold, and [`check`] compares both with a
//! full scan. [`report`], [`plot`], [`percentiles`] and [`progress`] are all that a user sees, [`embedded`] is the
//! node that is started when none is named. On request, [`history`] writes down every request and answer for
//! checkers outside of loadgen.
//!
//! loadgen speaks to a node only over the wire, embedded or not, and shares no code with the engine that it
//! checks, save the wire format's own crates. Redis, for comparison, gets the same operations from the same
//! code.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "loadgen is a client: it has clocks, threads, files and sockets of its own"
)]

pub mod arrival;
pub mod check;
pub mod cli;
pub mod counters;
pub mod distribution;
pub mod driver;
pub mod embedded;
pub mod history;
pub mod kernel;
pub mod keys;
pub mod percentiles;
pub mod plot;
pub mod progress;
pub mod random;
pub mod records;
pub mod register;
pub mod report;
pub mod run;
pub mod search;
pub mod series;
pub mod stages;
pub mod statistics;
mod target;
pub mod value;
pub mod workload;
