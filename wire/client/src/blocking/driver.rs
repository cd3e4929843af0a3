//! Drives a session: does its duties, moves its bytes, keeps answers until they are waited for.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use ostrakon_wire::frame::StageTimings;
use ostrakon_wire::message::Request;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use super::interrupter::Interrupter;
use super::socket::Socket;
use crate::error::{Error, SubmitError};
use crate::options::Options;
use crate::session::{CallId, CallOptions, Duty, Session};
use crate::values::{Answer, Server};

/// Requests are held back until this many bytes are together, or an answer is waited for.
const SEND_BATCH_BYTES: usize = 64 * 1024;

/// After so long without a look at the sockets, they are looked at before anything is sent: the server may have closed
/// them meanwhile.
const IDLE_NS_MAX: u64 = 1_000_000_000;

/// Drivers made by this process so far.
static DRIVERS: AtomicU64 = AtomicU64::new(0);

#[derive(Debug)]
pub(super) struct Driver {
    session: Session,
    options: Options,
    /// What times are counted from.
    started: Instant,
    last_turn_ns: u64,
    /// By the slot of their ids, the sockets of the session's connections.
    sockets: Vec<Option<Socket>>,
    /// Calls that someone waits for.
    awaited: BTreeMap<CallId, Option<Ended>>,
    pub(super) asks_for_timings: bool,
    /// Of the answer waited for last.
    pub(super) last_timings: Option<StageTimings>,
    /// Of all answers waited for since it was taken.
    pub(super) timings_sum: StageTimings,
    interrupter: Interrupter,
    /// An interrupt was seen, and the call that it ends is not waited for yet.
    is_interrupted: bool,
    /// Unlike that of any other driver of this process.
    number: u64,
}

#[derive(Debug)]
struct Ended {
    result: Result<Answer, Error>,
    timings: Option<StageTimings>,
}

impl Driver {
    /// A driver whose session has a connection.
    pub(super) fn connect(addresses: Vec<String>, options: Options) -> Result<Driver, Error> {
        let mut driver = Driver {
            session: Session::new(&options, addresses, random_number(), random_number() as u64)
                .map_err(Error::Submit)?,
            options,
            started: Instant::now(),
            last_turn_ns: 0,
            sockets: Vec::new(),
            awaited: BTreeMap::new(),
            asks_for_timings: false,
            last_timings: None,
            timings_sum: StageTimings::default(),
            interrupter: Interrupter::new().map_err(|errno| Error::Lost {
                source: Arc::new(errno.into()),
            })?,
            is_interrupted: false,
            number: DRIVERS.fetch_add(1, Ordering::Relaxed),
        };
        driver.session.open(driver.now_ns());
        while !driver.session.is_connected() {
            if driver.session.failed_rounds() > 0 {
                let failure = driver.session.last_failure().cloned();
                return Err(failure.expect("a round has failed for a reason"));
            }
            driver.turn(true);
        }
        Ok(driver)
    }

