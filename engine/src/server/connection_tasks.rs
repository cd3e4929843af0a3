//! The two tasks of each client connection, and how one begins.
//!
//! The reader task takes bytes from the network and serves every whole frame in them at once; it stops while
//! the connection has too many unanswered requests or too many unsent bytes, so that a client which does not
//! read its answers fills its own socket and nothing else. The writer task sends the answers that the turn
//! has collected in one call. Neither ever waits for the other in the same `poll` (no select).

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;

use ostrakon_wire::message::{Encoder, ErrorCode};

use super::answer::Answers;
use super::connection::Overdue;
use super::core::{Core, SharedCore};
use super::frames::Served;
use super::message::{CoreBatch, CoreMessage, HandOver};
use super::status::counters::Reason;
use crate::env::local::Notify;
use crate::env::{Connection, CoreId, Env, Priority};
use crate::limits::FRAME_TIMEOUT_MS;

/// A send buffer that grew beyond this is given back once it is empty.
const OUT_KEPT_BYTES: usize = 16 << 10;

/// Takes a new connection in and starts its tasks; refuses it in words when there are too many.
pub(super) fn admit(core: &SharedCore, env: &Env<CoreBatch>, stream: Rc<dyn Connection>) -> Option<u64> {
    let now_ns = env.clock.monotonic().0;
    let added = {
        let Answers {
            connections,
            counters,
            ..
        } = &mut core.borrow_mut().answers;
        let added = connections.add(Rc::clone(&stream), now_ns);
        match added {
            Ok(_) => counters.connection_accepted(),
            Err(reason) => counters.connection_refused(reason),
        }
        added
    };
    let id = match added {
        Ok(id) => id,
        Err(reason) => {
            let message = if reason == Reason::PerAddress {
                "this core has as many connections from this address as it may; close some, or raise \
                 --max-connections-per-address"
            } else {
                "this core has as many connections as it may; close some, connect to another core, or raise \
                 --max-connections"
            };
            let mut out = Vec::new();
            Encoder::new().error(&mut out, 0, 0, ErrorCode::TooManyConnections, message, 1000);
            env.tasks
                .spawn(Priority::Foreground, Box::pin(refuse(stream, out)));
            return None;
        }
    };
    env.tasks.spawn(
        Priority::Foreground,
        Box::pin(write_answers(Rc::clone(core), env.clone(), id)),
    );
    env.tasks.spawn(
        Priority::Foreground,
        Box::pin(read_requests(Rc::clone(core), env.clone(), id)),
    );
    Some(id)
}

async fn refuse(stream: Rc<dyn Connection>, out: Vec<u8>) {
    // If it can't be told, it sees the end of the stream.
    let _ = poll_fn(|cx| stream.poll_send(cx, &out)).await;
    stream.shutdown();
}

/// Takes a connection in that another core handed over: answers its hello and serves what it sent since.
pub(super) fn admit_handed_over(core: &SharedCore, env: &Env<CoreBatch>, hand_over: HandOver) {
    // If the descriptor can't be registered here, the client sees the end of the stream and reconnects.
    let Ok(stream) = env.network.adopt(hand_over.connection) else {
        return;
    };
    let Some(id) = admit(core, env, stream) else {
        return;
    };
    let mut core = core.borrow_mut();
    core.answer_hello(id, hand_over.request_id);
    // What it may keep was kept by the core that it comes from; for one that is refused here the client reconnects.
    if !core.answers.connections.keep(id, hand_over.received) {
        core.answers.connections.remove(id);
    }
}

enum Next {
    Receive,
    WaitForRoom(Rc<Notify>),
    HandOver(CoreId, u64),
    End,
}

async fn read_requests(core: SharedCore, env: Env<CoreBatch>, id: u64) {
    let Some(stream) = core
        .borrow_mut()
        .answers
        .connections
        .get(id)
        .map(|found| Rc::clone(&found.stream))
    else {
        return;
    };
    // Bytes that a hand-over brought along come first.
    let mut next = after(&core, id, Served::Blocked);
    loop {
        match next {
            Next::End => break,
            Next::WaitForRoom(room) => {
                let has_room = core.borrow_mut().answers.connections.has_room(id);
                if !has_room {
                    room.notified().await;
                }
                let served = core.borrow_mut().serve_kept(id);
                next = after(&core, id, served);
            }
            Next::HandOver(to, request_id) => {
                hand_over(&core, id, to, request_id);
                return;
            }
            Next::Receive => {
                let served = RefCell::new(Served::All);
                let received = poll_fn(|cx| {
                    stream.poll_recv(cx, &mut |bytes| {
                        *served.borrow_mut() = core.borrow_mut().serve(id, bytes);
                    })
                })
                .await;
                next = match received {
                    Ok(0) | Err(_) => Next::End,
                    Ok(_) => after(&core, id, served.into_inner()),
                };
                if env.tasks.should_yield() {
                    crate::env::tasks::yield_now().await;
                }
            }
        }
    }
    let mut core = core.borrow_mut();
    if let Some(connection) = core.answers.connections.get(id) {
        connection.end();
    }
}

