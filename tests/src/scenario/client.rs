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
use ostrakon_wire::message::{ErrorCode, Request, Response, TopologyReply};

use crate::sim::{HostId, World};

/// An answer that owns its bytes.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// Version and value of a key that is there.
    Get(Option<(u64, Vec<u8>)>),
    /// What became of a write.
    Write {
        /// Did its condition hold?
        applied: bool,
        /// Its own version, or the one that was found.
        version: u64,
    },
    /// One page.
    Scan(Page),
    /// Which core owns which shard.
    Topology(TopologyReply),
    /// Anything else that says yes.
    Other,
    /// The server refused.
    Refused {
        /// Why, for programs.
        code: ErrorCode,
        /// Why, for people.
        message: String,
    },
}

/// One page of a scan.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// The snapshot that was read.
    pub snapshot: u64,
    /// Key, version, value.
    pub entries: Vec<(Vec<u8>, u64, Vec<u8>)>,
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
    reply: Option<Reply>,
    waker: Option<Waker>,
}

/// One connection whose hello was answered.
pub struct Link {
    connection: Rc<dyn Connection>,
    protocol: RefCell<Protocol>,
    open: RefCell<BTreeMap<RequestId, Slot>>,
    lost: RefCell<Option<String>>,
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

    /// Sends a request and waits for its answer, for as long as `timer` allows; then the whole link is given up.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn call(&self, request: &Request<'_>, timer: TaskFuture) -> Result<Reply, CallError> {
        if let Some(reason) = self.lost.borrow().clone() {
            return Err(CallError::NotSent(reason));
        }
        let id = match self.protocol.borrow_mut().submit(request) {
            Ok(id) => id,
            Err(error @ SubmitError::Failed) => return Err(CallError::Lost(error.to_string())),
            Err(error) => return Err(CallError::NotSent(error.to_string())),
        };
        self.open.borrow_mut().insert(id, Slot::default());
        if let Some(pump) = self.pump.take() {
            pump.wake();
        }
        let answer = within(poll_fn(|cx| self.poll_answer(cx, id)), timer).await;
        self.open.borrow_mut().remove(&id);
        answer.unwrap_or_else(|| {
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

    fn poll_answer(&self, cx: &mut Context<'_>, id: RequestId) -> Poll<Result<Reply, CallError>> {
        let mut open = self.open.borrow_mut();
        let slot = open.get_mut(&id).expect("removed by its caller only");
        if let Some(reply) = slot.reply.take() {
            return Poll::Ready(Ok(reply));
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
        if protocol.bytes_to_send().is_empty() {
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
            match protocol.next_response() {
                Ok(Some((id, response))) => self.deliver(id, own(&response)),
                Ok(None) => break,
                Err(error) => return Err(error.to_string()),
            }
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

    fn deliver(&self, id: RequestId, reply: Reply) {
        // Whoever asked may have given up; the link is lost then, too.
        if let Some(slot) = self.open.borrow_mut().get_mut(&id) {
            slot.reply = Some(reply);
            if let Some(waker) = slot.waker.take() {
                waker.wake();
            }
        }
    }
}

fn own(response: &Response<'_>) -> Reply {
    match response {
        Response::Get { found } => Reply::Get(found.map(|found| (found.version, found.value.to_vec()))),
        Response::Write { applied, version } => Reply::Write {
            applied: *applied,
            version: *version,
        },
        Response::Scan(page) => Reply::Scan(Page {
            snapshot: page.snapshot,
            entries: page
                .entries
                .iter()
                .map(|entry| (entry.key.to_vec(), entry.version, entry.value.to_vec()))
                .collect(),
            resume_key: page.resume_key.map(<[u8]>::to_vec),
        }),
        Response::Topology(topology) => Reply::Topology(topology.clone()),
        Response::Error(error) => Reply::Refused {
            code: error.code,
            message: error.message.to_owned(),
        },
        _ => Reply::Other,
    }
}
