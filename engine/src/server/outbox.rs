//! Messages to one other core, collected until its sender task takes them.
//!
//! A request reserves the place of its response: the number of requests that may be unanswered is bounded,
//! and responses are always taken, so that draining never waits for sending.

use std::future::poll_fn;
use std::rc::Rc;

use ostrakon_core::hlc::Timestamp;

use super::core::SharedCore;
use super::message::{CoreBatch, CoreMessage, ForwardedRequest, ForwardedResponse};
use crate::env::local::Notify;
use crate::env::{CoreId, Env};
use crate::limits::{OUTBOX_BYTES_MAX, OUTBOX_REQUESTS_MAX};

/// The outbox towards one core.
#[derive(Default)]
pub struct Outbox {
    batch: CoreBatch,
    /// Of pages and values that the messages bring along, beside the bytes of the batch.
    boxed_bytes: usize,
    /// Requests sent and not answered.
    unanswered: usize,
    work: Rc<Notify>,
}

impl Outbox {
    /// True when there is room for another request.
    pub fn takes_requests(&self) -> bool {
        self.unanswered < OUTBOX_REQUESTS_MAX && !self.is_full()
    }

    /// True when no more bytes should be added than what must be answered.
    pub fn is_full(&self) -> bool {
        self.batch.bytes.len() + self.boxed_bytes >= OUTBOX_BYTES_MAX
    }

    /// Adds a request; its `body` range is set here.
    pub fn request(&mut self, mut request: ForwardedRequest, body: &[u8]) {
        let start = self.batch.bytes.len();
        self.batch.bytes.extend_from_slice(body);
        request.body = start..self.batch.bytes.len();
        self.unanswered += 1;
        self.push(CoreMessage::Request(request));
    }

    /// Adds a message about these bytes; their range among the batch's is given to `message`.
    pub fn push_with_bytes(
        &mut self,
        bytes: &[u8],
        message: impl FnOnce(core::ops::Range<usize>) -> CoreMessage,
    ) {
        let start = self.batch.bytes.len();
        self.batch.bytes.extend_from_slice(bytes);
        let range = start..self.batch.bytes.len();
        self.push(message(range));
    }

    /// Adds a response whose frame `encode` appends to the buffer; its `frame` range is set here.
    pub fn response(&mut self, mut response: ForwardedResponse, encode: impl FnOnce(&mut Vec<u8>)) {
        let start = self.batch.bytes.len();
        encode(&mut self.batch.bytes);
        response.frame = start..self.batch.bytes.len();
        self.push(CoreMessage::Response(response));
    }

    /// Adds a message without bytes.
    pub fn push(&mut self, message: CoreMessage) {
        self.batch.messages.push(message);
        self.work.notify();
    }

    /// Adds a message that brings along so many bytes of its own.
    pub fn push_boxed(&mut self, message: CoreMessage, bytes: usize) {
        self.boxed_bytes += bytes;
        self.push(message);
    }

    /// A response to one of the requests has come.
    pub fn answered(&mut self) {
        assert!(self.unanswered > 0, "a response without a request");
        self.unanswered -= 1;
    }

    fn take(&mut self, timestamp: Timestamp) -> Option<CoreBatch> {
        if self.batch.messages.is_empty() {
            return None;
        }
        self.boxed_bytes = 0;
        let mut batch = core::mem::take(&mut self.batch);
        batch.timestamp = timestamp;
        Some(batch)
    }
}

/// Sends what the outbox towards `to` collects, for ever. One such task per peer.
pub async fn send_batches(core: SharedCore, env: Env<CoreBatch>, to: CoreId) {
    let work = Rc::clone(&core.borrow().answers.outboxes[to.index()].work);
    loop {
        work.notified().await;
        loop {
            let taken = {
                let mut core = core.borrow_mut();
                let timestamp = core.host.hlc().peek();
                core.answers.outboxes[to.index()].take(timestamp)
            };
            let Some(batch) = taken else { break };
            send(&env, to, batch).await;
        }
    }
}

/// Sends one batch, waiting for room.
pub async fn send(env: &Env<CoreBatch>, to: CoreId, mut batch: CoreBatch) {
    while let Err(refused) = env.mesh.try_send(to, batch) {
        batch = refused;
        poll_fn(|cx| env.mesh.poll_room(cx, to)).await;
    }
}
