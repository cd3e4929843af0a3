//! Processes that read, write and scan, and record what they were told.
//!
//! Each process has one operation at a time. Several share a [`Link`], so that their requests are pipelined and
//! meet each other in flight. After an unknown outcome the thread goes on under a new process number.

use core::time::Duration;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use ostrakon::env::Tasks;
use ostrakon::env::tasks::TaskFuture;
use ostrakon_wire::message::{Condition, ErrorCode, Request, ScanRequest};

use super::client::{CallError, Link, Page, Reply, within};
use super::plan::{Operation, OperationKind};
use super::record::Recorder;
use super::shared::{Asked, Shared};
use super::values;
use crate::check::history::{self, Action, Datum, KeyRange, Observed, Process, Step, StepAction, Version};
use crate::sim::HostId;

/// How long a process waits for an answer before it gives the connection up.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(4);
/// Between two tries to connect, or after a refusal that may pass.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// Pages of one scan, at most.
const SCAN_PAGES_MAX: u32 = 200;

/// Connections of a client, to two cores where there are as many.
const LINKS: usize = 2;

/// Two connections that the processes of one client share, each made again when it is lost.
pub struct Client {
    shared: Rc<Shared>,
    host: HostId,
    tasks: Rc<dyn Tasks>,
    core: u16,
    links: [RefCell<Option<Rc<Link>>>; LINKS],
    is_connecting: [Cell<bool>; LINKS],
    /// The highest timestamp seen on any link.
    timestamp: Cell<u64>,
    calls: Cell<u64>,
}

impl Client {
    /// A client on `host` that asks for `core`, or as many cores from there as the node has, and for the next one.
    pub fn new(shared: &Rc<Shared>, host: HostId, core: u16) -> Rc<Client> {
        Rc::new(Client {
            shared: Rc::clone(shared),
            host,
            tasks: shared.world.client_env(host).tasks,
            core,
            links: Default::default(),
            is_connecting: Default::default(),
            timestamp: Cell::new(0),
            calls: Cell::new(0),
        })
    }

    /// Where its tasks run.
    pub fn host(&self) -> HostId {
        self.host
    }

    fn sleep(&self, duration: Duration) -> TaskFuture {
        self.tasks.sleep(duration)
    }

