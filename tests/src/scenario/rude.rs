//! Connections that break the rules: garbage, halves of frames, hellos that are refused, requests without end whose
//! answers nobody reads. The node must refuse each in the way that `docs/wire.md` says, and serve everybody else as
//! before.
//!
//! 1. What is sent, and what must come of it, is a [`Script`].
//! 2. It is carried out from a client's host; every frame that comes back is noted.
//! 3. Every answer must be the right one, always. None may be missing, and the end must be the right one, unless a
//!    fault struck this very connection, or the node's process ended.

use core::task::{Context, Poll};
use core::time::Duration;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;

use ostrakon::env::{Connection, Tasks};
use ostrakon_wire::frame;
use ostrakon_wire::limits::BODY_BYTES_MAX;
use ostrakon_wire::message::{Encoder, Request, Response};

use super::client::within;
use super::plan::{Rudeness, SERVER};
use super::rude_scripts::{Answer, Ending, Script, script_of};
use super::shared::Shared;
use crate::sim::{Counters, FaultKind, HostId};

/// How long the node may take for anything, its longest time-out and pauses of its process included.
const PATIENCE: Duration = Duration::from_secs(90);
/// The part of a time-out that has passed at least, in percent, since the node's clock may run fast.
const TIMEOUT_PERCENT_MIN: u64 = 99;
/// How long after a time-out the node may end a connection at most: it looks once a second, and may be paused
/// meanwhile. The next longer time-out comes later than that.
const TIMEOUT_LATE_NS: u64 = 15_000_000_000;
/// How long a connection is watched on which nothing should happen, or left unread.
const WATCH: Duration = Duration::from_secs(3);
/// Id of the request that shows that a connection is still served.
const PING_ID: u64 = 1 << 40;

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// By the node, after its last byte.
    Closed,
    /// With an error.
    Broken,
}

/// A connection, what is to be sent on it, and what came back.
struct Conversation<'a> {
    connection: &'a dyn Connection,
    tasks: &'a dyn Tasks,
    out: Vec<u8>,
    sent: usize,
    received: Vec<u8>,
    /// By request id.
    answers: Vec<(u64, Answer)>,
    end: Option<End>,
    /// What was wrong with the bytes themselves.
    nonsense: Option<String>,
    /// Patience came to its end.
    is_late: bool,
}

/// Carries out one rudeness from a client's host, and judges what comes of it.
pub async fn be_rude(shared: Rc<Shared>, host: HostId, rudeness: Rudeness) {
    let tasks = shared.world.client_env(host).tasks;
    tasks.sleep(Duration::from_nanos(rudeness.at_ns)).await;
    if let Err(sentence) = converse(&shared, host, &*tasks, rudeness).await {
        let sentence = format!("a rude connection ({rudeness:?}): {sentence}");
        shared.recorder.violation(sentence);
    }
    shared.finished.set(shared.finished.get() + 1);
}

async fn converse(
    shared: &Shared,
    host: HostId,
    tasks: &dyn Tasks,
    rudeness: Rudeness,
) -> Result<(), String> {
    // While the node is down there is nobody to be rude to. (Its address is known until the operator sees that.)
    let Some(address) = shared.address.get() else {
        return Ok(());
    };
    if shared.world.running_process(SERVER).is_none() {
        return Ok(());
    }
    let (begun_ns, before) = (shared.world.now_ns(), shared.world.counters());
    let (number, connection) = match shared.world.connect_numbered(host, address).await {
        Ok(connected) => connected,
        Err(_) if explains_no_connection(&before, &shared.world.counters()) => return Ok(()),
        Err(error) => return Err(format!("can't connect: {error}")),
    };
    let script = script_of(&rudeness, shared.cores.get());
    let mut conversation = Conversation {
        connection: &*connection,
        tasks,
        out: script.bytes.clone(),
        sent: 0,
        received: Vec::new(),
        answers: Vec::new(),
        end: None,
        nonsense: None,
        is_late: false,
    };
    conversation.carry_out(&script).await;
    let passed_ns = shared.world.now_ns() - begun_ns;
    connection.shutdown();
    let missing = conversation.judge_answers(shared, &script)?;
    let complaint = conversation.complaint(&script, &missing, passed_ns);
    match (complaint, shared.world.connection_trouble(number)) {
        (Some(complaint), None) => Err(complaint),
        _ => Ok(()),
    }
}

/// True if a fault explains that a connection did not come about.
fn explains_no_connection(before: &Counters, after: &Counters) -> bool {
    let kinds = [
        FaultKind::ProcessKill,
        FaultKind::PowerLoss,
        FaultKind::PartitionFull,
        FaultKind::PartitionOneWay,
    ];
    kinds.into_iter().any(|kind| after.get(kind) > before.get(kind))
}

