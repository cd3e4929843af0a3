//! The mesh between the cores of one simulated process: bounded queues whose batches take their time.
//!
//! A batch is counted in its lane until it reaches the receiver's inbox. Its delay is drawn by the seed, but no
//! batch overtakes another of the same pair. A receiver that does not drain fills its inbox, then its lanes,
//! and then `try_send` gives batches back.

use core::cell::RefCell;
use core::task::{Context, Poll, Waker};
use std::collections::VecDeque;
use std::rc::Rc;

use ostrakon::env::{CoreId, Mesh};

use super::random::SimRandom;
use super::world::{MeshConfig, World};

struct Lane<B> {
    batches: VecDeque<B>,
    /// How many at the front have finished their way, and wait for room in the inbox.
    arrived: usize,
    last_arrival_ns: u64,
    room: Option<Waker>,
}

struct Receiver<B> {
    inbox: VecDeque<(CoreId, B)>,
    drainer: Option<Waker>,
}

struct State<B> {
    /// By sender, then receiver.
    lanes: Vec<Lane<B>>,
    receivers: Vec<Receiver<B>>,
}

/// What the cores of a process share.
pub(super) struct MeshShared<B> {
    cores: usize,
    lane_batches: usize,
    config: MeshConfig,
    random: SimRandom,
    state: RefCell<State<B>>,
}

impl<B: 'static> MeshShared<B> {
    pub(super) fn new(cores: u16, config: &MeshConfig, random: SimRandom) -> Rc<MeshShared<B>> {
        let cores = usize::from(cores);
        let lanes = (0..cores * cores).map(|_| Lane {
            batches: VecDeque::new(),
            arrived: 0,
            last_arrival_ns: 0,
            room: None,
        });
        let receivers = (0..cores).map(|_| Receiver {
            inbox: VecDeque::new(),
            drainer: None,
        });
        let state = State {
            lanes: lanes.collect(),
            receivers: receivers.collect(),
        };
        let lane_batches = random.between(config.lane_batches_min, config.lane_batches_max) as usize;
        Rc::new(MeshShared {
            cores,
            lane_batches,
            config: config.clone(),
            random,
            state: RefCell::new(state),
        })
    }

    fn has_room(&self, lane: usize) -> bool {
        self.state.borrow().lanes[lane].batches.len() < self.lane_batches
    }

    /// Moves what has arrived into the receiver's inbox, as far as it has room.
    fn forward(&self, from: usize, to: usize) {
        let state = &mut *self.state.borrow_mut();
        let lane = &mut state.lanes[from * self.cores + to];
        let receiver = &mut state.receivers[to];
        while lane.arrived > 0 && receiver.inbox.len() < self.config.inbox_batches {
            let batch = lane.batches.pop_front().expect("arrived batches are in the lane");
            lane.arrived -= 1;
            receiver.inbox.push_back((CoreId(from as u16), batch));
            lane.room.take().into_iter().for_each(Waker::wake);
            receiver.drainer.take().into_iter().for_each(Waker::wake);
        }
    }
}

/// One core's end.
pub(super) struct SimMesh<B> {
    pub(super) world: World,
    pub(super) core: CoreId,
    pub(super) shared: Rc<MeshShared<B>>,
}

impl<B> SimMesh<B> {
    fn lane(&self, to: CoreId) -> usize {
        assert!(to != self.core, "core {} sends to itself through the mesh", to.0);
        assert!(
            to.index() < self.shared.cores,
            "core {} sends to core {}, which doesn't exist",
            self.core.0,
            to.0
        );
        self.core.index() * self.shared.cores + to.index()
    }
}

impl<B: 'static> Mesh<B> for SimMesh<B> {
    fn try_send(&self, to: CoreId, batch: B) -> Result<(), B> {
        let lane = self.lane(to);
        let shared = &self.shared;
        if !shared.has_room(lane) {
            return Err(batch);
        }
        let mut delay_ns = shared.random.around(shared.config.delay_ns);
        if shared.random.one_in(shared.config.spike_one_in) {
            delay_ns += shared.random.below(shared.config.spike_ns_max);
        }
        let arrival_ns = {
            let mut state = shared.state.borrow_mut();
            let lane = &mut state.lanes[lane];
            lane.batches.push_back(batch);
            lane.last_arrival_ns = (self.world.now_ns() + delay_ns).max(lane.last_arrival_ns);
            lane.last_arrival_ns
        };
        let (weak, from, to) = (Rc::downgrade(shared), self.core.index(), to.index());
        self.world.at(arrival_ns, move |world| {
            if let Some(shared) = weak.upgrade() {
                world.fold((from * 31 + to) as u64);
                shared.state.borrow_mut().lanes[from * shared.cores + to].arrived += 1;
                shared.forward(from, to);
            }
        });
        Ok(())
    }

    fn poll_room(&self, cx: &mut Context<'_>, to: CoreId) -> Poll<()> {
        let lane = self.lane(to);
        if self.shared.has_room(lane) {
            return Poll::Ready(());
        }
        self.shared.state.borrow_mut().lanes[lane].room = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_drain(&self, cx: &mut Context<'_>, receive: &mut dyn FnMut(CoreId, B)) -> Poll<()> {
        let to = self.core.index();
        // Taken out, so that `receive` may use the mesh.
        let arrived = {
            let receiver = &mut self.shared.state.borrow_mut().receivers[to];
            if receiver.inbox.is_empty() {
                receiver.drainer = Some(cx.waker().clone());
                return Poll::Pending;
            }
            core::mem::take(&mut receiver.inbox)
        };
        for (from, batch) in arrived {
            receive(from, batch);
        }
        for from in (0..self.shared.cores).filter(|from| *from != to) {
            self.shared.forward(from, to);
        }
        Poll::Ready(())
    }
}
