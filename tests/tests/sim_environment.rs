//! The simulated environment keeps the promises of `env`'s traits, breaks what it is told to break, counts that,
//! does the same again under the same seed, and starts the real node.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a node reports its events through a Send + Sync callback"
)]

#[path = "sim_environment/support.rs"]
mod support;

#[path = "sim_environment/at_disk.rs"]
mod at_disk;
#[path = "sim_environment/at_network.rs"]
mod at_network;
#[path = "sim_environment/clocks.rs"]
mod clocks;
#[path = "sim_environment/cores.rs"]
mod cores;
#[path = "sim_environment/disk.rs"]
mod disk;
#[path = "sim_environment/disk_faults.rs"]
mod disk_faults;
#[path = "sim_environment/identity.rs"]
mod identity;
#[path = "sim_environment/network.rs"]
mod network;
#[path = "sim_environment/node.rs"]
mod node;
