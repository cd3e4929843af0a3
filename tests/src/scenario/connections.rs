//! A client's connections, and one request on one of them: sent, answered, and every answer held against what
//! `docs/wire.md` allows.

use core::time::Duration;
use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use ostrakon::env::Env;
use ostrakon::env::tasks::TaskFuture;
use ostrakon_wire::message::{ErrorCode, Request};

use super::client::{Answered, CallError, Link, Reply, within};
use super::plan::ClientPlan;
use super::session::{Sequence, Sessions};
use super::shared::{Asked, Shared};
use super::values;
use crate::sim::HostId;

/// How long a process waits for an answer before it gives the connection up.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(4);
/// Between two tries to connect, or after a refusal that may pass.
pub const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// Connections of a client, to two cores where there are as many.
pub const LINKS: usize = 2;
/// How much faster than any client's the clock of the node runs, at most, in parts per thousand; and by how much more a
/// short time may be rounded.
const FASTER_PER_THOUSAND: u64 = 5;
const ROUNDED_NS: u64 = 1_000_000;

/// What is asked for beside the request itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asking<'a> {
    /// The server is to say where the time goes.
    pub with_timings: bool,
    /// The request is given up as soon as it is sent.
    pub cancels: bool,
    /// For a write that may be sent several times.
    pub sequence: Option<&'a Sequence>,
}

/// An answer, and the bounds of the clock by which it was decided.
#[derive(Clone, Debug)]
pub struct Heard {
    /// The answer.
    pub reply: Reply,
    /// See [`crate::check::history::Event::clock`].
    pub clock: (u64, u64),
}

/// Two connections that the processes of one client share, each made again when it is lost.
pub struct Client {
    /// What all share.
    pub shared: Rc<Shared>,
    /// Numbers of its writes.
    pub sessions: Sessions,
    host: HostId,
    env: Env<()>,
    core: u16,
    is_program: bool,
    links: [RefCell<Option<Rc<Link>>>; LINKS],
    /// Further connections, each for one request.
    further: RefCell<Vec<Weak<Link>>>,
    is_connecting: [Cell<bool>; LINKS],
    /// The highest timestamp seen on any link, and when it was, on the client's own clock.
    seen: Cell<(u64, u64)>,
    calls: Cell<u64>,
}

impl Client {
    /// A client on `host` that asks for the core of its plan, or as many cores from there as the node has, and for the
    /// next one; or a program in the process of the node, whose threads are waited for on `host`.
    pub fn new(shared: &Rc<Shared>, host: HostId, plan: &ClientPlan) -> Rc<Client> {
        Rc::new(Client {
            shared: Rc::clone(shared),
            sessions: Sessions::new(u64::from(host.0)),
            host,
            env: shared.world.client_env(host),
            core: plan.core,
            is_program: plan.is_program,
            links: Default::default(),
            further: RefCell::default(),
            is_connecting: Default::default(),
            seen: Cell::new((0, 0)),
            calls: Cell::new(0),
        })
    }

    /// True for a program in the process of the node.
    pub fn is_program(&self) -> bool {
        self.is_program
    }

    /// Waits until the node can be asked, as far as anyone knows.
    pub async fn reach(&self) {
        if self.is_program {
            while self.shared.node_cores.borrow().is_none() {
                self.sleep(RETRY_PAUSE).await;
            }
            return;
        }
        for which in 0..LINKS {
            self.link(which).await;
        }
    }

    /// Where its tasks run.
    pub fn host(&self) -> HostId {
        self.host
    }

    /// A timer of this client.
    pub fn sleep(&self, duration: Duration) -> TaskFuture {
        self.env.tasks.sleep(duration)
    }

    /// The server's clock as this client knows it: the last it heard, and the time that has passed since.
    pub fn server_now(&self) -> u64 {
        for link in self.links.iter().filter_map(|link| link.borrow().clone()) {
            self.saw(link.timestamp());
        }
        let (timestamp, at_ns) = self.seen.get();
        let passed_us = self.now_ns().saturating_sub(at_ns) / 1_000;
        timestamp + (passed_us << 12)
    }

