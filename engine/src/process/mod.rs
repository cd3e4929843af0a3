//! The process around a node: command line, configuration, checks of the machine, directory lock, logging, signals.
//!
//! This is the only layer besides [`env`](crate::env) that may touch the machine directly (`std::fs`,
//! `std::net`, `std::thread`, system calls). In return it holds no database logic: it decides neither
//! what is stored nor when it is safe to answer, and nothing below it depends on it.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "this layer is the outside of the seam `env`: it runs before and beside the cores, never on them"
)]

pub mod cli;
pub mod configuration;
pub mod cpu_list;
pub mod doctor;
pub mod embedded;
pub mod http;
pub mod lock;
pub mod logging;
pub mod node;
pub mod preflight;
pub mod signals;
pub mod version;
