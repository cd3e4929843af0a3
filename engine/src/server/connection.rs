//! Client connections of one core: their buffers and bounds, and the two tasks that each has.
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
use super::core::SharedCore;
use super::frames::Served;
use super::message::{CoreMessage, HandOver};
use super::status::counters::Reason;
use crate::env::local::Notify;
use crate::env::{Connection, CoreId, Env, Priority};
use crate::limits::{
    CONNECTION_IN_FLIGHT_MAX, CONNECTION_OUT_BYTES_MAX, CONNECTIONS_PER_CORE_MAX, HELLO_TIMEOUT_MS,
};

/// Bits of a connection id that hold its slot; the rest counts up, so that no id is used twice.
const SLOT_BITS: u32 = 20;
/// A send buffer that grew beyond this is given back once it is empty.
const OUT_KEPT_BYTES: usize = 64 << 10;

const _: () = assert!(CONNECTIONS_PER_CORE_MAX <= 1 << SLOT_BITS);

/// One connection.
pub struct ClientConnection {
    id: u64,
    stream: Rc<dyn Connection>,
    /// Answers that the writer task has not taken yet.
    out: Vec<u8>,
    /// Bytes that the writer task has taken and not sent yet.
    sending_bytes: usize,
    /// Received bytes that are not served yet: a part of a frame, or whole ones while the reader is held.
    pub(super) received: Vec<u8>,
    in_flight: u32,
    /// When it was accepted; `None` once its hello is done.
    hello_since_ns: Option<u64>,
    /// The reader has ended: once everything is answered and sent, the connection goes.
    is_ending: bool,
    writer_work: Rc<Notify>,
    reader_room: Rc<Notify>,
}

impl ClientConnection {
    /// True when another request may be served.
    pub(super) fn has_room(&self) -> bool {
        self.in_flight < CONNECTION_IN_FLIGHT_MAX && self.unsent_bytes() < CONNECTION_OUT_BYTES_MAX
    }

    fn unsent_bytes(&self) -> usize {
        self.out.len() + self.sending_bytes
    }

    /// True once the hello was answered.
    pub(super) fn is_open(&self) -> bool {
        self.hello_since_ns.is_none()
    }

    /// The hello was answered.
    pub(super) fn open(&mut self) {
        self.hello_since_ns = None;
    }

    /// A request was taken from this connection.
    pub(super) fn begin_request(&mut self) {
        self.in_flight += 1;
    }

    /// The send buffer, for frames that answer no counted request.
    pub(super) fn out(&mut self) -> &mut Vec<u8> {
        self.writer_work.notify();
        &mut self.out
    }

    fn is_done(&self) -> bool {
        self.is_ending && self.in_flight == 0 && self.out.is_empty()
    }
}

/// The connections of a core.
#[derive(Default)]
pub struct Connections {
    slots: Vec<Option<Box<ClientConnection>>>,
    free: Vec<usize>,
    count: usize,
    next_generation: u64,
}

impl Connections {
    /// Connections at this moment.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Requests of all connections that are not answered.
    pub fn requests_in_flight(&self) -> u64 {
        self.slots
            .iter()
            .flatten()
            .map(|connection| u64::from(connection.in_flight))
            .sum()
    }

    /// True when every answer has been sent.
    pub(super) fn all_sent(&self) -> bool {
        self.slots
            .iter()
            .flatten()
            .all(|connection| connection.out.is_empty() && connection.sending_bytes == 0)
    }

    /// The connection of an id, if it is still there.
    pub(super) fn get(&mut self, id: u64) -> Option<&mut ClientConnection> {
        let slot = (id & ((1 << SLOT_BITS) - 1)) as usize;
        self.slots
            .get_mut(slot)?
            .as_deref_mut()
            .filter(|connection| connection.id == id)
    }

    /// True when a connection has more unsent bytes than it should.
    pub(super) fn is_full(&mut self, id: u64) -> bool {
        self.get(id)
            .is_some_and(|connection| connection.unsent_bytes() >= CONNECTION_OUT_BYTES_MAX)
    }

    /// One request of a connection is answered: its send buffer, if the client is still there.
    pub(super) fn answer(&mut self, id: u64) -> Option<&mut Vec<u8>> {
        let connection = self.get(id)?;
        assert!(connection.in_flight > 0, "an answer without a request");
        if connection.in_flight == CONNECTION_IN_FLIGHT_MAX {
            connection.reader_room.notify();
        }
        connection.in_flight -= 1;
        Some(connection.out())
    }

    /// Adds a connection; `None` when the core has as many as it may.
    fn add(&mut self, stream: Rc<dyn Connection>, now_ns: u64) -> Option<u64> {
        if self.count >= CONNECTIONS_PER_CORE_MAX {
            return None;
        }
        let slot = self.free.pop().unwrap_or(self.slots.len());
        if slot == self.slots.len() {
            self.slots.push(None);
        }
        self.next_generation += 1;
        let id = (self.next_generation << SLOT_BITS) | slot as u64;
        self.slots[slot] = Some(Box::new(ClientConnection {
            id,
            stream,
            out: Vec::new(),
            sending_bytes: 0,
            received: Vec::new(),
            in_flight: 0,
            hello_since_ns: Some(now_ns),
            is_ending: false,
            writer_work: Rc::default(),
            reader_room: Rc::default(),
        }));
        self.count += 1;
        Some(id)
    }