fn after(core: &SharedCore, id: u64, served: Served) -> Next {
    let mut core = core.borrow_mut();
    let Some(connection) = core.answers.connections.get(id) else {
        return Next::End;
    };
    match served {
        Served::All => Next::Receive,
        Served::Blocked => Next::WaitForRoom(Rc::clone(&connection.reader_room)),
        Served::HandOver(to, request_id) => Next::HandOver(to, request_id),
        Served::End => Next::End,
    }
}

fn hand_over(core: &SharedCore, id: u64, to: CoreId, request_id: u64) {
    let mut core = core.borrow_mut();
    let Answers {
        connections,
        outboxes,
        ..
    } = &mut core.answers;
    let Some(connection) = connections.get(id) else {
        return;
    };
    // When the descriptor can't be duplicated the client sees the end of the stream and reconnects.
    let detached = connection.stream.detach();
    if let Ok(detached) = detached {
        let received = connections.take_kept(id);
        let hand_over = HandOver {
            connection: detached,
            request_id,
            received,
        };
        outboxes[to.index()].push(CoreMessage::HandOver(Box::new(hand_over)));
    }
    connections.remove(id);
}

async fn write_answers(core: SharedCore, env: Env<CoreBatch>, id: u64) {
    let Some((stream, work)) = core
        .borrow_mut()
        .answers
        .connections
        .get(id)
        .map(|connection| (Rc::clone(&connection.stream), Rc::clone(&connection.writer_work)))
    else {
        return;
    };
    let mut sending = Vec::new();
    loop {
        {
            let mut core = core.borrow_mut();
            let now_ns = env.clock.monotonic().0;
            let connections = &mut core.answers.connections;
            match connections.get(id) {
                None => return,
                Some(connection) if connection.is_done() => break,
                Some(_) => connections.take_out(id, &mut sending, now_ns),
            }
        }
        if sending.is_empty() {
            work.notified().await;
            continue;
        }
        if !send_all(&core, &env, &*stream, (id, &sending)).await {
            break;
        }
        sending.clear();
        sending.shrink_to(OUT_KEPT_BYTES);
    }
    let mut core = core.borrow_mut();
    core.answers.connections.remove(id);
    core.finish_turn();
}

/// Sends all bytes; false if the connection is lost.
async fn send_all(
    core: &SharedCore,
    env: &Env<CoreBatch>,
    stream: &dyn Connection,
    (id, bytes): (u64, &[u8]),
) -> bool {
    let mut sent = 0;
    while sent < bytes.len() {
        match poll_fn(|cx| stream.poll_send(cx, &bytes[sent..])).await {
            Ok(0) | Err(_) => return false,
            Ok(count) => {
                sent += count;
                let now_ns = env.clock.monotonic().0;
                let mut core = core.borrow_mut();
                core.answers.counters.sent(count);
                core.answers.connections.sent(id, count, now_ns);
                core.finish_turn();
            }
        }
    }
    true
}

impl Core {
    /// Ends connections that took too long for something, and says so to those that may listen.
    pub(super) fn end_overdue(&mut self) {
        let now_ns = self.env.clock.monotonic().0;
        for (id, overdue) in self.answers.connections.overdue(now_ns) {
            let (reason, message) = match overdue {
                Overdue::Sending => {
                    self.answers.counters.connection_refused(Reason::SendTimeout);
                    self.answers.connections.remove(id);
                    continue;
                }
                Overdue::Hello => (Reason::HelloTimeout, "no hello came in time".to_owned()),
                Overdue::Idle => (
                    Reason::IdleTimeout,
                    "nothing was asked for so long as this node's idle time-out allows".to_owned(),
                ),
                Overdue::Frame => (
                    Reason::FrameTimeout,
                    format!("a frame was begun and not completed within {FRAME_TIMEOUT_MS} ms"),
                ),
            };
            self.answers.counters.connection_refused(reason);
            let message = format!("{message}; the connection is being closed");
            self.connection_error(id, 0, ErrorCode::IdleTimeout, &message);
            if let Some(connection) = self.answers.connections.get(id) {
                connection.end();
            }
        }
    }
}
