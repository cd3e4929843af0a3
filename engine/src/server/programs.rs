//! Requests of programs that run in the node's process, on its cores: plain calls where the answer is known, futures
//! where something has to be waited for. No frame is encoded, no connection is in the way.
//!
//! A [`CoreClient`] asks for keys of its own core. Who has a key of another core takes the request there
//! ([`ProgramJob`]).

use core::future::Future;
use core::task::{Context, Poll, Waker};
use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;

use ostrakon_core::hlc::{Timestamp, TimestampAhead};
use ostrakon_core::sessions::Answer;
use ostrakon_wire::frame::HEADER_BYTES;
use ostrakon_wire::message::{Encoder, ErrorCode, Found, Kind, Request, ScanEntry};
use ostrakon_wire::routing::ShardId;

use super::core::{Core, SharedCore};
use super::fetch::read_all;
use super::reads::{ReadKind, found};
use super::refusal::describe;
use crate::env::foreign::ForeignReceiver;
use crate::env::tasks::yield_now;
use crate::env::{CoreId, Priority};
use crate::limits::{FETCH_ROUNDS_MAX, FETCHES_MAX, PROGRAM_REQUESTS_MAX};
use crate::shard::fetched::{Fetched, Missing};
use crate::shard::pages::{Merge, merge_pages};
use crate::shard::replica::{Readiness, WriteOutcome};
use crate::shard::scan::{ScanPage, ScanRange};
use crate::shard::{Holder, KeyWrite, Refusal, Ticket, Write};
use crate::storage::store::Look;

/// What a thread outside sends to a core: to be called there once. It must not block, nor run for long.
pub type ProgramJob = Box<dyn FnOnce(&CoreClient) + Send>;

/// What a program waits for has come to this.
pub(super) enum Told {
    /// A write was decided.
    Written(Answer),
    /// A range was deleted, or it was not in all shards, which the sentence tells.
    RangeDeleted(Result<Timestamp, (ErrorCode, String)>),
    /// A scan has its page.
    Page(MergedPages),
    /// A key can be read.
    Readable,
    /// Nothing was done, or it is not known whether; see [`Refusal`].
    Refused(Refusal),
}

/// What the programs of a core wait for, by place.
#[derive(Default)]
pub(super) struct Programs {
    places: Vec<Place>,
    free: Vec<u64>,
}

enum Place {
    Free,
    /// Not decided. A program that was dropped left nothing to wake.
    Waits(Option<Waker>),
    /// Nobody asks any more.
    Left,
    Told(Told),
}

impl Programs {
    /// Does no program wait for anything?
    pub(super) fn is_empty(&self) -> bool {
        self.free.len() == self.places.len()
    }

    /// A place to wait at; none when too many are taken.
    fn take(&mut self) -> Option<u64> {
        let place = match self.free.pop() {
            Some(place) => place,
            None if self.places.len() >= PROGRAM_REQUESTS_MAX => return None,
            None => {
                self.places.push(Place::Free);
                self.places.len() as u64 - 1
            }
        };
        self.places[place as usize] = Place::Waits(None);
        Some(place)
    }

    fn give_back(&mut self, place: u64) {
        self.places[place as usize] = Place::Free;
        self.free.push(place);
    }

    /// Ends the wait at a place.
    pub(super) fn tell(&mut self, place: u64, told: Told) {
        match core::mem::replace(&mut self.places[place as usize], Place::Told(told)) {
            Place::Waits(waker) => {
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            Place::Left => self.give_back(place),
            Place::Free | Place::Told(_) => unreachable!("a request is answered once"),
        }
    }

    fn poll(&mut self, place: u64, context: &Context<'_>) -> Poll<Told> {
        let at = &mut self.places[place as usize];
        match at {
            Place::Told(_) => {}
            Place::Waits(Some(waker)) => {
                waker.clone_from(context.waker());
                return Poll::Pending;
            }
            Place::Waits(waker) => {
                *waker = Some(context.waker().clone());
                return Poll::Pending;
            }
            Place::Free | Place::Left => unreachable!("it is waited at"),
        }
        let Place::Told(told) = core::mem::replace(at, Place::Free) else {
            unreachable!("looked at above");
        };
        self.free.push(place);
        Poll::Ready(told)
    }

    /// Nobody waits at a place any more.
    fn leave(&mut self, place: u64) {
        match &mut self.places[place as usize] {
            at @ Place::Waits(_) => *at = Place::Left,
            Place::Told(_) => self.give_back(place),
            Place::Free | Place::Left => unreachable!("it is waited at"),
        }
    }
}

/// The wait of a program. Dropped before its end, it leaves the request to itself.
struct Waiting<'a> {
    core: &'a SharedCore,
    place: Option<u64>,
}