    fn remove(&mut self, id: u64) {
        if self.get(id).is_some() {
            let slot = (id & ((1 << SLOT_BITS) - 1)) as usize;
            let connection = self.slots[slot].take().expect("looked up above");
            connection.stream.shutdown();
            connection.writer_work.notify();
            connection.reader_room.notify();
            self.free.push(slot);
            self.count -= 1;
        }
    }

    /// Ends connections whose client has not said hello in time; returns how many.
    pub(super) fn end_silent(&mut self, now_ns: u64) -> usize {
        let timeout_ns = HELLO_TIMEOUT_MS * 1_000_000;
        let late = self.slots.iter().flatten().filter(|connection| {
            connection
                .hello_since_ns
                .is_some_and(|since| now_ns.saturating_sub(since) > timeout_ns)
        });
        let late: Vec<u64> = late.map(|connection| connection.id).collect();
        for id in &late {
            self.remove(*id);
        }
        late.len()
    }

    /// Ends all connections, after a drain.
    pub(super) fn end_all(&mut self) {
        for id in self
            .slots
            .iter()
            .flatten()
            .map(|connection| connection.id)
            .collect::<Vec<_>>()
        {
            self.remove(id);
        }
    }
}

/// Takes a new connection in and starts its tasks; refuses it in words when there are too many.
pub(super) fn admit(
    core: &SharedCore,
    env: &Env<super::message::CoreBatch>,
    stream: Rc<dyn Connection>,
) -> Option<u64> {
    let now_ns = env.clock.monotonic().0;
    let added = {
        let Answers {
            connections,
            counters,
            ..
        } = &mut core.borrow_mut().answers;
        let added = connections.add(Rc::clone(&stream), now_ns);
        match added {
            Some(_) => counters.connection_accepted(),
            None => counters.connection_refused(Reason::TooMany),
        }
        added
    };
    let Some(id) = added else {
        let mut out = Vec::new();
        let message = "this core has as many connections as it may; close some, or connect to another core";
        Encoder::new().error(&mut out, 0, 0, ErrorCode::TooManyConnections, message, 1000);
        env.tasks
            .spawn(Priority::Foreground, Box::pin(refuse(stream, out)));
        return None;
    };
    env.tasks
        .spawn(Priority::Foreground, Box::pin(write_answers(Rc::clone(core), id)));
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
pub(super) fn admit_handed_over(
    core: &SharedCore,
    env: &Env<super::message::CoreBatch>,
    hand_over: HandOver,
) {
    // If the descriptor can't be registered here, the client sees the end of the stream and reconnects.
    let Ok(stream) = env.network.adopt(hand_over.connection) else {
        return;
    };
    let Some(id) = admit(core, env, stream) else {
        return;
    };
    let mut core = core.borrow_mut();
    core.answer_hello(id, hand_over.request_id);
    if let Some(connection) = core.answers.connections.get(id) {
        connection.received = hand_over.received;
    }
}

enum Next {
    Receive,
    WaitForRoom(Rc<Notify>),
    HandOver(CoreId, u64),
    End,
}

async fn read_requests(core: SharedCore, env: Env<super::message::CoreBatch>, id: u64) {
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
                if core
                    .borrow_mut()
                    .answers
                    .connections
                    .get(id)
                    .is_some_and(|connection| !connection.has_room())
                {
                    room.notified().await;
                }
                let served = core.borrow_mut().serve_received(id);
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
        connection.is_ending = true;
        connection.writer_work.notify();
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
    if let Ok(detached) = connection.stream.detach() {
        let received = core::mem::take(&mut connection.received);
        let hand_over = HandOver {
            connection: detached,
            request_id,
            received,
        };
        outboxes[to.index()].push(CoreMessage::HandOver(Box::new(hand_over)));
    }
    connections.remove(id);
}

async fn write_answers(core: SharedCore, id: u64) {
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
            let Some(connection) = core.answers.connections.get(id) else {
                return;
            };
            if connection.is_done() {
                break;
            }
            core::mem::swap(&mut connection.out, &mut sending);
            connection.sending_bytes = sending.len();
        }
        if sending.is_empty() {
            work.notified().await;
            continue;
        }
        if !send_all(&*stream, &sending).await {
            break;
        }
        let mut core = core.borrow_mut();
        core.answers.counters.sent(sending.len());
        sending.clear();
        sending.shrink_to(OUT_KEPT_BYTES);
        let Some(connection) = core.answers.connections.get(id) else {
            return;
        };
        connection.sending_bytes = 0;
        connection.reader_room.notify();
        core.finish_turn();
    }
    let mut core = core.borrow_mut();
    core.answers.connections.remove(id);
    core.finish_turn();
}

async fn send_all(stream: &dyn Connection, bytes: &[u8]) -> bool {
    let mut sent = 0;
    while sent < bytes.len() {
        match poll_fn(|cx| stream.poll_send(cx, &bytes[sent..])).await {
            Ok(0) | Err(_) => return false,
            Ok(count) => sent += count,
        }
    }
    true
}