    fn saw(&self, timestamp: u64) {
        if timestamp > self.seen.get().0 {
            self.seen.set((timestamp, self.now_ns()));
        }
    }

    fn now_ns(&self) -> u64 {
        self.env.clock.monotonic().0
    }

    /// A link that works, as far as anyone knows. Waits for as long as there is none.
    pub async fn link(&self, which: usize) -> Rc<Link> {
        loop {
            if let Some(link) = self.links[which].borrow().as_ref().filter(|link| !link.is_lost()) {
                return Rc::clone(link);
            }
            if !self.is_connecting[which].replace(true) {
                let link = self.connect_again(which).await;
                self.is_connecting[which].set(false);
                if link.is_some() {
                    *self.links[which].borrow_mut() = link;
                    continue;
                }
            }
            self.sleep(RETRY_PAUSE).await;
        }
    }

    /// Gives its connections up, which may lead to a process that is no more, and forgets the timestamps that it has
    /// seen: it goes on as a new client would.
    pub fn disconnect(&self) {
        let further = self.further.take();
        let links = self.links.iter().filter_map(RefCell::take);
        for link in links.chain(further.iter().filter_map(Weak::upgrade)) {
            link.lose("given up");
        }
        self.seen.set((0, 0));
        self.sessions.forget();
    }

    async fn connect_again(&self, which: usize) -> Option<Rc<Link>> {
        if let Some(lost) = self.links[which].take() {
            self.saw(lost.timestamp());
        }
        let core = (self.core + which as u16) % self.shared.cores.get();
        let link = self.connect(core).await?;
        if let Ok(answered) = link.call(&Request::Topology, self.sleep(ANSWER_TIMEOUT)).await
            && let Reply::Topology(topology) = answered.reply
        {
            *self.shared.owners.borrow_mut() = topology.owners;
        }
        Some(link)
    }

    async fn connect(&self, core: u16) -> Option<Rc<Link>> {
        let address = self.shared.address.get()?;
        let connecting = Link::connect(&self.shared.world, self.host, address, Some(core));
        let link = within(connecting, self.sleep(ANSWER_TIMEOUT)).await?.ok()?;
        link.observe(self.seen.get().0);
        Some(link)
    }

    /// A further connection.
    pub async fn further_link(&self) -> Option<Rc<Link>> {
        let link = self.connect(self.core % self.shared.cores.get()).await?;
        let mut further = self.further.borrow_mut();
        further.retain(|link| link.strong_count() > 0);
        further.push(Rc::downgrade(&link));
        Some(link)
    }

    /// Which link a request goes to. Two of three requests for a key go to a core that does not own it.
    pub fn choose(&self, request: &Request<'_>) -> (usize, Option<u16>) {
        let call = self.calls.get();
        self.calls.set(call + 1);
        let any = call as usize % LINKS;
        let Some(key) = key_of(request) else {
            return (any, None);
        };
        let owner = self
            .shared
            .owners
            .borrow()
            .get(values::shard(key, self.shared.shards))
            .copied();
        let is_elsewhere = |which: &usize| {
            let link = self.links[*which].borrow();
            link.as_ref()
                .is_some_and(|link| Some(link.server().core) != owner)
        };
        let elsewhere = [any, LINKS - 1 - any].into_iter().find(is_elsewhere);
        (
            elsewhere.filter(|_| !call.is_multiple_of(3)).unwrap_or(any),
            owner,
        )
    }