    pub(super) fn server(&self) -> &Server {
        self.session
            .server()
            .expect("a driver is only handed out after a hello")
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn timestamp(&self) -> u64 {
        self.session.timestamp()
    }

    /// Begins a call whose answer will be waited for. Makes room by taking answers if too many calls are open.
    pub(super) fn start(&mut self, request: &Request<'_>) -> Result<CallId, Error> {
        if self.now_ns().saturating_sub(self.last_turn_ns) > IDLE_NS_MAX {
            self.turn(false);
        }
        let options = CallOptions {
            timeout_ms: self.options.request_timeout_ms,
            timings: self.asks_for_timings,
        };
        loop {
            match self.session.submit(self.now_ns(), request, options) {
                Ok(call) => {
                    self.awaited.insert(call, None);
                    if self.unsent_bytes() >= SEND_BATCH_BYTES {
                        self.turn(false);
                    }
                    return Ok(call);
                }
                Err(SubmitError::TooManyCalls) => {
                    self.turn(true);
                    if std::mem::take(&mut self.is_interrupted) {
                        self.end_awaited();
                        return Err(Error::Interrupted);
                    }
                }
                Err(error) => return Err(Error::Submit(error)),
            }
        }
    }

    /// Waits for the end of a call that was started.
    pub(super) fn finish(&mut self, call: CallId) -> Result<Answer, Error> {
        loop {
            let ended = self.awaited.get_mut(&call).expect("each call is waited for once");
            if let Some(Ended { result, timings }) = ended.take() {
                self.awaited.remove(&call);
                self.last_timings = timings;
                self.timings_sum += timings.unwrap_or_default();
                return result;
            }
            self.turn(true);
            if std::mem::take(&mut self.is_interrupted) {
                self.end_awaited();
            }
        }
    }

    /// Ends all calls that are open.
    fn end_awaited(&mut self) {
        let now_ns = self.now_ns();
        for (call, awaited) in &mut self.awaited {
            if awaited.is_none() {
                let result = Err(self.session.interrupt(now_ns, *call));
                *awaited = Some(Ended {
                    result,
                    timings: None,
                });
            }
        }
    }

    /// Waits until the sockets have taken all that is to be sent, or every call has ended, or an interrupt comes.
    pub(super) fn flush(&mut self) {
        self.turn(false);
        while self.unsent_bytes() > 0 && self.awaited.values().any(Option::is_none) && !self.is_interrupted {
            self.turn(true);
        }
    }

    pub(super) fn interrupter(&self) -> Interrupter {
        self.interrupter.clone()
    }

    /// From now on nobody waits for anything that was started.
    pub(super) fn abandon_all(&mut self) {
        let now_ns = self.now_ns();
        for (call, ended) in std::mem::take(&mut self.awaited) {
            if ended.is_none() {
                self.session.abandon(now_ns, call);
            }
        }
    }

    fn now_ns(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    fn unsent_bytes(&self) -> usize {
        let sockets = self.sockets.iter().flatten();
        sockets
            .map(|socket| self.session.bytes_to_send(socket.id()).len())
            .sum()
    }

    /// One round of all that is to be done. If it may wait, it does so until something has happened.
    fn turn(&mut self, may_wait: bool) {
        self.do_duties();
        self.write_all();
        let has_news = self.take_finished();
        let ready = self.wait(may_wait && !has_news);
        for slot in ready {
            self.socket_ready(slot);
        }
        self.take_finished();
        self.let_time_pass();
        self.take_finished();
        self.do_duties();
        self.write_all();
    }

    /// Tells the session the time. If something is due by it, first takes what has arrived: nothing was read while the
    /// caller was busy elsewhere, and an answer that lies there is in time.
    fn let_time_pass(&mut self) {
        let now_ns = self.now_ns();
        self.last_turn_ns = now_ns;
        if self
            .session
            .next_timeout_ns()
            .is_some_and(|at_ns| at_ns <= now_ns)
        {
            for slot in 0..self.sockets.len() {
                let is_connecting = self.sockets[slot].as_ref().is_none_or(Socket::is_connecting);
                while !is_connecting && self.read(slot) {}
            }
        }
        self.session.tick(now_ns);
    }

    fn do_duties(&mut self) {
        while let Some(duty) = self.session.next_duty() {
            match duty {
                Duty::Connect { connection, address } => {
                    if self.sockets.len() <= connection.slot() {
                        self.sockets.resize_with(connection.slot() + 1, || None);
                    }
                    match Socket::connect(connection, self.session.address(address)) {
                        Ok(socket) => self.sockets[connection.slot()] = Some(socket),
                        Err(error) => self.session.connect_failed(self.now_ns(), connection, error),
                    }
                }
                Duty::Close { connection } => self.sockets[connection.slot()] = None,
            }
        }
    }

    fn write_all(&mut self) {
        for slot in 0..self.sockets.len() {
            self.write(slot);
        }
    }

    /// Sends on one connection as much as its socket takes.
    fn write(&mut self, slot: usize) {
        while let Some(socket) = &mut self.sockets[slot]
            && !socket.is_connecting()
        {
            let id = socket.id();
            let bytes = self.session.bytes_to_send(id);
            if bytes.is_empty() {
                return;
            }
            let (bytes_before, written) = (bytes.len(), socket.write(bytes));
            match written {
                Ok(count) => {
                    self.session.sent(self.now_ns(), id, count);
                    if count < bytes_before {
                        return;
                    }
                }
                Err(error) => {
                    // The server may have answered before it closed the connection.
                    while self.read(slot) {}
                    self.end(slot, error);
                }
            }
        }
    }

    /// Waits for sockets; returns the slots of those that are ready.
    fn wait(&mut self, may_wait: bool) -> Vec<usize> {
        let timeout = self.timeout(may_wait);
        let mut slots = Vec::with_capacity(self.sockets.len());
        let mut polled = Vec::with_capacity(self.sockets.len());
        for (slot, socket) in self.sockets.iter().enumerate() {
            let Some(socket) = socket else {
                continue;
            };
            let flags = if socket.is_connecting() {
                PollFlags::OUT
            } else if self.session.bytes_to_send(socket.id()).is_empty() {
                PollFlags::IN
            } else {
                PollFlags::IN | PollFlags::OUT
            };
            slots.push(slot);
            polled.push(PollFd::from_borrowed_fd(socket.as_fd(), flags));
        }
        let has_sockets = !polled.is_empty();
        polled.push(PollFd::from_borrowed_fd(self.interrupter.as_fd(), PollFlags::IN));
        if !has_sockets && timeout.is_none() {
            // Nothing can happen: what there is to wait for has happened already.
            return Vec::new();
        }
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => panic!("waiting for sockets has failed: {error}"),
        }
        let is_ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        if polled.last().is_some_and(is_ready) {
            self.is_interrupted |= self.interrupter.take();
        }
        let ready = slots.into_iter().zip(&polled).filter(|(_, fd)| is_ready(fd));
        ready.map(|(slot, _)| slot).collect()
    }

    /// How long to wait; `None`: until a socket is ready.
    fn timeout(&mut self, may_wait: bool) -> Option<Timespec> {
        let wait_ns = if may_wait {
            let at_ns = self.session.next_timeout_ns()?;
            at_ns.saturating_sub(self.now_ns())
        } else {
            0
        };
        Some(Timespec {
            tv_sec: (wait_ns / 1_000_000_000) as i64,
            tv_nsec: (wait_ns % 1_000_000_000) as i64,
        })
    }

    fn socket_ready(&mut self, slot: usize) {
        let Some(socket) = &mut self.sockets[slot] else {
            return;
        };
        let id = socket.id();
        if !socket.is_connecting() {
            self.read(slot);
            return;
        }
        match socket.go_on_connecting() {
            Ok(()) if socket.is_connecting() => {}
            Ok(()) => self.session.connected(self.now_ns(), id),
            Err(error) => {
                self.sockets[slot] = None;
                self.session.connect_failed(self.now_ns(), id, error);
            }
        }
    }

    /// Receives what is there on one connection; was there something?
    fn read(&mut self, slot: usize) -> bool {
        let Some(socket) = &mut self.sockets[slot] else {
            return false;
        };
        let id = socket.id();
        match socket.read(self.session.receive_room(id)) {
            Ok(Some(count)) => {
                self.session.received(self.now_ns(), id, count);
                self.take_finished();
                true
            }
            Ok(None) => false,
            Err(error) => {
                self.end(slot, error);
                false
            }
        }
    }

    fn end(&mut self, slot: usize, error: io::Error) {
        if let Some(socket) = self.sockets[slot].take() {
            self.session.lost(self.now_ns(), socket.id(), error);
            self.take_finished();
        }
    }

    /// Keeps the ends of calls for those who wait for them; were there any?
    fn take_finished(&mut self) -> bool {
        let now_ns = self.now_ns();
        let mut has_news = false;
        while let Some(finished) = self.session.next_finished(now_ns) {
            has_news = true;
            if let Some(awaited) = self.awaited.get_mut(&finished.call) {
                *awaited = Some(Ended {
                    result: finished.result.map(|response| Answer::from(&response)),
                    timings: finished.timings,
                });
            }
        }
        has_news
    }
}

/// 128 random bits of the operating system.
fn random_number() -> u128 {
    let mut bytes = [0; 16];
    let filled = getrandom(&mut bytes, GetRandomFlags::empty());
    assert!(
        filled == Ok(bytes.len()),
        "the operating system has no randomness: {filled:?}"
    );
    u128::from_le_bytes(bytes)
}
