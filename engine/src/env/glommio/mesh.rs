//! The mesh on glommio's shared channels: one bounded channel for each ordered pair of cores.
//!
//! 1. `try_send` counts the batch in the lane it shares with the receiving core and pushes it into the
//!    channel.
//! 2. At the receiver, one forwarding task per sender pops the batch, discounts it, wakes a sender that
//!    waits for room, and puts the batch into the core's inbox.
//! 3. `poll_drain` empties the inbox.
//!
//! The count decides about room, not the channel: glommio offers no way to ask a channel for room, and its
//! awaiting `send` panics when the ring's counters run ahead of its slots. A batch is discounted only after
//! its slot is free, so a counted batch always finds a slot.
//!
//! Bounds, for each ordered pair: [`CHANNEL_BATCHES`] in the channel and one in the forwarding task's hand;
//! for each core: [`INBOX_BATCHES`] in the inbox.

use core::cell::RefCell;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use core::task::{Context, Poll, Waker};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use ::glommio::channels::shared_channel::{self, ConnectedSender, SharedReceiver, SharedSender};
use ::glommio::{GlommioError, ResourceType, TaskQueueHandle};

use super::tasks;
use crate::env::local::Notify;
use crate::env::mesh::{CoreId, Mesh};

/// Batches in the channel of one ordered pair of cores. glommio rounds up to powers of two, this is one.
const CHANNEL_BATCHES: usize = 256;

/// Batches that wait on the receiving core for `poll_drain`.
const INBOX_BATCHES: usize = 256;

/// What the two cores of an ordered pair share beside the channel.
#[derive(Default)]
struct Lane {
    /// Batches pushed or being pushed, and not yet popped.
    queued: AtomicUsize,
    /// True while `waiter` holds the waker of a sender that found no room.
    waiting: AtomicBool,
    waiter: Mutex<Option<Waker>>,
}

impl Lane {
    fn has_room(&self) -> bool {
        self.queued.load(Ordering::SeqCst) < CHANNEL_BATCHES
    }

    /// Called by the receiver after a pop. The total order of the two flags makes sure that either this sees
    /// the sender waiting or the sender sees the room.
    fn discount(&self) {
        self.queued.fetch_sub(1, Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) && self.waiting.swap(false, Ordering::SeqCst) {
            let waiter = self.waiter.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(waiter) = waiter {
                waiter.wake();
            }
        }
    }

    fn wait(&self, cx: &Context<'_>) {
        *self.waiter.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        self.waiting.store(true, Ordering::SeqCst);
    }
}

/// The unconnected ends of the mesh that belong to one core, on their way to its thread.
pub(super) struct MeshEnds<B: Send> {
    core: CoreId,
    /// By receiving core; `None` for this core itself.
    outgoing: Vec<Option<(SharedSender<B>, Arc<Lane>)>>,
    /// By sending core; `None` for this core itself.
    incoming: Vec<Option<(SharedReceiver<B>, Arc<Lane>)>>,
}

/// The channels of a node with `cores` cores: one set of ends for each core.
pub(super) fn build<B: Send>(cores: u16) -> Vec<MeshEnds<B>> {
    let mut ends: Vec<MeshEnds<B>> = (0..cores)
        .map(|core| MeshEnds {
            core: CoreId(core),
            outgoing: Vec::new(),
            incoming: Vec::new(),
        })
        .collect();
    for from in 0..usize::from(cores) {
        for to in 0..usize::from(cores) {
            if from == to {
                ends[from].outgoing.push(None);
                ends[to].incoming.push(None);
                continue;
            }
            let (sender, receiver) = shared_channel::new_bounded(CHANNEL_BATCHES);
            let lane = Arc::new(Lane::default());
            ends[from].outgoing.push(Some((sender, Arc::clone(&lane))));
            ends[to].incoming.push(Some((receiver, lane)));
        }
    }
    ends
}

