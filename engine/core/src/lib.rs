//! Pure protocol state machines of Ostrakon: the hybrid logical clock, Raft, and the retry table.
//!
//! Nothing here does IO, reads a clock, draws a random number or knows a thread; the compiler proves it
//! (`no_std`). Time comes in as an argument; payloads are bytes that stay with the driver.

#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod hlc;
pub mod raft;
pub mod sessions;