    /// A link that works, as far as anyone knows. Waits for as long as there is none.
    pub async fn link(&self, which: usize) -> Rc<Link> {
        loop {
            if let Some(link) = self.links[which].borrow().as_ref().filter(|link| !link.is_lost()) {
                return Rc::clone(link);
            }
            if !self.is_connecting[which].replace(true) {
                let link = self.connect(which).await;
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
        for link in self.links.iter().filter_map(RefCell::take) {
            link.lose("given up");
        }
        self.timestamp.set(0);
    }

    async fn connect(&self, which: usize) -> Option<Rc<Link>> {
        if let Some(lost) = self.links[which].take() {
            self.timestamp.set(self.timestamp.get().max(lost.timestamp()));
        }
        let address = self.shared.address.get()?;
        let core = Some((self.core + which as u16) % self.shared.cores.get());
        let connecting = Link::connect(&self.shared.world, self.host, address, core);
        let link = within(connecting, self.sleep(ANSWER_TIMEOUT)).await?.ok()?;
        link.observe(self.timestamp.get());
        if let Ok(Reply::Topology(topology)) = link.call(&Request::Topology, self.sleep(ANSWER_TIMEOUT)).await
        {
            *self.shared.owners.borrow_mut() = topology.owners;
        }
        Some(link)
    }

    /// Which link a request goes to. Two of three requests for a key go to a core that does not own it.
    fn choose(&self, request: &Request<'_>) -> (usize, Option<u16>) {
        let call = self.calls.get();
        self.calls.set(call + 1);
        let any = call as usize % LINKS;
        let (Request::Get { key } | Request::Put { key, .. } | Request::Delete { key, .. }) = request else {
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

    /// A refusal must have its reason.
    fn refused(&self, code: ErrorCode, message: &str, asked: &Asked) {
        let shared = &self.shared;
        *shared
            .refusals
            .borrow_mut()
            .entry(format!("{code:?}"))
            .or_default() += 1;
        if code == ErrorCode::TimestampAhead {
            self.disconnect();
        }
        let has_reason = shared.may_refuse(code, asked);
        if !has_reason {
            let sentence = format!("refused without a reason: {code:?}, {message}");
            shared.recorder.violation(sentence);
        }
    }

    /// One request, on whatever link there is.
    async fn call(&self, request: &Request<'_>) -> Result<Reply, CallError> {
        let (which, owner) = self.choose(request);
        let link = self.link(which).await;
        let shared = &self.shared;
        if let Some(owner) = owner {
            shared.requests.set(shared.requests.get() + 1);
            let is_cross_core = u64::from(owner != link.server().core);
            shared.cross_core.set(shared.cross_core.get() + is_cross_core);
        }
        let asked = Asked::now(&shared.world, &shared.clocks, request, link.timestamp());
        let reply = link.call(request, self.sleep(ANSWER_TIMEOUT)).await;
        match &reply {
            Ok(Reply::Refused { code, message }) => self.refused(*code, message, &asked),
            Ok(other) if !answers(request, other) => {
                let sentence = format!("{request:?} was answered with {other:?}");
                shared.recorder.violation(sentence);
            }
            Ok(_) => shared.clocks.answered(&asked, link.timestamp()),
            Err(_) => {}
        }
        reply
    }
}

/// True if the reply is of the kind that the request asks for.
fn answers(request: &Request<'_>, reply: &Reply) -> bool {
    match request {
        Request::Get { .. } => matches!(reply, Reply::Get(_)),
        Request::Put { .. } | Request::Delete { .. } => matches!(reply, Reply::Write { .. }),
        Request::Scan(_) => matches!(reply, Reply::Scan(_)),
        Request::Topology => matches!(reply, Reply::Topology(_)),
        _ => matches!(reply, Reply::Other),
    }
}

/// What a write did, as far as its process heard.
enum Written {
    Done(u64),
    ConditionFailed(u64),
    NotDone(String),
    Unknown(String),
}

/// One thread of control.
pub struct Thread {
    client: Rc<Client>,
    process: Process,
    /// The newest version of each key that it has heard of.
    versions: BTreeMap<u32, u64>,
}

impl Thread {
    /// A thread that uses this client.
    pub fn new(client: &Rc<Client>) -> Thread {
        Thread {
            client: Rc::clone(client),
            process: client.shared.recorder.process(),
            versions: BTreeMap::new(),
        }
    }

    /// Carries out the operations, one after the other.
    pub async fn run(mut self, operations: Vec<Operation>) {
        for operation in operations {
            if operation.pause_ns > 0 {
                self.client.sleep(Duration::from_nanos(operation.pause_ns)).await;
            }
            self.perform(&operation).await;
        }
        let finished = &self.client.shared.finished;
        finished.set(finished.get() + 1);
    }

    /// Carries out one operation, whatever it comes to.
    pub async fn perform(&mut self, operation: &Operation) {
        // Not before there are connections: the call would be open for as long as the node is down.
        for which in 0..LINKS {
            self.client.link(which).await;
        }
        match operation.kind {
            OperationKind::Get => self.get(operation.key).await,
            OperationKind::Scan { keys } => self.scan(operation.key, keys).await,
            OperationKind::Status => self.look().await,
            _ => self.write(operation).await,
        }
    }

    fn recorder(&self) -> &Recorder {
        &self.client.shared.recorder
    }

    fn answered(&self) {
        let answered = &self.client.shared.answered;
        answered.set(answered.get() + 1);
    }

    /// Status, a sign of life, and the first keys without their values: nothing that the history tells of.
    async fn look(&mut self) {
        let keys = ScanRequest {
            limit: 3,
            keys_only: true,
            ..ScanRequest::ALL
        };
        let mut answers = 0;
        for request in [Request::Status, Request::Ping, Request::Scan(keys)] {
            match self.client.call(&request).await {
                Ok(Reply::Scan(page)) => {
                    answers += 1;
                    self.check_page(&page, &[], None, None);
                    if page.entries.len() > 3 || page.entries.iter().any(|(_, _, value)| !value.is_empty()) {
                        let sentence = format!("asked for three keys without values, got {page:?}");
                        self.recorder().violation(sentence);
                    }
                }
                Ok(Reply::Other) => answers += 1,
                _ => {}
            }
        }
        if answers == 3 {
            self.answered();
        }
    }

    async fn get(&mut self, number: u32) {
        let key = values::key(number);
        let called = Action::Read {
            key: Datum::from(key.as_slice()),
            value: None,
        };
        self.recorder()
            .invoke(self.process, &called, history::Condition::None);
        let reply = self.client.call(&Request::Get { key: &key }).await;
        let found = match reply {
            Ok(Reply::Get(found)) => found,
            other => return self.recorder().failed(self.process, &called, describe(&other)),
        };
        let (value, version) = match found {
            None => (None, 0),
            Some((version, value)) => (self.number(&key, &value), version),
        };
        self.versions.insert(number, version);
        let read = Action::Read {
            key: Datum::from(key.as_slice()),
            value,
        };
        self.recorder().ok(self.process, &read, Some(version));
        self.answered();
    }

    async fn write(&mut self, operation: &Operation) {
        let key = values::key(operation.key);
        let datum = Datum::from(key.as_slice());
        let known = self.versions.get(&operation.key).copied().unwrap_or(0);
        let condition = match operation.kind {
            OperationKind::PutIfAbsent => Condition::Absent,
            OperationKind::PutIfPresent => Condition::Present,
            OperationKind::PutIfVersion | OperationKind::DeleteIfVersion if known == 0 => Condition::Absent,
            OperationKind::PutIfVersion | OperationKind::DeleteIfVersion => Condition::Version(known),
            _ => Condition::None,
        };
        let is_delete = matches!(
            operation.kind,
            OperationKind::Delete | OperationKind::DeleteIfVersion
        );
        let bytes = values::value(operation.number, operation.value_bytes as usize);
        let (action, request) = if is_delete {
            let request = Request::delete(&key, condition);
            (Action::Delete { key: datum }, request)
        } else {
            let value = Datum::from(operation.number as i64);
            let request = Request::put(&key, &bytes, condition);
            (Action::Write { key: datum, value }, request)
        };
        self.recorder()
            .invoke(self.process, &action, in_history(condition));
        let reply = self.client.call(&request).await;
        match outcome(reply) {
            Written::Done(version) => {
                self.versions
                    .insert(operation.key, if is_delete { 0 } else { version });
                self.recorder().ok(self.process, &action, Some(version));
                self.answered();
            }
            Written::ConditionFailed(version) => {
                self.versions.insert(operation.key, version);
                self.recorder().refused(self.process, &action, version);
                self.answered();
            }
            Written::NotDone(reason) => self.recorder().failed(self.process, &action, reason),
            Written::Unknown(reason) => self.process = self.recorder().unknown(self.process, &action, reason),
        }
    }

    /// Reads a range of keys at one snapshot, page by page.
    async fn scan(&mut self, from: u32, keys: u32) {
        let shared = Rc::clone(&self.client.shared);
        let from = from as usize % shared.keys.len();
        let start = shared.keys[from].clone();
        let end = shared.keys.get(from + keys as usize).cloned();
        let range = KeyRange {
            start: Some(Datum::from(start.as_slice())),
            end: end.as_deref().map(Datum::from),
        };
        let in_range = shared.keys.iter().skip(from).take(keys as usize);
        let called = Action::Transaction {
            steps: Vec::new(),
            scan: Some(range.clone()),
        };
        self.recorder()
            .invoke(self.process, &called, history::Condition::None);
        match self.scan_pages(start, end.as_deref()).await {
            Err(reason) => self.recorder().failed(self.process, &called, reason),
            Ok(found) => {
                let steps = in_range.map(|key| self.seen(key, found.get(key))).collect();
                for key in found.keys().filter(|key| shared.keys.binary_search(key).is_err()) {
                    let key = String::from_utf8_lossy(key);
                    self.recorder()
                        .violation(format!("a scan returned the key {key:?}, which nobody wrote"));
                }
                let read = Action::Transaction {
                    steps,
                    scan: Some(range),
                };
                self.recorder().ok(self.process, &read, None);
                self.answered();
            }
        }
    }

    async fn scan_pages(
        &self,
        mut start: Vec<u8>,
        end: Option<&[u8]>,
    ) -> Result<BTreeMap<Vec<u8>, (u64, Vec<u8>)>, String> {
        let mut found: BTreeMap<Vec<u8>, (u64, Vec<u8>)> = BTreeMap::new();
        let mut snapshot = 0;
        for _ in 0..SCAN_PAGES_MAX {
            let request = ScanRequest {
                start: &start,
                end,
                // Small pages, so that scans have several.
                limit: 7,
                snapshot,
                ..ScanRequest::ALL
            };
            let page = match self.client.call(&Request::Scan(request)).await {
                Ok(Reply::Scan(page)) => page,
                other => return Err(describe(&other)),
            };
            self.check_page(&page, &start, end, found.keys().next_back());
            if (snapshot != 0 && page.snapshot != snapshot) || page.entries.len() > 7 {
                let sentence = format!("asked for 7 keys at snapshot {snapshot}, got {page:?}");
                self.recorder().violation(sentence);
            }
            snapshot = page.snapshot;
            let entries = page.entries.into_iter();
            found.extend(entries.map(|(key, version, value)| (key, (version, value))));
            match page.resume_key {
                None => return Ok(found),
                Some(key) => start = key,
            }
        }
        let sentence = format!("a scan did not end within {SCAN_PAGES_MAX} pages");
        self.recorder().violation(sentence.clone());
        Err(sentence)
    }

    /// The order of keys within a page and over pages, and that none lies outside.
    fn check_page(&self, page: &Page, start: &[u8], end: Option<&[u8]>, last: Option<&Vec<u8>>) {
        let mut before = last;
        for (key, version, _) in &page.entries {
            let is_after = before.is_none_or(|before| before < key);
            let is_inside = key.as_slice() >= start && end.is_none_or(|end| key.as_slice() < end);
            if !is_after || !is_inside || *version > page.snapshot {
                let key = String::from_utf8_lossy(key);
                self.recorder().violation(format!(
                    "a scan at snapshot {} returned {key:?} at version {version} out of order, range or snapshot",
                    page.snapshot
                ));
            }
            before = Some(key);
        }
    }

    fn seen(&self, key: &[u8], found: Option<&(u64, Vec<u8>)>) -> Step {
        let value = match found {
            None => Observed::Nothing,
            Some((_, value)) => self.number(key, value).map_or(Observed::Nothing, Observed::Value),
        };
        let mut step = Step::new(StepAction::Read {
            key: Datum::from(key),
            value,
        });
        step.version = found.map(|(version, _)| Version(*version));
        step
    }

    fn number(&self, key: &[u8], value: &[u8]) -> Option<Datum> {
        match values::number(value) {
            Ok(number) => Some(Datum::from(number as i64)),
            Err(damage) => {
                let key = String::from_utf8_lossy(key);
                self.recorder().violation(format!("key {key:?}: {damage}"));
                None
            }
        }
    }
}

fn outcome(reply: Result<Reply, CallError>) -> Written {
    match reply {
        Ok(Reply::Write {
            applied: true,
            version,
        }) => Written::Done(version),
        Ok(Reply::Write {
            applied: false,
            version,
        }) => Written::ConditionFailed(version),
        // The one refusal of a write that may come after it was begun: see the table of codes in docs/wire.md.
        Ok(Reply::Refused {
            code: ErrorCode::CoreFailed,
            message,
        }) => Written::Unknown(message),
        Err(CallError::Lost(reason)) => Written::Unknown(reason),
        other => Written::NotDone(describe(&other)),
    }
}

fn describe(reply: &Result<Reply, CallError>) -> String {
    match reply {
        Ok(Reply::Refused { code, .. }) => format!("{code:?}"),
        Ok(reply) => format!("an answer to something else: {reply:?}"),
        Err(CallError::NotSent(reason) | CallError::Lost(reason)) => reason.clone(),
    }
}

fn in_history(condition: Condition<'_>) -> history::Condition {
    match condition {
        Condition::None => history::Condition::None,
        Condition::Absent => history::Condition::Absent,
        Condition::Present => history::Condition::Present,
        Condition::Version(version) => history::Condition::Version(Version(version)),
        Condition::Value(value) => history::Condition::Value(Datum::from(value)),
    }
}