impl<B: Send + 'static> MeshEnds<B> {
    /// Waits for all other cores to connect their ends too. Forwarding tasks run in `queue`.
    pub(super) async fn connect(self, queue: TaskQueueHandle) -> GlommioMesh<B> {
        let inbox = Rc::new(Inbox {
            arrived: RefCell::default(),
            drainer: RefCell::default(),
            room: self.incoming.iter().map(|_| Notify::default()).collect(),
        });
        // Receivers connect in tasks of their own: a sender's connect waits for its receiver's on the other
        // core and the other way round, and one after the other would deadlock.
        for (from, end) in self.incoming.into_iter().enumerate() {
            if let Some((receiver, lane)) = end {
                tasks::spawn_into(
                    queue,
                    forward(CoreId(from as u16), receiver, lane, Rc::clone(&inbox)),
                );
            }
        }
        let mut outgoing = Vec::with_capacity(self.outgoing.len());
        for end in self.outgoing {
            outgoing.push(match end {
                Some((sender, lane)) => Some(Outgoing {
                    sender: sender.connect().await,
                    lane,
                }),
                None => None,
            });
        }
        GlommioMesh {
            core: self.core,
            outgoing,
            inbox,
        }
    }
}

/// Moves batches of one sending core from the channel to the inbox, for as long as the core lives.
async fn forward<B: Send + 'static>(
    from: CoreId,
    receiver: SharedReceiver<B>,
    lane: Arc<Lane>,
    inbox: Rc<Inbox<B>>,
) {
    let receiver = receiver.connect().await;
    while let Some(batch) = receiver.recv().await {
        lane.discount();
        while inbox.is_full() {
            inbox.room[from.index()].notified().await;
        }
        inbox.push(from, batch);
    }
}

/// Batches that have arrived at this core, of all senders.
struct Inbox<B> {
    arrived: RefCell<VecDeque<(CoreId, B)>>,
    drainer: RefCell<Option<Waker>>,
    /// For each sending core, raised when the inbox was emptied.
    room: Vec<Notify>,
}

impl<B> Inbox<B> {
    fn is_full(&self) -> bool {
        self.arrived.borrow().len() >= INBOX_BATCHES
    }

    fn push(&self, from: CoreId, batch: B) {
        self.arrived.borrow_mut().push_back((from, batch));
        let drainer = self.drainer.borrow_mut().take();
        if let Some(drainer) = drainer {
            drainer.wake();
        }
    }
}

struct Outgoing<B: Send> {
    sender: ConnectedSender<B>,
    lane: Arc<Lane>,
}

/// One core's end of the mesh.
pub(super) struct GlommioMesh<B: Send> {
    core: CoreId,
    outgoing: Vec<Option<Outgoing<B>>>,
    inbox: Rc<Inbox<B>>,
}

impl<B: Send> GlommioMesh<B> {
    fn outgoing(&self, to: CoreId) -> &Outgoing<B> {
        match self.outgoing.get(to.index()) {
            Some(Some(outgoing)) => outgoing,
            Some(None) => panic!("core {} sends to itself through the mesh", to.0),
            None => panic!("core {} sends to core {}, which doesn't exist", self.core.0, to.0),
        }
    }
}

impl<B: Send + 'static> Mesh<B> for GlommioMesh<B> {
    fn try_send(&self, to: CoreId, batch: B) -> Result<(), B> {
        let Outgoing { sender, lane } = self.outgoing(to);
        if !lane.has_room() {
            return Err(batch);
        }
        lane.queued.fetch_add(1, Ordering::SeqCst);
        match sender.try_send(batch) {
            Ok(()) => Ok(()),
            // Cores end together, so neither can be seen by a running core.
            Err(GlommioError::WouldBlock(ResourceType::Channel(_))) => {
                panic!(
                    "the channel from core {} to core {} is fuller than its count",
                    self.core.0, to.0
                )
            }
            Err(error) => panic!(
                "the channel from core {} to core {} broke: {error}",
                self.core.0, to.0
            ),
        }
    }

    fn poll_room(&self, cx: &mut Context<'_>, to: CoreId) -> Poll<()> {
        let lane = &self.outgoing(to).lane;
        if lane.has_room() {
            return Poll::Ready(());
        }
        lane.wait(cx);
        if lane.has_room() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    fn poll_drain(&self, cx: &mut Context<'_>, receive: &mut dyn FnMut(CoreId, B)) -> Poll<()> {
        // Taken out, so that `receive` may use the mesh.
        let mut arrived = self.inbox.arrived.take();
        if arrived.is_empty() {
            self.inbox.arrived.replace(arrived);
            *self.inbox.drainer.borrow_mut() = Some(cx.waker().clone());
            return Poll::Pending;
        }
        for (from, batch) in arrived.drain(..) {
            receive(from, batch);
        }
        // The forwarding tasks run only after this returns, so the inbox is still empty: keep the memory.
        self.inbox.arrived.replace(arrived);
        for room in &self.inbox.room {
            room.notify();
        }
        Poll::Ready(())
    }
}
