//! Batches between the cores of one node, over lock-free single-producer single-consumer channels.
//!
//! Sending never blocks and receiving never waits for a send, so two cores that both send cannot deadlock:
//! a full channel gives the batch back, and the sender keeps it in its own outbox.

use core::task::{Context, Poll};

/// A core of this node, `0..cores`. It is not a CPU number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CoreId(pub u16);

impl CoreId {
    /// As an index into per-core arrays.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// One core's end of the mesh. Batches between a pair of cores arrive in the order they were sent, none is
/// lost or duplicated while both cores live.
pub trait Mesh<B> {
    /// Sends a batch to another core, or gives it back when the channel is full.
    ///
    /// # Errors
    /// The batch itself, when there is no room. Sending to this core itself is a bug and panics.
    fn try_send(&self, to: CoreId, batch: B) -> Result<(), B>;

    /// Ready once a `try_send` to `to` would find room. One waiting task per peer.
    fn poll_room(&self, cx: &mut Context<'_>, to: CoreId) -> Poll<()>;

    /// Hands over every batch that has arrived; pending when there was none. One waiting task per core.
    fn poll_drain(&self, cx: &mut Context<'_>, receive: &mut dyn FnMut(CoreId, B)) -> Poll<()>;
}