    /// One request, on whatever link there is, for as long as this client has patience.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn call(&self, request: &Request<'_>, asking: Asking<'_>) -> Result<Heard, CallError> {
        if self.is_program {
            return self.read_as_program(request, asking).await;
        }
        let (which, owner) = self.choose(request);
        let link = self.link(which).await;
        self.count(owner, &link);
        within(self.ask(&link, request, asking), self.sleep(ANSWER_TIMEOUT))
            .await
            .unwrap_or_else(|| {
                link.lose("no answer in time");
                Err(CallError::Lost("no answer in time".into()))
            })
    }

    /// Counts a request for one key.
    pub fn count(&self, owner: Option<u16>, link: &Link) {
        let shared = &self.shared;
        if let Some(owner) = owner {
            shared.requests.set(shared.requests.get() + 1);
            let is_cross_core = u64::from(owner != link.server().core);
            shared.cross_core.set(shared.cross_core.get() + is_cross_core);
        }
    }

    /// One request on this link, for as long as it lives.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn ask(
        &self,
        link: &Link,
        request: &Request<'_>,
        asking: Asking<'_>,
    ) -> Result<Heard, CallError> {
        let shared = &self.shared;
        let from = link.timestamp();
        let asked = Asked::now(&shared.world, &shared.clocks, request, from);
        let begun_ns = shared.world.now_ns();
        let id = link.submit(request, asking.with_timings)?;
        let cancel = asking.cancels.then(|| {
            let request_id = id.number();
            link.submit(&Request::Cancel { request_id }, false)
        });
        let answered = link.answer(id).await?;
        let given_up = match cancel {
            Some(Ok(cancel)) => self.given_up(link.answer(cancel).await?.reply),
            _ => None,
        };
        self.judge_timings(&answered, asking, shared.world.now_ns() - begun_ns);
        let is_cancelled = matches!(
            answered.reply,
            Reply::Refused {
                code: ErrorCode::Cancelled,
                ..
            }
        );
        if given_up.is_some_and(|given_up| given_up != is_cancelled) || (is_cancelled && !asking.cancels) {
            let sentence = format!(
                "a cancel came to {given_up:?}, its request to {:?}",
                answered.reply
            );
            shared.recorder.violation(sentence);
        }
        match &answered.reply {
            _ if is_cancelled => shared.counts.cancelled.set(shared.counts.cancelled.get() + 1),
            Reply::Refused { code, message } => {
                self.refused(*code, message, &asked, answered.timestamp, asking.sequence);
            }
            other if !answers(request, other) => {
                let sentence = format!("{request:?} was answered with {other:?}");
                shared.recorder.violation(sentence);
            }
            other => {
                if asked.is_beyond_window() {
                    let sentence =
                        format!("beyond its session's window: {request:?} was answered with {other:?}");
                    shared.recorder.violation(sentence);
                }
                if let Reply::MultiPut(results) = other {
                    for code in results.iter().filter_map(|result| result.err()) {
                        let message = "an entry of a multi-put";
                        self.refused(code, message, &asked, answered.timestamp, asking.sequence);
                    }
                }
                if let Reply::DeleteRange {
                    refused: Some((code, _)),
                    ..
                } = other
                {
                    let message = "a shard of a delete-range";
                    self.refused(*code, message, &asked, answered.timestamp, asking.sequence);
                }
                shared.clocks.answered(&asked, answered.timestamp);
            }
        }
        Ok(Heard {
            reply: answered.reply,
            clock: (from, answered.timestamp),
        })
    }

    fn given_up(&self, reply: Reply) -> Option<bool> {
        match reply {
            Reply::Cancel(given_up) => Some(given_up),
            Reply::Refused { code, .. }
                if self.shared.may_refuse_read(code) || code == ErrorCode::ShuttingDown =>
            {
                None
            }
            other => {
                let sentence = format!("a cancel was answered with {other:?}");
                self.shared.recorder.violation(sentence);
                None
            }
        }
    }

    /// The stages of an answer make up its time, which is no longer than the client waited.
    fn judge_timings(&self, answered: &Answered, asking: Asking<'_>, waited_ns: u64) {
        let is_refused = matches!(answered.reply, Reply::Refused { .. });
        let complaint = match answered.timings {
            None => (asking.with_timings && !is_refused)
                .then(|| "no stage timings, although asked for".to_owned()),
            Some(timings) if !asking.with_timings => Some(format!("{timings:?}, and nobody asked")),
            Some(timings) => {
                let stages = [timings.queue_ns, timings.hop_ns, timings.log_ns, timings.apply_ns];
                let waited_max_ns = waited_ns + waited_ns * FASTER_PER_THOUSAND / 1_000 + ROUNDED_NS;
                let is_plausible =
                    stages.iter().sum::<u64>() == timings.total_ns && timings.total_ns <= waited_max_ns;
                (!is_plausible).then(|| format!("{timings:?}, waited {waited_ns} ns"))
            }
        };
        if let Some(complaint) = complaint {
            let sentence = format!("{:?} came with {complaint}", answered.reply);
            self.shared.recorder.violation(sentence);
        }
    }

    /// A refusal must have its reason.
    pub(super) fn refused(
        &self,
        code: ErrorCode,
        message: &str,
        asked: &Asked,
        timestamp: u64,
        sequence: Option<&Sequence>,
    ) {
        let shared = &self.shared;
        *shared
            .refusals
            .borrow_mut()
            .entry(format!("{code:?}"))
            .or_default() += 1;
        if code == ErrorCode::TimestampAhead {
            self.disconnect();
        }
        let has_reason = match (code, sequence) {
            (ErrorCode::NotANumber | ErrorCode::NumberOverflow, _) => asked.adds(),
            (ErrorCode::OutcomeUnknown, Some(sequence)) => {
                sequence.is_reported() || Shared::may_be_forgotten(sequence.first_sent(), timestamp)
            }
            (ErrorCode::SessionWindow, Some(_)) => asked.is_beyond_window(),
            (ErrorCode::SnapshotTooOld, _) => shared.may_be_too_old(asked, timestamp),
            (code, _) => shared.may_refuse(code, asked),
        };
        if !has_reason {
            let sentence = format!("refused without a reason: {code:?}, {message} ({asked:?})");
            shared.recorder.violation(sentence);
        }
    }
}

