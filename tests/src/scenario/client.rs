//! A client in the simulator: the client library's state machine ([`ostrakon_client::Protocol`]) on simulated
//! connections.
//!
//! A [`Link`] is one connection, shared by several callers whose requests are pipelined on it. It never sends
//! anything twice. When it is lost, each call that is open ends with [`CallError::Lost`], and it depends on the
//! request whether its outcome is known; the caller makes another link.

use core::net::SocketAddr;
use core::task::{Context, Poll, Waker};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;

use ostrakon::env::Connection;
use ostrakon::env::tasks::TaskFuture;
use ostrakon_client::{Options, Protocol, RequestId, Server, SubmitError};
use ostrakon_wire::frame::StageTimings;
use ostrakon_wire::message::{
    BatchReply, ErrorCode, Found, MultiValue, Request, Response, ScanReply, TopologyReply,
};

use crate::sim::{HostId, World};

/// An answer, and what came with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Answered {
    /// What was answered.
    pub reply: Reply,
    /// The highest timestamp seen on the link by then: at or above the clock by which it was decided.
    pub timestamp: u64,
    /// Where the server's time went, if it was asked.
    pub timings: Option<StageTimings>,
}

/// An answer that owns its bytes.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// What is there, if anything.
    Get(Option<Value>),
    /// What became of a put or a delete.
    Write {
        /// Did its condition hold?
        applied: bool,
        /// Its own version, or the one that was found.
        version: u64,
    },
    /// What became of an add.
    Add {
        /// Its version.
        version: u64,
        /// The sum.
        number: i64,
    },
    /// What is there at each key; `None` where there was no room to say.
    MultiGet(Vec<Option<Option<Value>>>),
    /// Version of each entry, or why it was not written.
    MultiPut(Vec<Result<u64, ErrorCode>>),
    /// What became of a batch.
    Batch(BatchReply),
    /// What became of a delete-range.
    DeleteRange {
        /// The highest version that a shard gave it.
        version: u64,
        /// Why it was not applied in all shards, and whether it may have been in one.
        refused: Option<(ErrorCode, bool)>,
    },
    /// One page.
    Scan(Page),
    /// Was the request given up?
    Cancel(bool),
    /// How the node is.
    Json(String),
    /// A checkpoint that was made, at this timestamp and in this directory; or was released, without them.
    Checkpoint {
        /// All that was written at or below it is in the checkpoint.
        snapshot: u64,
        /// Where it is.
        directory: String,
    },
    /// Which core owns which shard.
    Topology(TopologyReply),
    /// A sign of life.
    Pong,
    /// The server refused.
    Refused {
        /// Why, for programs.
        code: ErrorCode,
        /// Why, for people.
        message: String,
    },
}

/// A value as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// The version.
    pub version: u64,
    /// The timestamp from which on the key is absent; 0 is never.
    pub expires: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// One page of a scan.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// The snapshot that was read.
    pub snapshot: u64,
    /// Keys and values in the order in which they came.
    pub entries: Vec<(Vec<u8>, Value)>,
    /// Where the next page starts.
    pub resume_key: Option<Vec<u8>>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError {
    /// The request did not go out.
    NotSent(String),
    /// The connection was lost, or given up after a time-out.
    Lost(String),
}

#[derive(Default)]
struct Slot {
    answered: Option<Answered>,
    waker: Option<Waker>,
}

/// One connection whose hello was answered.
pub struct Link {
    connection: Rc<dyn Connection>,
    protocol: RefCell<Protocol>,
    open: RefCell<BTreeMap<RequestId, Slot>>,
    lost: RefCell<Option<String>>,
    /// Nothing is sent until it is released.
    is_held: Cell<bool>,
    /// Of the task that moves the bytes.
    pump: Cell<Option<Waker>>,
    server: RefCell<Option<Server>>,
    greeted: Cell<Option<Waker>>,
}

/// Ends `future` when `timer` ends first.
pub async fn within<T>(future: impl Future<Output = T>, timer: TaskFuture) -> Option<T> {
    let (mut future, mut timer) = (pin!(future), timer);
    poll_fn(|cx| {
        if let Poll::Ready(value) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(value));
        }
        timer.as_mut().poll(cx).map(|()| None)
    })
    .await
}

