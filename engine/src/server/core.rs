//! The state of one core while it serves: shards, connections, outboxes, questions under way.
//!
//! One [`Core`] per core behind one `RefCell`, borrowed for the time of one turn: a chunk of received bytes, a
//! batch from another core, a durable batch of the log. Nothing awaits while it is borrowed.

use std::cell::RefCell;
use std::future::poll_fn;
use std::path::PathBuf;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use ostrakon_core::hlc::{Timestamp, TimestampAhead};
use ostrakon_wire::frame::HEADER_BYTES;
use ostrakon_wire::message::{ClusterId, HelloReply};

use super::answer::Answers;
use super::checkpoints::Checkpoints;
use super::connection::Connections;
use super::connection_limits::ConnectionLimits;
use super::gather::Gathers;
use super::message::{Asker, CoreBatch, CoreMessage, HandOver};
use super::several::ValuesFor;
use super::status::counters::Stage;
use super::told::ToldByCores;
use crate::cluster::identity::Identity;
use crate::env::local::Notify;
use crate::env::{CoreId, Env};
use crate::limits::{CONNECTION_IN_FLIGHT_MAX, REQUEST_BODY_BYTES_MAX, RETRY_HORIZON_US, payload_bytes_max};
use crate::log::{DurableBatch, DurableSink, LogError};
use crate::shard::Refusal;
use crate::shard::command::COMMAND_HEAD_BYTES_MAX;
use crate::shard::fetched::Fetched;
use crate::shard::host::ShardHost;

/// A core's state, shared by its tasks.
pub type SharedCore = Rc<RefCell<Core>>;

/// Hears of a failed log, for the operator.
pub type LogFailedHandler = Rc<dyn Fn(&LogError)>;

/// What a core serves with.
pub struct Core {
    /// The outside.
    pub env: Env<CoreBatch>,
    /// Who the node is.
    pub identity: Identity,
    /// Owner of each shard.
    pub owners: Rc<[CoreId]>,
    /// The core's shards.
    pub host: ShardHost,
    /// Shared with the node's other cores.
    told: Arc<ToldByCores>,
    /// The core's connections and outboxes, and what is counted of them.
    pub(super) answers: Answers,
    /// Questions to all cores that this core asked.
    pub(super) gathers: Gathers,
    /// Checkpoints that this core takes part in.
    pub(super) checkpoints: Checkpoints,
    pub(super) next_read: u64,
    /// Requests that lack something which is being read from tables.
    pub(super) fetches: usize,
    /// For tasks that come back to this core.
    pub(super) itself: Weak<RefCell<Core>>,
    /// Connections handed over to this core that wait for their tasks.
    pub(super) arrivals: Vec<HandOver>,
    /// Raised when `arrivals` or `start_messages` has something.
    pub(super) control_work: Rc<Notify>,
    pub(super) start_messages: Vec<(CoreId, super::startup::StartMessage)>,
    /// True once the node is shutting down: new requests are refused.
    pub(super) is_draining: bool,
    /// Raised when something that a drain waits for may have ended.
    pub(super) quiet: Rc<Notify>,
}

impl Core {
    /// A core that is about to serve. `data` is the data directory, as other processes of the machine name it.
    pub fn new(
        env: Env<CoreBatch>,
        identity: Identity,
        owners: Rc<[CoreId]>,
        host: ShardHost,
        limits: ConnectionLimits,
        told: Arc<ToldByCores>,
        data: PathBuf,
    ) -> Core {
        let clock = Rc::clone(&env.clock);
        let connections = Connections::new(limits);
        Core {
            answers: Answers::new(env.core, env.cores, clock, connections),
            gathers: Gathers::default(),
            checkpoints: Checkpoints::new(data),
            next_read: 0,
            fetches: 0,
            itself: Weak::new(),
            arrivals: Vec::new(),
            control_work: Rc::default(),
            start_messages: Vec::new(),
            is_draining: false,
            quiet: Rc::default(),
            env,
            identity,
            owners,
            host,
            told,
        }
    }

    /// The core behind the reference by which its tasks share it.
    pub fn shared(self) -> SharedCore {
        Rc::new_cyclic(|itself| {
            RefCell::new(Core {
                itself: Weak::clone(itself),
                ..self
            })
        })
    }

    /// This core.
    pub fn id(&self) -> CoreId {
        self.env.core
    }