/// The key that a request is for, if it is for a single one.
fn key_of<'a>(request: &Request<'a>) -> Option<&'a [u8]> {
    match request {
        Request::Get { key }
        | Request::Put { key, .. }
        | Request::Delete { key, .. }
        | Request::Add { key, .. } => Some(key),
        Request::Batch { operations, .. } => Some(operations.at(0).key),
        _ => None,
    }
}

/// True if the reply is of the kind that the request asks for.
fn answers(request: &Request<'_>, reply: &Reply) -> bool {
    match request {
        Request::Get { .. } => matches!(reply, Reply::Get(_)),
        Request::Put { .. } | Request::Delete { .. } => matches!(reply, Reply::Write { .. }),
        Request::Add { .. } => matches!(reply, Reply::Add { .. }),
        Request::MultiGet { keys } => {
            matches!(reply, Reply::MultiGet(values) if values.len() == keys.len())
        }
        Request::MultiPut { entries, .. } => {
            matches!(reply, Reply::MultiPut(results) if results.len() == entries.len())
        }
        Request::Batch { .. } => matches!(reply, Reply::Batch(_)),
        Request::DeleteRange { .. } => matches!(reply, Reply::DeleteRange { .. }),
        Request::Scan(_) => matches!(reply, Reply::Scan(_)),
        Request::Topology => matches!(reply, Reply::Topology(_)),
        Request::Status | Request::Stats => matches!(reply, Reply::Json(_)),
        Request::Cancel { .. } => matches!(reply, Reply::Cancel(_)),
        Request::Checkpoint { .. } => matches!(reply, Reply::Checkpoint { .. }),
        Request::Hello(_) | Request::Ping => matches!(reply, Reply::Pong),
    }
}