impl Future for Waiting<'_> {
    type Output = Told;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Told> {
        let place = self.place.expect("not polled after its end");
        let polled = self.core.borrow_mut().answers.programs.poll(place, context);
        if polled.is_ready() {
            self.place = None;
        }
        polled
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.core.borrow_mut().answers.programs.leave(place);
        }
    }
}

/// The pages that the cores have of a scan.
pub struct MergedPages {
    snapshot: Timestamp,
    merge: Merge,
    pages: Vec<ScanPage>,
}

impl MergedPages {
    pub(super) fn new(snapshot: Timestamp, pages: Vec<ScanPage>, range: &ScanRange) -> MergedPages {
        MergedPages {
            snapshot,
            merge: merge_pages(&pages, range),
            pages,
        }
    }

    /// The moment that it shows.
    pub fn snapshot(&self) -> Timestamp {
        self.snapshot
    }

    /// Their entries, in the order of the scan.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = ScanEntry<'_>> {
        self.merge.entries(&self.pages)
    }

    /// Where to go on: forward inclusive, in reverse exclusive.
    pub fn resume_key(&self) -> Option<&[u8]> {
        self.merge.resume_key.as_deref()
    }
}

/// Why a program's request was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unserved {
    /// A shard refused it.
    Refused(Refusal),
    /// The node is shutting down.
    ShuttingDown,
    /// The snapshot is ahead of all clocks.
    Ahead(TimestampAhead),
}

/// Why a range was not deleted everywhere.
pub enum Undeleted {
    /// Nothing was done.
    Nowhere(Unserved),
    /// It was not, or may not have been, in some shards; the sentence tells in how many.
    Somewhere(ErrorCode, String),
}

impl From<Unserved> for Undeleted {
    fn from(unserved: Unserved) -> Undeleted {
        Undeleted::Nowhere(unserved)
    }
}

impl Unserved {
    /// The reason and what to do; none if the node is shutting down.
    pub fn describe(&self) -> Option<(ErrorCode, String)> {
        match self {
            Unserved::ShuttingDown => None,
            Unserved::Ahead(ahead) => Some((ErrorCode::TimestampAhead, ahead.to_string())),
            Unserved::Refused(refusal) => {
                let (code, sentence, _) = describe(*refusal);
                Some((code, sentence.into_owned()))
            }
        }
    }
}

impl From<Refusal> for Unserved {
    fn from(refusal: Refusal) -> Unserved {
        Unserved::Refused(refusal)
    }
}

/// What a look at a key has come to.
enum Step<R> {
    Done(R),
    /// It has to be read first.
    Lacks(Missing),
    /// It can be read at this moment once the place was told so.
    Waits(u64, Timestamp),
}

/// What a write has come to at once.
enum Proposed {
    /// The place is told.
    Pending(u64),
    Decided(Answer),
    /// It has to come again with what this has.
    Lacks(Vec<Missing>),
}

/// One of a node's cores, for a program that runs on it.
#[derive(Clone)]
pub struct CoreClient {
    core: SharedCore,
}

impl CoreClient {
    /// For programs on this core.
    pub(super) fn new(core: SharedCore) -> CoreClient {
        CoreClient { core }
    }

    /// The core.
    pub fn id(&self) -> CoreId {
        self.core.borrow().id()
    }

    /// The core that owns a key.
    pub fn owner(&self, key: &[u8]) -> CoreId {
        self.core.borrow().place_of(key).owner
    }

    /// The shard of a key.
    pub fn shard(&self, key: &[u8]) -> ShardId {
        self.core.borrow().place_of(key).shard
    }

