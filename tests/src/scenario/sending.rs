//! One write, over all its sendings: the history has it once.
//!
//! 1. The call is recorded before the first sending.
//! 2. Each sending is a task of its own, so that its answer is heard whenever it comes, also when another sending was
//!    answered long ago. The first definite answer completes the call; each further one is recorded as such, and must
//!    say the same.
//! 3. A write that belongs to no session is sent once. One that does is sent again, on other connections and to
//!    other processes of the node, until it is answered, refused too often, or forgotten by the node.
//! 4. Its outcome is unknown if some sending may have been carried out and none was answered.

use core::time::Duration;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use ostrakon_wire::message::ErrorCode;

use super::client::{CallError, Link, within};
use super::connections::{ANSWER_TIMEOUT, Asking, Client, Heard, LINKS, RETRY_PAUSE};
use super::plan::Sending;
use super::record::{CallIndex, Called, Recorder, Told};
use super::session::Sequence;
use super::writes::{Part, Said, Write};
use crate::check::history::Process;
use crate::sim::ProcessId;

/// Sendings of one write, at most.
const SENDINGS_MAX: usize = 8;
/// How long a sending on a connection of its own is waited for, beyond the time for which it is kept back.
const LATE_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest pause after a refusal.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// A write under way, shared by all its sendings.
pub struct Delivery {
    client: Rc<Client>,
    write: Write,
    sequence: Option<Sequence>,
    with_timings: bool,
    parts: Vec<Part>,
    /// The lowest timestamp that any sending carried: the write may have been decided when that one arrived.
    lowest: Cell<u64>,
    state: RefCell<State>,
    /// Of the thread that waits.
    waiting: Cell<Option<Waker>>,
}

struct State {
    parts: Vec<PartState>,
    sendings: Vec<SendingState>,
    /// Nobody waits any more: what is answered from now on comes late.
    is_closed: bool,
}

struct PartState {
    process: Process,
    call: CallIndex,
    /// The first answer, and which sending got it.
    told: Option<(Told, usize)>,
    /// Some sending may have been carried out, although it was not answered.
    may_be_done: bool,
    /// The node has said what it will always say: that it will not tell, or not do it.
    is_hopeless: bool,
    reason: String,
}

struct SendingState {
    /// The process of the node at that time.
    node: Option<ProcessId>,
    /// Nothing has been heard of it.
    is_open: bool,
}

/// How a sending travels.
enum Way {
    /// On a connection that others use, too.
    Shared(Rc<Link>),
    /// On a connection of its own, on which it is kept back for so long.
    Own(Duration),
    /// Within the process of the node.
    Program,
}

impl Delivery {
    /// Carries out a write, whatever it comes to; tells what was answered, by part. `process` is its thread; it comes
    /// back as the number under which the thread goes on.
    pub async fn carry_out(
        client: &Rc<Client>,
        write: Write,
        how: &Sending,
        flags: (bool, bool),
        sequence: Option<Sequence>,
        process: &mut Process,
    ) -> Vec<Option<Told>> {
        let (with_timings, cancels) = flags;
        let parts = write.parts(client.shared.shards);
        let recorder = &client.shared.recorder;
        let state = State {
            parts: parts
                .iter()
                .enumerate()
                .map(|(number, part)| PartState::called(recorder, part, number, *process))
                .collect(),
            sendings: Vec::new(),
            is_closed: false,
        };
        let delivery = Rc::new(Delivery {
            client: Rc::clone(client),
            write,
            sequence,
            with_timings,
            parts,
            lowest: Cell::new(u64::MAX),
            state: RefCell::new(state),
            waiting: Cell::default(),
        });
        delivery.send_until_answered(how, cancels).await;
        delivery.close(process)
    }