impl Link {
    /// Connects from `host` and waits for the answer to the hello.
    ///
    /// # Errors
    /// What went wrong, in words.
    pub async fn connect(
        world: &World,
        host: HostId,
        address: SocketAddr,
        core: Option<u16>,
    ) -> Result<Rc<Link>, String> {
        let connection = world
            .connect(host, address)
            .await
            .map_err(|error| format!("can't connect: {error}"))?;
        let options = Options {
            core,
            client: "sim".to_owned(),
            ..Options::default()
        };
        let link = Rc::new(Link {
            connection,
            protocol: RefCell::new(Protocol::new(&options).map_err(|error| error.to_string())?),
            open: RefCell::default(),
            lost: RefCell::default(),
            is_held: Cell::default(),
            pump: Cell::default(),
            server: RefCell::default(),
            greeted: Cell::default(),
        });
        let pump = Rc::clone(&link);
        world.spawn(host, async move {
            poll_fn(|cx| pump.pump(cx)).await;
        });
        poll_fn(|cx| {
            if link.server.borrow().is_some() || link.lost.borrow().is_some() {
                return Poll::Ready(());
            }
            link.greeted.set(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
        let lost = link.lost.borrow().clone();
        lost.map_or(Ok(link), Err)
    }

    /// What the server said of itself.
    ///
    /// # Panics
    /// Never after [`Link::connect`].
    pub fn server(&self) -> Server {
        self.server.borrow().clone().expect("connected")
    }

    /// True once it is of no more use.
    pub fn is_lost(&self) -> bool {
        self.lost.borrow().is_some()
    }

    /// The highest timestamp seen on it.
    pub fn timestamp(&self) -> u64 {
        self.protocol.borrow().timestamp()
    }

    /// Passes on a timestamp seen elsewhere.
    pub fn observe(&self, timestamp: u64) {
        self.protocol.borrow_mut().observe_timestamp(timestamp);
    }

    /// Keeps back what is sent from now on, as a slow network would.
    pub fn hold(&self) {
        self.is_held.set(true);
    }

    /// Lets go of what was kept back.
    pub fn release(&self) {
        self.is_held.set(false);
        self.wake_pump();
    }

    /// Sends a request; [`Link::answer`] waits for what comes of it.
    ///
    /// # Errors
    /// When it does not go out.
    pub fn submit(&self, request: &Request<'_>, with_timings: bool) -> Result<RequestId, CallError> {
        if let Some(reason) = self.lost.borrow().clone() {
            return Err(CallError::NotSent(reason));
        }
        let mut protocol = self.protocol.borrow_mut();
        let submitted = if with_timings {
            protocol.submit_with_timings(request)
        } else {
            protocol.submit(request)
        };
        let id = match submitted {
            Ok(id) => id,
            Err(error @ SubmitError::Failed) => return Err(CallError::Lost(error.to_string())),
            Err(error) => return Err(CallError::NotSent(error.to_string())),
        };
        drop(protocol);
        self.open.borrow_mut().insert(id, Slot::default());
        self.wake_pump();
        Ok(id)
    }

    /// Waits for the answer to a request for as long as the link lives.
    ///
    /// # Errors
    /// When there is none.
    pub async fn answer(&self, id: RequestId) -> Result<Answered, CallError> {
        let answer = poll_fn(|cx| self.poll_answer(cx, id)).await;
        self.open.borrow_mut().remove(&id);
        answer
    }

    /// Sends a request and waits for its answer, for as long as `timer` allows; then the whole link is given up.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn call(&self, request: &Request<'_>, timer: TaskFuture) -> Result<Answered, CallError> {
        let id = self.submit(request, false)?;
        within(self.answer(id), timer).await.unwrap_or_else(|| {
            self.lose("no answer in time");
            Err(CallError::Lost("no answer in time".into()))
        })
    }

    /// Ends the connection.
    pub fn lose(&self, reason: &str) {
        if self.lost.borrow().is_some() {
            return;
        }
        *self.lost.borrow_mut() = Some(reason.to_owned());
        self.connection.shutdown();
        let wakers: Vec<Waker> = self
            .open
            .borrow_mut()
            .values_mut()
            .filter_map(|slot| slot.waker.take())
            .chain(self.greeted.take())
            .chain(self.pump.take())
            .collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    fn wake_pump(&self) {
        if let Some(pump) = self.pump.take() {
            pump.wake();
        }
    }

    fn poll_answer(&self, cx: &mut Context<'_>, id: RequestId) -> Poll<Result<Answered, CallError>> {
        let mut open = self.open.borrow_mut();
        let slot = open.get_mut(&id).expect("removed by its caller only");
        if let Some(answered) = slot.answered.take() {
            return Poll::Ready(Ok(answered));
        }
        if let Some(reason) = self.lost.borrow().clone() {
            return Poll::Ready(Err(CallError::Lost(reason)));
        }
        slot.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Moves bytes both ways until the link is lost.
    fn pump(&self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.is_lost() {
                return Poll::Ready(());
            }
            let sent = self.pump_out(cx);
            let received = self.pump_in(cx);
            match (sent, received) {
                (Err(reason), _) | (_, Err(reason)) => self.lose(&reason),
                (Ok(false), Ok(false)) => {
                    self.pump.set(Some(cx.waker().clone()));
                    return Poll::Pending;
                }
                _ => {}
            }
        }
    }

    fn pump_out(&self, cx: &mut Context<'_>) -> Result<bool, String> {
        let mut protocol = self.protocol.borrow_mut();
        if protocol.bytes_to_send().is_empty() || self.is_held.get() {
            return Ok(false);
        }
        match self.connection.poll_send(cx, protocol.bytes_to_send()) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(count)) => {
                protocol.sent(count);
                Ok(true)
            }
            Poll::Ready(Err(error)) => Err(format!("can't send: {error}")),
        }
    }

    fn pump_in(&self, cx: &mut Context<'_>) -> Result<bool, String> {
        let mut protocol = self.protocol.borrow_mut();
        match self
            .connection
            .poll_recv(cx, &mut |bytes| protocol.receive(bytes))
        {
            Poll::Pending => return Ok(false),
            Poll::Ready(Ok(0)) => return Err("the server has closed".to_owned()),
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(error)) => return Err(format!("can't receive: {error}")),
        }
        loop {
            let (id, reply) = match protocol.next_response() {
                Ok(Some((id, response))) => (id, own(&response)),
                Ok(None) => break,
                Err(error) => return Err(error.to_string()),
            };
            let answered = Answered {
                reply,
                timestamp: protocol.timestamp(),
                timings: protocol.timings(),
            };
            self.deliver(id, answered);
        }
        if self.server.borrow().is_none()
            && let Some(server) = protocol.server()
        {
            *self.server.borrow_mut() = Some(server.clone());
            if let Some(waiting) = self.greeted.take() {
                waiting.wake();
            }
        }
        Ok(true)
    }

