//! Programs in the process of the node: their requests go to its cores as [`ostrakon::Engine`] sends them, without a
//! network ([`ostrakon::server::programs`]).
//!
//! 1. A thread of such a client sends a job to the core that owns the key, or to any core for a range. The core calls
//!    it once; what has to wait becomes a task of that core.
//! 2. The answer comes back at once. It carries no timestamp: of the clock by which it was decided the program knows
//!    what the wall clock showed when it asked.
//! 3. A process that ends takes its jobs and tasks along. What was under way may have been done, and nobody will tell.
//! 4. A program may drop what it waits for. A write goes on without it.

use core::cell::Cell;
use std::sync::Arc;

use ostrakon::env::CoreId;
use ostrakon::env::foreign::ForeignSender;
use ostrakon::server::core::Core;
use ostrakon::server::programs::{CoreClient, ProgramJob, Undeleted, Unserved, poll_at_once};
use ostrakon::shard;
use ostrakon::shard::host::memtable_hash;
use ostrakon::shard::scan::ScanRange;
use ostrakon_core::hlc::Timestamp;
use ostrakon_core::sessions::{Answer, Failure};
use ostrakon_wire::message::{BatchReply, ErrorCode, Kind, Request};
use tokio::sync::oneshot;

use super::client::{CallError, Page, Reply, Value, within};
use super::connections::{ANSWER_TIMEOUT, Asking, Client, Heard, RETRY_PAUSE};
use super::shared::Asked;
use super::values;
use super::writes::{Change, Form, Write};

/// How programs reach the cores of the node that serves.
pub struct NodeCores {
    jobs: Vec<ForeignSender<ProgramJob>>,
    /// By shard.
    owners: Arc<[CoreId]>,
    /// Requests for no key in particular.
    turns: Cell<usize>,
}

/// What a program asks for, with bytes of its own: it may go to another core.
enum Wish {
    Get(Vec<u8>),
    Page(ScanRange, Option<Timestamp>),
    Write(Write),
}

impl NodeCores {
    /// The cores that take these jobs.
    pub fn new(jobs: Vec<ForeignSender<ProgramJob>>, owners: Arc<[CoreId]>) -> NodeCores {
        NodeCores {
            jobs,
            owners,
            turns: Cell::new(0),
        }
    }

    /// Sends a wish to the core that it belongs to. One that gives up does not wait.
    fn send(&self, wish: Wish, gives_up: bool) -> Result<oneshot::Receiver<Reply>, CallError> {
        let core = match wish.key() {
            Some(key) => self.owners[values::shard(key, self.owners.len() as u32)].index(),
            None => self.turns.replace(self.turns.get() + 1) % self.jobs.len(),
        };
        let (answer, answered) = oneshot::channel();
        let job: ProgramJob = Box::new(move |core: &CoreClient| {
            let carried_out = Box::pin(carry_out(core.clone(), wish));
            match poll_at_once(carried_out) {
                Ok(reply) => drop(answer.send(reply)),
                Err(_) if gives_up => {}
                Err(waits) => core.spawn(async move { drop(answer.send(waits.await)) }),
            }
        });
        match self.jobs[core].send(job) {
            Ok(()) => Ok(answered),
            Err(_) => Err(CallError::NotSent("the core has ended".to_owned())),
        }
    }
}

impl Wish {
    /// A key of the core that it has to be asked of.
    fn key(&self) -> Option<&[u8]> {
        match self {
            Wish::Get(key) => Some(key),
            Wish::Page(..) => None,
            Wish::Write(write) if write.form == Form::DeleteRange => None,
            Wish::Write(write) => Some(&write.keys[0].key),
        }
    }
}

/// Carries out a wish, on the core that it belongs to.
async fn carry_out(core: CoreClient, wish: Wish) -> Reply {
    if let Some(key) = wish.key() {
        assert_eq!(
            core.owner(key),
            core.id(),
            "the node has told who owns which shard"
        );
    }
    match wish {
        Wish::Get(key) => match core.read(&key, |found| found.map(Value::from)).await {
            Ok(found) => Reply::Get(found),
            Err(unserved) => refused(&unserved),
        },
        Wish::Page(range, snapshot) => page(&core, range, snapshot).await,
        Wish::Write(write) if write.form == Form::DeleteRange => {
            let (start, end) = &write.range;
            match core.delete_range(start, end.as_deref()).await {
                Ok(version) => Reply::DeleteRange {
                    version: version.0,
                    refused: None,
                },
                Err(Undeleted::Nowhere(unserved)) => refused(&unserved),
                Err(Undeleted::Somewhere(reason, _)) => Reply::DeleteRange {
                    version: 0,
                    refused: Some((reason, true)),
                },
            }
        }
        Wish::Write(write) => change(&core, &write).await,
    }
}

async fn page(core: &CoreClient, range: ScanRange, snapshot: Option<Timestamp>) -> Reply {
    let pages = match core.page(range, snapshot).await {
        Ok(pages) => pages,
        Err(unserved) => return refused(&unserved),
    };
    let entries = pages.entries().map(|entry| {
        let value = Value {
            version: entry.version,
            expires: entry.expires,
            bytes: entry.value.to_vec(),
        };
        (entry.key.to_vec(), value)
    });
    Reply::Scan(Page {
        snapshot: pages.snapshot().0,
        entries: entries.collect(),
        resume_key: pages.resume_key().map(<[u8]>::to_vec),
    })
}

