//! Pure state machines of Ostrakon: the hybrid logical clock, Raft, the retry table, and the shape of LSM trees.
//!
//! Nothing here does IO, reads a clock, draws a random number or knows a thread; the compiler proves it
//! (`no_std`). Time comes in as an argument; payloads are bytes that stay with the driver.

#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod hlc;
pub mod lsm;
pub mod raft;
pub mod sessions;
