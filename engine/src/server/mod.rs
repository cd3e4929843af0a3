//! A node at work: connections, requests between its cores, start and stop.
//!
//! Every core runs the same code ([`node::run_core`]) and serves any client: the core that holds a connection
//! is the *gateway* of its requests and passes each to the *owner* core of the key's shard, itself or another.
//! A request is handled where its bytes are: decoded in the receive buffer, executed or copied once into the
//! batch for its owner, answered into the connection's send buffer. No request has a task of its own.
//!
//! Reading order: [`message`] (what cores tell each other), [`core`] (the state of a core), [`connection_limits`],
//! [`connection`], [`connection_tasks`], [`frames`], [`dispatch`], [`fetch`], [`reads`], [`gather`], [`several`],
//! [`ranges`], [`programs`], [`checkpoints`], [`outbox`], [`told`], [`status`], [`startup`], [`replaying`],
//! [`scrub`], [`node`]; [`check`] is for when no node runs.

pub mod message;

pub mod core;

pub mod connection;
pub mod connection_limits;
mod connection_tasks;

mod answer;
mod frames;
mod refusal;

mod dispatch;
mod fetch;
mod gather;
pub mod outbox;
pub mod programs;
mod ranges;
mod reads;
pub mod several;
pub mod status;
pub mod told;

mod checkpoint_task;
pub mod checkpoints;
mod replaying;
pub mod scrub;
mod upkeep;

pub mod check;
pub mod node;
pub mod startup;
