//! Whole runs of loadgen against fake nodes, right and wrong, and against Redis.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a fake node has threads, sockets and a mutex"
)]

mod common;
mod fake_node;

mod open_loop;
mod operations;
mod places;
mod verified;