/// A write of one key, or a batch.
async fn change(core: &CoreClient, write: &Write) -> Reply {
    let operations: Vec<_> = write
        .keys
        .iter()
        .map(super::writes::KeyWrite::operation)
        .collect();
    let keys: Vec<shard::KeyWrite<'_>> = operations
        .iter()
        .map(|operation| shard::KeyWrite {
            hash: memtable_hash(operation.key),
            key: operation.key,
            action: operation.action,
            condition: operation.condition,
        })
        .collect();
    let adds = matches!(write.keys[0].change, Change::Add(_));
    let kind = match (write.form, &write.keys[0].change) {
        (Form::Single, Change::Put(_)) => Kind::Put,
        (Form::Single, Change::Delete) => Kind::Delete,
        _ => Kind::Batch,
    };
    let answer = match core.write(kind, &keys, core.shard(keys[0].key)).await {
        Ok(answer) => answer,
        Err(unserved) => return refused(&unserved),
    };
    let failed = |code: ErrorCode| Reply::Refused {
        code,
        message: "as a program was told".to_owned(),
    };
    match (answer, write.form) {
        (Answer::Applied { version, numbers }, Form::Single) if adds => match numbers.as_slice() {
            [number] => Reply::Add {
                version: version.0,
                number: *number,
            },
            numbers => panic!("an add came to the sums {numbers:?}"),
        },
        (Answer::Applied { version, numbers }, Form::Single) if numbers.as_slice().is_empty() => {
            Reply::Write {
                applied: true,
                version: version.0,
            }
        }
        (Answer::Applied { version, numbers }, _) => Reply::Batch(BatchReply {
            applied: true,
            version: version.0,
            failed: 0,
            numbers: numbers.as_slice().to_vec(),
        }),
        (Answer::Failed(Failure::ConditionFailed { version, .. }), Form::Single) => Reply::Write {
            applied: false,
            version: version.0,
        },
        (Answer::Failed(Failure::ConditionFailed { version, operation }), _) => Reply::Batch(BatchReply {
            applied: false,
            version: version.0,
            failed: operation,
            numbers: Vec::new(),
        }),
        (Answer::Failed(Failure::NotANumber { .. }), _) => failed(ErrorCode::NotANumber),
        (Answer::Failed(Failure::NumberOverflow { .. }), _) => failed(ErrorCode::NumberOverflow),
    }
}

fn refused(unserved: &Unserved) -> Reply {
    let (code, message) = unserved
        .describe()
        .unwrap_or((ErrorCode::ShuttingDown, "the node is shutting down".to_owned()));
    Reply::Refused { code, message }
}

impl Client {
    /// A get or a page of a scan, as a program asks for it, for as long as it has patience.
    ///
    /// # Errors
    /// When there is no answer.
    pub(super) async fn read_as_program(
        &self,
        request: &Request<'_>,
        asking: Asking<'_>,
    ) -> Result<Heard, CallError> {
        let wish = match request {
            Request::Get { key } => Wish::Get(key.to_vec()),
            Request::Scan(scan) => {
                let snapshot = (scan.snapshot != 0).then_some(Timestamp(scan.snapshot));
                Wish::Page(Core::scan_range(scan), snapshot)
            }
            other => unreachable!("no program reads by {other:?}"),
        };
        let asked = self.ask_cores(wish, request, asking.cancels);
        within(asked, self.sleep(ANSWER_TIMEOUT))
            .await
            .unwrap_or_else(|| Err(CallError::Lost("no answer in time".to_owned())))
    }

    /// A write, as a program asks for it.
    ///
    /// # Errors
    /// When there is no answer.
    pub(super) async fn write_as_program(&self, write: &Write, gives_up: bool) -> Result<Heard, CallError> {
        let prepared = write.prepared(None);
        self.ask_cores(Wish::Write(write.clone()), &prepared.request(), gives_up)
            .await
    }

    async fn ask_cores(&self, wish: Wish, request: &Request<'_>, gives_up: bool) -> Result<Heard, CallError> {
        let shared = &self.shared;
        let (counts, clocks) = (&shared.counts, &shared.clocks);
        let asked = Asked::now(&shared.world, clocks, request, 0);
        let sent = match &*shared.node_cores.borrow() {
            Some(cores) => cores.send(wish, gives_up),
            None => Err(CallError::NotSent("no node serves".to_owned())),
        };
        let sent = match sent {
            Ok(sent) => sent,
            Err(error) => {
                self.sleep(RETRY_PAUSE).await;
                return Err(error);
            }
        };
        let Ok(reply) = sent.await else {
            let (count, reason) = if gives_up {
                (&counts.dropped_by_programs, "given up")
            } else {
                (&counts.cut_off, "the process has ended")
            };
            count.set(count.get() + 1);
            return Err(CallError::Lost(reason.to_owned()));
        };
        let version = match &reply {
            Reply::Write { version, .. }
            | Reply::Add { version, .. }
            | Reply::DeleteRange { version, .. } => *version,
            Reply::Batch(reply) => reply.version,
            Reply::Scan(page) => page.snapshot,
            _ => 0,
        };
        match &reply {
            // No clock comes along by which a snapshot could be judged.
            Reply::Refused { code, message } => {
                self.refused(*code, message, &asked, u64::MAX, None);
                self.sleep(RETRY_PAUSE).await;
            }
            Reply::DeleteRange {
                refused: Some((code, _)),
                ..
            } => self.refused(
                *code,
                "a shard of a program's delete-range",
                &asked,
                u64::MAX,
                None,
            ),
            _ => {
                clocks.answered(&asked, version);
                counts.by_programs.set(counts.by_programs.get() + 1);
            }
        }
        Ok(Heard {
            reply,
            clock: (asked.lowest_clock(&shared.world, clocks), u64::MAX),
        })
    }
}
