//! The one seam to the outside: clock, disk, network, mesh between cores, tasks, randomness.
//!
//! Everything above this module is written against these traits, so that the same code runs on
//! glommio ([`glommio`]) and inside a deterministic simulator (crate `ostrakon-tests`). The traits are
//! object safe and small. What crosses them is chosen so that no request pays for the seam: futures are
//! boxed once per disk operation or spawned task, never per request; the network lends its buffers; the
//! mesh and the yield check are plain calls.
//!
//! Guarantees: a core's [`Env`] is used from that core only. Nothing here retries a failed write.

pub mod clock;
pub mod disk;
pub mod foreign;
pub mod local;
pub mod mesh;
pub mod network;
pub mod pace;
pub mod tasks;
#[cfg(test)]
pub(crate) mod testing;
pub mod together;

pub mod glommio;

use std::rc::Rc;

pub use clock::{Clock, MonotonicNs, WallUs};
pub use disk::{Disk, DiskBuf, DiskMemory, File, OpenMode};
pub use mesh::{CoreId, Mesh};
pub use network::{Connection, DetachedConnection, Listener, Network};
pub use tasks::{Priority, Random, Tasks};

/// All that one core sees of the outside. `B` is the type of the batches that cores send each other.
pub struct Env<B> {
    /// This core, `0..cores`.
    pub core: CoreId,
    /// Number of cores of the node.
    pub cores: u16,
    /// Monotonic and wall time.
    pub clock: Rc<dyn Clock>,
    /// Files below the data directory.
    pub disk: Rc<dyn Disk>,
    /// Listening sockets and connections.
    pub network: Rc<dyn Network>,
    /// Batches to and from the node's other cores.
    pub mesh: Rc<dyn Mesh<B>>,
    /// Spawning, yielding, sleeping.
    pub tasks: Rc<dyn Tasks>,
    /// Random numbers (seeded in simulation).
    pub random: Rc<dyn Random>,
}

impl<B> Clone for Env<B> {
    fn clone(&self) -> Self {
        Env {
            core: self.core,
            cores: self.cores,
            clock: Rc::clone(&self.clock),
            disk: Rc::clone(&self.disk),
            network: Rc::clone(&self.network),
            mesh: Rc::clone(&self.mesh),
            tasks: Rc::clone(&self.tasks),
            random: Rc::clone(&self.random),
        }
    }
}