    /// Starts a task on this core.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let tasks = Rc::clone(&self.core.borrow().env.tasks);
        tasks.spawn(Priority::Foreground, Box::pin(task));
    }

    /// Lets other tasks of the core run, if this one has run for long enough.
    pub async fn yield_if_due(&self) {
        let is_due = self.core.borrow().env.tasks.should_yield();
        if is_due {
            yield_now().await;
        }
    }

    /// Reads the newest version of a key of this core, linearizably, and hands it to `look` where it lies.
    ///
    /// # Errors
    /// Why it can't be told.
    pub async fn read<R>(
        &self,
        key: &[u8],
        look: impl FnOnce(Option<Found<'_>>) -> R,
    ) -> Result<R, Unserved> {
        let mut look = Some(look);
        let mut fetched = Fetched::default();
        let mut readable_at = None;
        loop {
            match self.look_at(key, readable_at, &fetched, &mut look)? {
                Step::Done(outcome) => return Ok(outcome),
                Step::Lacks(missing) => fetched = self.fetch(&[missing], &fetched).await?,
                Step::Waits(place, at) => match self.told(place).await {
                    Told::Refused(refusal) => return Err(refusal.into()),
                    _ => readable_at = Some(at),
                },
            }
        }
    }

    fn look_at<R, F: FnOnce(Option<Found<'_>>) -> R>(
        &self,
        key: &[u8],
        readable_at: Option<Timestamp>,
        fetched: &Fetched,
        look: &mut Option<F>,
    ) -> Result<Step<R>, Unserved> {
        let mut core = self.core.borrow_mut();
        if core.is_draining {
            return Err(Unserved::ShuttingDown);
        }
        let place = core.place_of(key);
        let (shard, hash) = (place.shard, place.hash);
        let mut used = |found: Option<Found<'_>>| {
            let look = look.take().expect("a read is done once");
            Step::Done(look(found))
        };
        let snapshot = if let Some(at) = readable_at {
            at
        } else {
            core.answers.counters.gets += 1;
            match core.host.newest(shard, (hash, key), fetched)? {
                Look::Unknown(tables) => {
                    let missing = core.host.missing(shard, (hash, key), Timestamp::MAX, tables);
                    return Ok(Step::Lacks(missing));
                }
                look => match look.version() {
                    Some(version) if version.expiry.is_some() => {}
                    version => {
                        return Ok(used(
                            version.and_then(|version| Some(found(&version, version.value?))),
                        ));
                    }
                },
            }
            core.begin_turn();
            let now = core.host.read_clock();
            let read = core.next_read();
            match core.host.prepare_get((shard, hash), key, now, read, fetched)? {
                Readiness::Readable => now,
                Readiness::Lacks(missing) => return Ok(Step::Lacks(missing)),
                Readiness::Waits => {
                    let ticket = core.program_ticket(Kind::Get)?;
                    core.answers.wait(read, ReadKind::Program(ticket), 1);
                    return Ok(Step::Waits(ticket.request_id, now));
                }
            }
        };
        match core.host.at(shard, (hash, key), snapshot, fetched)? {
            Look::Unknown(tables) => {
                let missing = core.host.missing(shard, (hash, key), snapshot, tables);
                Ok(Step::Lacks(missing))
            }
            look => {
                let version = look.version();
                Ok(used(version.and_then(|version| {
                    Some(found(&version, version.live_value(snapshot)?))
                })))
            }
        }
    }

    /// Reads what a request lacks, beside what it had been given.
    async fn fetch(&self, missing: &[Missing], before: &Fetched) -> Result<Fetched, Unserved> {
        let under_way = UnderWay::begin(&self.core, before)?;
        let fetched = RefCell::new(Fetched::after(before));
        let outcome = read_all(missing, &fetched).await;
        drop(under_way);
        match outcome {
            Ok(()) => Ok(fetched.into_inner()),
            Err(error) => Err(Refusal::from(&error).into()),
        }
    }

    fn told(&self, place: u64) -> Waiting<'_> {
        Waiting {
            core: &self.core,
            place: Some(place),
        }
    }

    /// Writes to keys of one shard of this core: all or nothing. Resolves once it is durable and applied. Dropped
    /// before that, it goes on by itself.
    ///
    /// # Errors
    /// Why it was not carried out.
    pub async fn write(&self, kind: Kind, keys: &[KeyWrite<'_>], shard: ShardId) -> Result<Answer, Unserved> {
        let mut fetched = Fetched::default();
        loop {
            let place = match self.propose(kind, keys, shard, &fetched)? {
                Proposed::Decided(answer) => return Ok(answer),
                Proposed::Lacks(missing) => {
                    fetched = self.fetch(&missing, &fetched).await?;
                    continue;
                }
                Proposed::Pending(place) => place,
            };
            return match self.told(place).await {
                Told::Written(answer) => Ok(answer),
                Told::Refused(refusal) => Err(refusal.into()),
                _ => unreachable!("it is a write"),
            };
        }
    }

    fn propose(
        &self,
        kind: Kind,
        keys: &[KeyWrite<'_>],
        shard: ShardId,
        fetched: &Fetched,
    ) -> Result<Proposed, Unserved> {
        let mut core = self.core.borrow_mut();
        core.begin_turn();
        let ticket = core.program_ticket(kind)?;
        let write = Write {
            keys,
            retry: None,
            ticket,
        };
        let outcome = core.host.write(shard, &write, fetched);
        if let Ok(WriteOutcome::Pending | WriteOutcome::Decided(_)) = outcome {
            core.answers.counters.writes += 1;
        }
        if !matches!(outcome, Ok(WriteOutcome::Pending)) {
            core.answers.programs.give_back(ticket.request_id);
        }
        Ok(match outcome? {
            WriteOutcome::Pending => Proposed::Pending(ticket.request_id),
            WriteOutcome::Decided(answer) => Proposed::Decided(answer),
            WriteOutcome::Lacks(missing) => Proposed::Lacks(missing),
        })
    }

    /// Deletes all keys from `start` up to `end` in all shards of all cores; none is the end of all keys. In each shard
    /// it is all or nothing.
    ///
    /// # Errors
    /// Why it was not carried out in some shard, with what became of the others.
    pub async fn delete_range(&self, start: &[u8], end: Option<&[u8]>) -> Result<Timestamp, Undeleted> {
        let request = Request::DeleteRange {
            start,
            end,
            retry: None,
        };
        let mut frame = Vec::new();
        Encoder::new().request(&mut frame, 0, 0, &request);
        let place = {
            let mut core = self.core.borrow_mut();
            core.begin_turn();
            let ticket = core.program_ticket(Kind::DeleteRange)?;
            core.begin_delete_range(ticket, &frame[HEADER_BYTES..], None);
            core.finish_turn();
            ticket.request_id
        };
        match self.told(place).await {
            Told::RangeDeleted(Ok(version)) => Ok(version),
            Told::RangeDeleted(Err((code, message))) => Err(Undeleted::Somewhere(code, message)),
            Told::Refused(refusal) => Err(Unserved::from(refusal).into()),
            _ => unreachable!("it is the deletion of a range"),
        }
    }

    /// A page of a scan over the keys of all cores, at a snapshot of before or at one of now, at which everything that
    /// was acknowledged before is there.
    ///
    /// # Errors
    /// Why it was not carried out.
    pub async fn page(&self, range: ScanRange, snapshot: Option<Timestamp>) -> Result<MergedPages, Unserved> {
        let place = {
            let mut core = self.core.borrow_mut();
            core.begin_turn();
            if let Some(snapshot) = snapshot {
                core.observe_client(snapshot).map_err(Unserved::Ahead)?;
            }
            let ticket = core.program_ticket(Kind::Scan)?;
            core.ask_range(ticket, snapshot, range);
            core.finish_turn();
            ticket.request_id
        };
        match self.told(place).await {
            Told::Page(page) => Ok(page),
            Told::Refused(refusal) => Err(refusal.into()),
            _ => unreachable!("it is a scan"),
        }
    }
}

impl Core {
    /// A ticket for a program's request, with a place to wait at.
    fn program_ticket(&mut self, kind: Kind) -> Result<Ticket, Unserved> {
        if self.is_draining {
            return Err(Unserved::ShuttingDown);
        }
        let place = self.answers.programs.take().ok_or(Refusal::Busy)?;
        let now_ns = self.answers.turn_ns;
        Ok(Ticket {
            gateway: self.id(),
            kind,
            is_timed: false,
            holder: Holder::Program,
            connection: u64::MAX,
            request_id: place,
            received_ns: now_ns,
            decoded_ns: now_ns,
            executed_ns: now_ns,
        })
    }
}

/// A read from tables, counted as long as it goes on.
struct UnderWay<'a>(&'a SharedCore);

impl UnderWay<'_> {
    fn begin<'a>(core: &'a SharedCore, before: &Fetched) -> Result<UnderWay<'a>, Refusal> {
        let mut state = core.borrow_mut();
        // A flush came in between, again and again.
        let is_futile = before.rounds() >= FETCH_ROUNDS_MAX;
        if state.fetches >= FETCHES_MAX || is_futile {
            return Err(Refusal::Busy);
        }
        state.fetches += 1;
        Ok(UnderWay(core))
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut core = self.0.borrow_mut();
        core.fetches -= 1;
        if core.is_draining {
            core.quiet.notify();
        }
    }
}

/// Calls what threads outside send, for ever.
pub(super) async fn run_jobs(client: CoreClient, mut jobs: ForeignReceiver<ProgramJob>) {
    loop {
        let job = jobs.recv().await;
        job(&client);
        client.yield_if_due().await;
    }
}

/// Polls a future once.
///
/// # Errors
/// The future itself, if it has not ended.
pub fn poll_at_once<F: Future>(mut future: Pin<Box<F>>) -> Result<F::Output, Pin<Box<F>>> {
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Ok(output),
        Poll::Pending => Err(future),
    }
}
