//! Runs of the whole node in the simulator ([`crate::sim`]), judged by the checkers ([`crate::check`]).
//!
//! 1. [`plan`]: what a run does, drawn from a seed.
//! 2. [`node`], [`client`], [`workload`]: the production node and client state machine, put to work; [`writes`],
//!    [`session`], [`sending`]: writes that are sent until they are answered; [`programs`]: clients within the node's
//!    process; [`rude`]: connections that break the rules.
//! 3. [`run`]: the course of a run; [`refusal`], [`damage`], [`shared`]: what a node may and must say when it gives up
//!    or refuses; [`offline`]: the check of its data directory when it is down; [`judge`]: the verdict;
//!    [`strikes`]: what its faults at operations came to.
//! 4. [`campaign`]: many runs; [`shrink`]: a smaller plan that fails alike; [`sweep`]: one fault at each operation
//!    of a short run.
//!
//! Nothing here reads a real clock, starts a thread or has a container with a random order: a plan decides everything.
//! Only [`campaign`] has threads; each runs worlds of its own.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod plan;
mod plan_faults;
mod plan_workload;
pub mod storage;

pub mod run;

pub mod damage;
pub mod judge;
mod offline;
pub mod refusal;
mod rest;
pub mod strikes;

pub mod campaign;
pub mod shrink;
pub mod sweep;

pub mod checkpoints;
pub mod client;
pub mod connections;
pub mod programs;
pub mod scans;
pub mod sending;
pub mod session;
pub mod writes;

pub mod node;
pub mod record;
pub mod rude;
pub mod rude_scripts;
pub mod shared;
pub mod values;
pub mod workload;