    /// Starts a turn: reads the clocks once.
    pub fn begin_turn(&mut self) {
        self.answers.turn_ns = self.env.clock.monotonic().0;
        self.host.begin_turn(self.env.clock.wall());
    }

    /// What a hello is answered with.
    pub(super) fn hello_reply(&self) -> HelloReply<'static> {
        use ostrakon_core::sessions::WINDOW;
        use ostrakon_wire::limits::{KEY_BYTES_MAX, MULTI_MAX, VALUE_BYTES_MAX};
        let payload_bytes = payload_bytes_max(self.identity.segment_bytes);
        let value_bytes_max = VALUE_BYTES_MAX.min(payload_bytes - COMMAND_HEAD_BYTES_MAX - KEY_BYTES_MAX);
        HelloReply {
            version: ostrakon_wire::message::PROTOCOL_VERSION,
            cluster_id: self.cluster_id(),
            node_id: self.identity.node,
            core: self.env.core.0,
            cores: self.env.cores,
            shards: self.identity.shards,
            server: concat!("ostrakon ", env!("CARGO_PKG_VERSION")),
            key_bytes_max: KEY_BYTES_MAX as u32,
            value_bytes_max: value_bytes_max as u32,
            frame_bytes_max: (HEADER_BYTES + REQUEST_BODY_BYTES_MAX) as u32,
            requests_in_flight_max: CONNECTION_IN_FLIGHT_MAX,
            multi_max: MULTI_MAX as u32,
            session_window: WINDOW as u32,
            retry_horizon_ms: RETRY_HORIZON_US / 1000,
        }
    }

    /// The cluster's id in wire form.
    pub(super) fn cluster_id(&self) -> ClusterId {
        ClusterId {
            high: self.identity.cluster.0,
            low: self.identity.cluster.1,
        }
    }

    /// Takes in a batch of another core.
    pub fn receive(&mut self, from: CoreId, batch: CoreBatch) {
        self.begin_turn();
        self.host.hlc().observe(batch.timestamp);
        let CoreBatch {
            mut bytes, messages, ..
        } = batch;
        let gets = || messages.iter().filter_map(CoreMessage::as_get);
        for get in gets() {
            self.host.prefetch_slot(get.shard, get.hash);
        }
        for get in gets() {
            self.host.prefetch_record(get.shard, get.hash);
        }
        for message in messages {
            match message {
                CoreMessage::Request(request) => self.execute_forwarded(&request, &bytes),
                CoreMessage::Response(response) => {
                    self.answers.outboxes[from.index()].answered();
                    self.pass_response(&response, &mut bytes);
                }
                CoreMessage::AskClock(gather) => {
                    let is_disk_full = self.host.log().is_disk_full();
                    let clock = CoreMessage::Clock { gather, is_disk_full };
                    self.answers.outboxes[from.index()].push(clock);
                }
                CoreMessage::Clock { gather, is_disk_full } => self.clock_heard(gather, is_disk_full),
                CoreMessage::AskScan(gather, snapshot, range) => {
                    self.begin_scan(from, gather, snapshot, *range);
                }
                CoreMessage::Scan(gather, page) => self.page_heard(gather, page.map(|page| *page)),
                CoreMessage::AskValues(gather, body) => {
                    let asker = Asker { core: from, gather };
                    if self.answers.outboxes[from.index()].is_full() {
                        self.deliver_values(ValuesFor::Gateway(asker), Err(Refusal::Busy));
                    } else {
                        self.begin_values(ValuesFor::Gateway(asker), &bytes[body], &Fetched::default());
                    }
                }
                CoreMessage::Values(gather, part) => self.values_heard(gather, part.map(|part| *part)),
                CoreMessage::AskPuts(ticket, body) => self.execute_puts(ticket, &bytes[body]),
                CoreMessage::AskDeleteRange(ticket, body) => self.execute_delete_range(ticket, &bytes[body]),
                CoreMessage::Part(gather, shard, part) => self.part_heard(gather, shard, part),
                CoreMessage::AskCheckpoint(gather, id, snapshot) => {
                    self.begin_checkpoint(from, gather, id, snapshot);
                }
                CoreMessage::Checkpoint(gather, part) => self.checkpoint_heard(gather, *part),
                CoreMessage::AskRelease(gather, id) => self.begin_release(from, gather, id),
                CoreMessage::Released(gather) => self.released_heard(gather),
                CoreMessage::AskStatus(gather) => {
                    let status = Box::new(self.status());
                    self.answers.outboxes[from.index()].push(CoreMessage::Status(gather, status));
                }
                CoreMessage::Status(gather, status) => self.status_heard(gather, *status),
                CoreMessage::AskReport(gather) => {
                    let report = Box::new(self.report());
                    self.answers.outboxes[from.index()].push(CoreMessage::Report(gather, report));
                }
                CoreMessage::Report(gather, report) => self.report_heard(gather, *report),
                CoreMessage::HandOver(hand_over) => {
                    self.arrivals.push(*hand_over);
                    self.control_work.notify();
                }
                CoreMessage::Start(message) => {
                    self.start_messages.push((from, *message));
                    self.control_work.notify();
                }
            }
        }
        self.finish_turn();
    }

    /// Moves the clock to a timestamp that a client has brought.
    ///
    /// # Errors
    /// When it is further ahead than any honest clock, and no core of this node has told it.
    pub(super) fn observe_client(&mut self, timestamp: Timestamp) -> Result<(), TimestampAhead> {
        let observed = self.host.observe_client(timestamp);
        if observed.is_err() && self.told.covers(timestamp) {
            self.host.hlc().observe(timestamp);
            return Ok(());
        }
        observed
    }

    /// Ends a turn that may have completed something: reads that became ready, parts of multi-puts, a drain that waits.
    pub(super) fn finish_turn(&mut self) {
        self.run_ready_reads();
        self.take_put_parts();
        self.answers.count_answered();
        // The answers go out after this.
        self.told.note_clock(self.env.core, self.host.clock());
        if self.is_draining {
            self.quiet.notify();
        }
    }

    /// Tells the other cores how much this one has in tables; how much all have.
    pub(super) fn tell_table_bytes(&self) -> u64 {
        self.told.note_table_bytes(self.env.core, self.host.table_bytes());
        self.told.table_bytes()
    }

    /// True when no request of a client is under way on this core, as gateway or owner, and no answer unsent.
    pub(super) fn is_quiet(&self) -> bool {
        // After a failed log nothing in flight will ever end.
        (self.host.log().has_failed() || self.host.statistics().in_flight == 0)
            && self.answers.pending_reads.is_empty()
            && self.answers.programs.is_empty()
            && self.fetches == 0
            && self.gathers.is_empty()
            && self.answers.connections.requests_in_flight() == 0
            && self.answers.connections.all_sent()
    }

    fn batch_durable(&mut self, batch: &DurableBatch<'_>) {
        self.begin_turn();
        self.answers.timestamp = self.host.hlc().peek();
        self.answers.is_log_turn = true;
        self.host.batch_durable(batch, &mut self.answers);
        self.finish_turn();
        self.answers.is_log_turn = false;
        let apply_ns = self.env.clock.monotonic().0.saturating_sub(self.answers.turn_ns);
        self.answers.counters.stage(Stage::Apply, apply_ns);
    }

    fn log_failed(&mut self) {
        let tickets = self.host.take_tickets();
        for ticket in tickets {
            self.refuse(ticket, Refusal::CoreFailed);
        }
        self.fail_reads(Refusal::CoreFailed);
        self.finish_turn();
    }
}