impl Conversation<'_> {
    async fn carry_out(&mut self, script: &Script) {
        if matches!(script.ending, Ending::Leaves | Ending::ReadsLate) {
            self.send_unread().await;
        }
        match script.ending {
            Ending::Leaves => {}
            Ending::Closed { .. } | Ending::TimesOut { .. } => self.until(usize::MAX, PATIENCE).await,
            Ending::Waits => {
                self.until(script.answers.len(), PATIENCE).await;
                let is_late = self.is_late;
                self.until(usize::MAX, WATCH).await;
                self.is_late = is_late;
            }
            Ending::StaysOpen | Ending::ReadsLate => {
                self.until(script.answers.len(), PATIENCE).await;
                Encoder::new().request(&mut self.out, PING_ID, 0, &Request::Ping);
                self.until(script.answers.len() + 1, PATIENCE).await;
            }
        }
    }

    /// Sends as much as the node takes within a while, and reads nothing.
    async fn send_unread(&mut self) {
        let timer = self.tasks.sleep(WATCH);
        let sending = poll_fn(|cx| {
            while self.sent < self.out.len() {
                match self.connection.poll_send(cx, &self.out[self.sent..]) {
                    Poll::Ready(Ok(count)) => self.sent += count,
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
            }
            Poll::Ready(())
        });
        let _given_up = within(sending, timer).await;
        self.tasks.sleep(WATCH).await;
    }

    /// Sends all and reads until so many answers have come, or the connection has ended.
    async fn until(&mut self, answers: usize, patience: Duration) {
        let timer = self.tasks.sleep(patience);
        let moving = poll_fn(|cx| self.poll_move(cx, answers));
        self.is_late |= within(moving, timer).await.is_none();
    }

    fn poll_move(&mut self, cx: &mut Context<'_>, answers: usize) -> Poll<()> {
        loop {
            let is_all_sent = self.sent == self.out.len();
            if self.end.is_some() || (is_all_sent && self.answers.len() >= answers) {
                return Poll::Ready(());
            }
            let mut is_stuck = true;
            if !is_all_sent
                && let Poll::Ready(Ok(count)) = self.connection.poll_send(cx, &self.out[self.sent..])
            {
                self.sent += count;
                is_stuck = false;
            }
            let received = &mut self.received;
            match self
                .connection
                .poll_recv(cx, &mut |bytes| received.extend_from_slice(bytes))
            {
                Poll::Ready(Ok(0)) => self.end = Some(End::Closed),
                Poll::Ready(Err(_)) => self.end = Some(End::Broken),
                Poll::Pending if is_stuck => return Poll::Pending,
                Poll::Ready(Ok(_)) => self.understand(),
                Poll::Pending => {}
            }
        }
    }

    /// Takes the whole frames off what was received.
    fn understand(&mut self) {
        loop {
            match frame::decode(&self.received, BODY_BYTES_MAX) {
                Ok(None) => return,
                Ok(Some((header, body))) => {
                    match Response::decode(header.kind, body) {
                        Ok(response) => self.answers.push((header.request_id, Answer::of(&response))),
                        Err(error) => self.nonsense = Some(error.to_string()),
                    }
                    self.received.drain(..header.frame_bytes());
                }
                Err(error) => {
                    self.nonsense = Some(error.to_string());
                    return self.received.clear();
                }
            }
        }
    }

    /// Holds every answer against what the script wants. Returns what is missing.
    fn judge_answers(&self, shared: &Shared, script: &Script) -> Result<Vec<(u64, Answer)>, String> {
        if let Some(nonsense) = &self.nonsense {
            return Err(format!("the node sent what is no answer: {nonsense}"));
        }
        let mut wanted: BTreeMap<u64, Answer> = script.answers.iter().copied().collect();
        if script.ending.is_open() {
            wanted.insert(PING_ID, Answer::Pong);
        }
        for (id, found) in &self.answers {
            let Some(expected) = wanted.remove(id) else {
                return Err(format!("answer {id} ({found:?}) is of no request, or the second"));
            };
            let is_right = match (expected, *found) {
                (Answer::Get | Answer::Scan, Answer::Refused(code)) => shared.may_refuse_read(code),
                (expected, found) => expected.is_met_by(found),
            };
            if !is_right {
                return Err(format!("request {id}: expected {expected:?}, found {found:?}"));
            }
        }
        Ok(wanted.into_iter().collect())
    }

    /// What only a fault of this connection can excuse.
    fn complaint(&self, script: &Script, missing: &[(u64, Answer)], passed_ns: u64) -> Option<String> {
        if script.ending == Ending::Leaves {
            return None;
        }
        // A node that closes before it has read everything resets the connection, and the reset may overtake what it
        // has sent.
        if script.ending == (Ending::Closed { may_be_reset: true }) && self.end == Some(End::Broken) {
            return None;
        }
        if !missing.is_empty() {
            return Some(format!(
                "{} answers are missing, first {:?}; the connection's end: {:?}",
                missing.len(),
                missing[0],
                self.end
            ));
        }
        let ends_rightly = match script.ending {
            Ending::Closed { .. } => self.end == Some(End::Closed),
            Ending::TimesOut { after_ns } => {
                let least_ns = after_ns / 100 * TIMEOUT_PERCENT_MIN;
                self.end == Some(End::Closed) && (least_ns..after_ns + TIMEOUT_LATE_NS).contains(&passed_ns)
            }
            _ => self.end.is_none(),
        };
        (!ends_rightly || self.is_late).then(|| {
            format!(
                "expected {:?}, found {:?} after {} ms",
                script.ending,
                self.end,
                passed_ns / 1_000_000
            )
        })
    }
}