    async fn send_until_answered(self: &Rc<Delivery>, how: &Sending, cancels: bool) {
        let (hold, patience, cuts) = match *how {
            Sending::Once => (Duration::ZERO, ANSWER_TIMEOUT, false),
            Sending::Session {
                hold_ns,
                patience_ns,
                cuts,
            } => (
                Duration::from_nanos(hold_ns),
                Duration::from_nanos(patience_ns),
                cuts,
            ),
        };
        let sendings_max = if self.sequence.is_some() { SENDINGS_MAX } else { 1 };
        let mut pause = RETRY_PAUSE;
        for number in 0..sendings_max {
            let is_first = number == 0;
            let patience = if is_first { patience } else { ANSWER_TIMEOUT };
            let way = if self.client.is_program() {
                Way::Program
            } else if is_first && hold > Duration::ZERO {
                Way::Own(hold)
            } else {
                Way::Shared(self.link(number).await)
            };
            let link = match &way {
                Way::Shared(link) => Some(Rc::clone(link)),
                Way::Own(_) | Way::Program => None,
            };
            self.begin(number);
            let sending = Rc::clone(self).send(number, way, cancels && is_first);
            let client = &self.client;
            client.shared.world.spawn(client.host(), sending);
            let is_heard = within(self.heard_of(number), client.sleep(patience))
                .await
                .is_some();
            if let Some(link) = link.filter(|_| !is_heard && (cuts || patience >= ANSWER_TIMEOUT)) {
                link.lose("no answer in time");
            }
            if self.is_settled() {
                return;
            }
            if is_heard && number + 1 < sendings_max {
                client.sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
        // What is refused from now on is not asked for again; but what is under way may still be answered.
        let _in_time = within(self.all_heard(), self.client.sleep(ANSWER_TIMEOUT)).await;
    }

    /// Another connection for each sending.
    async fn link(&self, number: usize) -> Rc<Link> {
        let retry = self.sequence.as_ref().map(Sequence::retry);
        let (which, owner) = self.client.choose(&self.write.prepared(retry).request());
        let link = self.client.link((which + number) % LINKS).await;
        if number == 0 {
            self.client.count(owner, &link);
        }
        link
    }

    fn begin(&self, number: usize) {
        let node = self.client.shared.world.running_process(super::plan::SERVER);
        let mut state = self.state.borrow_mut();
        assert_eq!(state.sendings.len(), number, "sendings come in order");
        let was_another = state.sendings.iter().any(|sending| sending.node != node);
        let counts = &self.client.shared.counts;
        counts
            .sent_after_restart
            .set(counts.sent_after_restart.get() + u64::from(was_another));
        state.sendings.push(SendingState { node, is_open: true });
    }

    async fn send(self: Rc<Delivery>, number: usize, way: Way, cancels: bool) {
        let heard = match way {
            Way::Shared(link) => self.ask(&link, cancels).await,
            Way::Own(hold) => self.ask_late(hold).await,
            Way::Program => self.ask_as_program(cancels).await,
        };
        self.hear(number, &heard);
    }

    async fn ask(&self, link: &Link, cancels: bool) -> Result<Heard, CallError> {
        let retry = self.sequence.as_ref().map(Sequence::retry);
        let asking = Asking {
            with_timings: self.with_timings,
            cancels,
            sequence: self.sequence.as_ref(),
        };
        self.lowest.set(self.lowest.get().min(link.timestamp()));
        let prepared = self.write.prepared(retry);
        self.client.ask(link, &prepared.request(), asking).await
    }

    async fn ask_as_program(&self, gives_up: bool) -> Result<Heard, CallError> {
        let heard = self.client.write_as_program(&self.write, gives_up).await?;
        self.lowest.set(heard.clock.0);
        Ok(heard)
    }

    /// The original that arrives late: on a network that is slow, but not dead.
    async fn ask_late(&self, hold: Duration) -> Result<Heard, CallError> {
        let Some(link) = self.client.further_link().await else {
            return Err(CallError::NotSent("no connection".to_owned()));
        };
        link.hold();
        let (sleeper, late_link) = (Rc::clone(&self.client), Rc::clone(&link));
        let released = async move {
            sleeper.sleep(hold).await;
            late_link.release();
            sleeper.sleep(LATE_TIMEOUT).await;
        };
        let heard = within(self.ask(&link, false), Box::pin(released)).await;
        link.lose("no longer needed");
        heard.unwrap_or_else(|| Err(CallError::Lost("no answer in time".to_owned())))
    }

    /// Takes what came of a sending.
    fn hear(&self, number: usize, heard: &Result<Heard, CallError>) {
        let recorder = &self.client.shared.recorder;
        let mut state = self.state.borrow_mut();
        state.sendings[number].is_open = false;
        let said = match heard {
            Ok(heard) => {
                let clock = (self.lowest.get(), heard.clock.1);
                self.write.said(&self.parts, &heard.reply, clock)
            }
            Err(_) => Vec::new(),
        };
        let is_closed = state.is_closed;
        for (place, part) in state.parts.iter_mut().enumerate() {
            match (said.get(place), heard) {
                (Some(Said::Decided(told)), _) => self.decided(part, number, told, is_closed),
                (Some(Said::NotNow(code)), _) => {
                    part.reason = format!("{code:?}");
                    part.is_hopeless |= is_for_good(*code);
                }
                (Some(Said::Unknown(code)), _) => part.may_not_be_known(format!("{code:?}")),
                (Some(Said::Forgotten), _) => {
                    part.may_not_be_known(format!("{:?}", ErrorCode::OutcomeUnknown));
                    part.is_hopeless = true;
                }
                (Some(Said::Nonsense(sentence)), _) => recorder.violation(sentence.clone()),
                (None, Err(CallError::NotSent(reason))) => part.reason.clone_from(reason),
                (None, Err(CallError::Lost(reason))) => part.may_not_be_known(reason.clone()),
                (None, Ok(_)) => unreachable!("an answer says something of each part"),
            }
        }
        drop(state);
        if let Some(waiting) = self.waiting.take() {
            waiting.wake();
        }
    }

    /// A definite answer: the first one completes the call.
    fn decided(&self, part: &mut PartState, number: usize, told: &Told, is_closed: bool) {
        let (recorder, counts) = (&self.client.shared.recorder, &self.client.shared.counts);
        match &part.told {
            None if is_closed => recorder.answer_again(part.call, told),
            None => recorder.answer(part.process, told),
            Some((first, by)) => {
                recorder.answer_again(part.call, told);
                let is_same = first.version == told.version && first.action == told.action;
                counts
                    .answered_again
                    .set(counts.answered_again.get() + u64::from(is_same));
                counts
                    .overtaken
                    .set(counts.overtaken.get() + u64::from(number < *by));
            }
        }
        part.told.get_or_insert((told.clone(), number));
    }

    /// True if nothing more can be learned by sending again.
    fn is_settled(&self) -> bool {
        let state = self.state.borrow();
        state
            .parts
            .iter()
            .all(|part| part.told.is_some() || part.is_hopeless)
    }

    /// Waits until something was heard of this sending, or all is settled.
    async fn heard_of(&self, number: usize) {
        poll_fn(|cx| {
            let is_open = self.state.borrow().sendings[number].is_open;
            if !is_open || self.is_settled() {
                return Poll::Ready(());
            }
            self.waiting.set(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    /// Waits until something was heard of all sendings, or all is settled.
    async fn all_heard(&self) {
        let sendings = self.state.borrow().sendings.len();
        for number in 0..sendings {
            self.heard_of(number).await;
        }
    }

    /// Records the calls that have no answer, and ends the write's sequence.
    fn close(&self, process: &mut Process) -> Vec<Option<Told>> {
        let recorder = &self.client.shared.recorder;
        let mut state = self.state.borrow_mut();
        state.is_closed = true;
        let is_under_way = state.sendings.iter().any(|sending| sending.is_open);
        for (part, described) in state.parts.iter_mut().zip(&self.parts) {
            if part.told.is_some() {
                continue;
            }
            if part.may_be_done || is_under_way {
                let next = recorder.unknown(part.process, &described.action, part.reason.clone());
                if part.process == *process {
                    *process = next;
                }
            } else {
                recorder.failed(part.process, &described.action, part.reason.clone());
            }
        }
        if let Some(sequence) = &self.sequence {
            sequence.end();
        }
        let told = |part: &PartState| part.told.as_ref().map(|(told, _)| told.clone());
        state.parts.iter().map(told).collect()
    }
}

/// True if a write that was refused for this reason will be refused again.
fn is_for_good(code: ErrorCode) -> bool {
    let may_pass = [
        ErrorCode::Busy,
        ErrorCode::MemoryFull,
        ErrorCode::DiskFull,
        ErrorCode::ShuttingDown,
        ErrorCode::Unreadable,
    ];
    !may_pass.contains(&code)
}

impl PartState {
    /// Records the call. The first part belongs to the thread, all others to processes of their own.
    fn called(recorder: &Recorder, part: &Part, number: usize, thread: Process) -> PartState {
        let process = if number == 0 { thread } else { recorder.process() };
        let call = recorder.invoke(&Called {
            process,
            action: part.action.clone(),
            condition: part.condition.clone(),
            lifetime: part.lifetime,
        });
        PartState {
            process,
            call,
            told: None,
            may_be_done: false,
            is_hopeless: false,
            reason: "no answer".to_owned(),
        }
    }

    fn may_not_be_known(&mut self, reason: String) {
        self.may_be_done = true;
        self.reason = reason;
    }
}