/// The log's way back into the core.
pub(super) struct CoreSink {
    /// The core owns its log, so not the other way round.
    pub(super) core: Weak<RefCell<Core>>,
    pub(super) failed: LogFailedHandler,
    /// Raised with every durable batch, and when the log fails: the start waits for the first ones.
    pub(super) progress: Rc<Notify>,
}

impl DurableSink for CoreSink {
    fn batch_durable(&self, batch: &DurableBatch<'_>) {
        if let Some(core) = self.core.upgrade() {
            core.borrow_mut().batch_durable(batch);
        }
        self.progress.notify();
    }

    fn log_failed(&self, error: &LogError) {
        (self.failed)(error);
        if let Some(core) = self.core.upgrade() {
            core.borrow_mut().log_failed();
        }
        self.progress.notify();
    }
}

/// Takes in the batches of all other cores, for ever. One such task per core.
pub async fn receive_batches(core: SharedCore, env: Env<CoreBatch>) {
    let mut batches = Vec::new();
    loop {
        poll_fn(|cx| {
            env.mesh
                .poll_drain(cx, &mut |from, batch| batches.push((from, batch)))
        })
        .await;
        let mut core = core.borrow_mut();
        for (from, batch) in batches.drain(..) {
            core.receive(from, batch);
        }
    }
}