    fn deliver(&self, id: RequestId, answered: Answered) {
        // Whoever asked may have given up; the link is lost then, too.
        if let Some(slot) = self.open.borrow_mut().get_mut(&id) {
            slot.answered = Some(answered);
            if let Some(waker) = slot.waker.take() {
                waker.wake();
            }
        }
    }
}

impl From<Found<'_>> for Value {
    fn from(found: Found<'_>) -> Value {
        Value {
            version: found.version,
            expires: found.expires,
            bytes: found.value.to_vec(),
        }
    }
}

fn own(response: &Response<'_>) -> Reply {
    match response {
        Response::Get { found } => Reply::Get(found.map(Value::from)),
        Response::Write { applied, version } => Reply::Write {
            applied: *applied,
            version: *version,
        },
        Response::Add { version, number } => Reply::Add {
            version: *version,
            number: *number,
        },
        Response::MultiGet { values } => Reply::MultiGet(values.iter().map(own_value).collect()),
        Response::MultiPut(reply) => {
            let code = |place: usize| reply.codes.get(place).copied().flatten();
            let versions = reply.versions.iter().enumerate();
            Reply::MultiPut(
                versions
                    .map(|(place, version)| code(place).map_or(Ok(*version), Err))
                    .collect(),
            )
        }
        Response::Batch(reply) => Reply::Batch(reply.clone()),
        Response::DeleteRange(reply) => Reply::DeleteRange {
            version: reply.version,
            refused: reply
                .error
                .map(|error| (error.code, reply.applied > 0 || reply.unknown > 0)),
        },
        Response::Scan(page) => Reply::Scan(own_page(page)),
        Response::Cancel { cancelled } => Reply::Cancel(*cancelled),
        Response::Checkpoint(checkpoint) => Reply::Checkpoint {
            snapshot: checkpoint.snapshot,
            directory: checkpoint.directory.to_owned(),
        },
        Response::Topology(topology) => Reply::Topology(topology.clone()),
        Response::Status { json } | Response::Stats { json } => Reply::Json((*json).to_owned()),
        Response::Error(error) => Reply::Refused {
            code: error.code,
            message: error.message.to_owned(),
        },
        Response::Hello(_) | Response::Pong => Reply::Pong,
    }
}

#[expect(
    clippy::option_option,
    reason = "left out, or what was found, which may be nothing"
)]
fn own_value(value: MultiValue<'_>) -> Option<Option<Value>> {
    match value {
        MultiValue::Found(found) => Some(Some(found.into())),
        MultiValue::NotFound => Some(None),
        MultiValue::Omitted => None,
    }
}

fn own_page(page: &ScanReply<'_>) -> Page {
    let own_entry = |entry: ostrakon_wire::message::ScanEntry<'_>| {
        let value = Value {
            version: entry.version,
            expires: entry.expires,
            bytes: entry.value.to_vec(),
        };
        (entry.key.to_vec(), value)
    };
    Page {
        snapshot: page.snapshot,
        entries: page.entries.iter().map(own_entry).collect(),
        resume_key: page.resume_key.map(<[u8]>::to_vec),
    }
}
