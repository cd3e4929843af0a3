//! Closed-loop load on a key-value server, the same for every system that is compared.
//!
//! 1. One thread, pinned to one CPU, opens all connections and shakes hands.
//! 2. Each connection keeps a fixed number of requests unanswered: for each answer a new request, all that
//!    fit go out in one write. Keys are drawn uniformly, or each once in turn.
//! 3. At the end of the time, or after so many requests, nothing new is sent, and all answers are awaited.
//!
//! A latency runs from the moment a request is put into the connection's buffer until its answer is
//! decoded; the clock is read once for all that one read from the socket brings. Throughput is answers
//! without error over the time from the first request to the last answer. What a system speaks is behind
//! [`Conversation`].

mod conversation;
mod echo;
mod keys;
mod ostrakon;
mod poll;
mod redis;
mod socket;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub use self::conversation::{Answered, Conversation, Operation};
use self::echo::EchoConversation;
pub use self::keys::KeyChoice;
use self::ostrakon::OstrakonConversation;
use self::poll::Poll;
use self::redis::RedisConversation;
use self::socket::{ConnectionId, Socket};
use crate::machine;
use crate::report::number;
use crate::statistics::Latencies;

/// With no answer for so long, a server counts as stuck. Under valgrind answers take a while.
const ANSWER_WITHIN: Duration = Duration::from_mins(1);

/// What is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum System {
    /// Ostrakon's own protocol.
    Ostrakon,
    /// RESP, the protocol of Redis.
    Redis,
    /// Bytes that come back as they are.
    Echo,
}

impl System {
    /// For tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ostrakon => "ostrakon",
            Self::Redis => "redis",
            Self::Echo => "echo",
        }
    }
}

/// How many connections, and how many unanswered requests on each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Connections.
    pub connections: usize,
    /// Unanswered requests per connection.
    pub pipeline: usize,
}

impl Shape {
    /// One client that waits for each answer.
    pub const ONE_CLIENT: Self = Self {
        connections: 1,
        pipeline: 1,
    };
    /// Fifty clients that wait for each answer.
    pub const UNPIPELINED: Self = Self {
        connections: 50,
        pipeline: 1,
    };
    /// Fifty clients with sixteen requests on their way each.
    pub const PIPELINED: Self = Self {
        connections: 50,
        pipeline: 16,
    };
}

impl std::fmt::Display for Shape {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} × {}", self.connections, self.pipeline)
    }
}

/// When a load ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Every key was used once, in turn.
    EachKeyOnce,
    /// So many requests with uniform keys were sent.
    Requests(u64),
    /// Requests with uniform keys were sent for so long.
    Time(Duration),
}

/// One load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// What is spoken.
    pub system: System,
    /// Put or get.
    pub operation: Operation,
    /// Keys to choose from.
    pub keys: u64,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// Connections and pipelining.
    pub shape: Shape,
    /// The end.
    pub until: Until,
    /// CPU of the thread that generates it.
    pub cpu: usize,
    /// Of the choice of keys.
    pub seed: u64,
}

/// What a load found.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Answers without error.
    pub requests: u64,
    /// From the first request to the last answer.
    pub seconds: f64,
    /// Of the answers without error.
    pub latencies: Latencies,
    /// Share of the time that the generating thread ran.
    pub generator_busy: f64,
    /// Refusals and wrong answers: the sentence, and how often.
    pub errors: BTreeMap<String, u64>,
}

impl Outcome {
    /// Answers without error, per second.
    pub fn per_second(&self) -> f64 {
        self.requests as f64 / self.seconds
    }

    /// How many requests failed.
    pub fn error_count(&self) -> u64 {
        self.errors.values().sum()
    }

    /// A sentence about the errors, if there are any.
    pub fn error_note(&self, what: &str) -> Option<String> {
        let (sentence, _) = self.errors.iter().max_by_key(|(_, count)| **count)?;
        let count = number(self.error_count() as f64, 0);
        Some(format!("{what}: {count} requests failed, most with: {sentence}"))
    }

    /// As a JSON object.
    pub fn to_json(&self) -> Value {
        json!({
            "requests": self.requests,
            "seconds": self.seconds,
            "per_second": self.per_second(),
            "latency": self.latencies.summary().to_json(),
            "generator_busy": self.generator_busy,
            "errors": self.errors,
        })
    }
}

impl Load {
    /// Runs it to its end against the server at `address`.
    ///
    /// # Errors
    /// A sentence, when a connection fails, the server breaks the protocol or goes silent, or a signal
    /// came. Answers that refuse a request are counted in the outcome instead.
    pub fn run(self, address: &str) -> Result<Outcome, String> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| match self.system {
                System::Ostrakon => self.generate::<OstrakonConversation>(address),
                System::Redis => self.generate::<RedisConversation>(address),
                System::Echo => self.generate::<EchoConversation>(address),
            });
            thread
                .join()
                .map_err(|_| "the generating thread panicked".to_owned())?
        })
    }

    /// Runs it and takes any failed request for a failure.
    ///
    /// # Errors
    /// As [`Load::run`], and a sentence about failed requests.
    pub fn run_without_errors(self, address: &str) -> Result<Outcome, String> {
        let outcome = self.run(address)?;
        match outcome.error_note(&format!("{} {}", self.operation.name(), self.shape)) {
            Some(note) => Err(note),
            None => Ok(outcome),
        }
    }

    fn generate<C: Conversation>(self, address: &str) -> Result<Outcome, String> {
        machine::pin_thread(self.cpu)?;
        let mut poll = Poll::new()?;
        let mut sockets = Vec::with_capacity(self.shape.connections);
        for number in 0..self.shape.connections {
            let conversation = C::new(self.shape.pipeline)?;
            let socket = Socket::open(address, conversation, self.shape.pipeline)?;
            poll.add(&socket, ConnectionId(number))?;
            sockets.push(socket);
        }
        let mut generator = Generator::new(self);
        let cpu_before = machine::thread_cpu_time();
        generator.drive(&mut poll, &mut sockets)?;
        let mut outcome = generator.outcome;
        outcome.seconds = generator.start.elapsed().as_secs_f64();
        outcome.generator_busy = machine::thread_cpu_time()
            .saturating_sub(cpu_before)
            .as_secs_f64()
            / outcome.seconds;
        Ok(outcome)
    }
}

/// The choice of requests, and the account of answers.
struct Generator {
    load: Load,
    start: Instant,
    sent: u64,
    unanswered: usize,
    keys: KeyChoice,
    value: Vec<u8>,
    outcome: Outcome,
}

impl Generator {
    fn new(load: Load) -> Self {
        Self {
            load,
            start: Instant::now(),
            sent: 0,
            unanswered: 0,
            keys: KeyChoice::new(load.keys, load.seed),
            value: vec![b'v'; load.value_bytes],
            outcome: Outcome::default(),
        }
    }

    fn drive<C: Conversation>(&mut self, poll: &mut Poll, sockets: &mut [Socket<C>]) -> Result<(), String> {
        let mut now = Instant::now();
        for (number, socket) in sockets.iter_mut().enumerate() {
            for _ in 0..self.load.shape.pipeline {
                self.send_one(socket, now)?;
            }
            poll.flush(socket, ConnectionId(number))?;
        }
        let mut ready = Vec::new();
        let mut heard = now;
        while self.unanswered > 0 {
            poll.wait(&mut ready)?;
            now = Instant::now();
            if !ready.is_empty() {
                heard = now;
            } else if now.duration_since(heard) > ANSWER_WITHIN {
                let seconds = ANSWER_WITHIN.as_secs();
                return Err(format!(
                    "{} requests were not answered within {seconds} s",
                    self.unanswered
                ));
            } else {
                machine::check_signals()?;
            }
            for id in &ready {
                self.turn(&mut sockets[id.0])?;
                poll.flush(&mut sockets[id.0], *id)?;
            }
        }
        Ok(())
    }

    /// Takes all answers that one read from the socket brings, and queues a request for each.
    fn turn<C: Conversation>(&mut self, socket: &mut Socket<C>) -> Result<(), String> {
        socket.read()?;
        let now = Instant::now();
        while let Some((slot, answered)) = socket.conversation.next_answer()? {
            self.unanswered -= 1;
            self.count(answered, now.duration_since(socket.sent_at[slot]));
            self.send_one(socket, now)?;
        }
        Ok(())
    }

    fn send_one<C: Conversation>(&mut self, socket: &mut Socket<C>, now: Instant) -> Result<(), String> {
        let is_over = match self.load.until {
            Until::EachKeyOnce => self.sent >= self.load.keys,
            Until::Requests(requests) => self.sent >= requests,
            Until::Time(time) => now.duration_since(self.start) >= time,
        };
        if is_over {
            return Ok(());
        }
        if self.sent.is_multiple_of(1024) {
            machine::check_signals()?;
        }
        // No two values are the same, so that nobody gains by comparing them.
        let counter = self.value.len().min(8);
        self.value[..counter].copy_from_slice(&self.sent.to_le_bytes()[..counter]);
        let key = if self.load.until == Until::EachKeyOnce {
            self.keys.numbered(self.sent)
        } else {
            self.keys.uniform()
        };
        let slot = socket
            .conversation
            .submit(self.load.operation, key, &self.value)?;
        socket.sent_at[slot] = now;
        self.sent += 1;
        self.unanswered += 1;
        Ok(())
    }

    fn count(&mut self, answered: Answered, latency: Duration) {
        let sentence = match answered {
            Answered::Stored => None,
            Answered::Found { value_bytes } if value_bytes == self.load.value_bytes => None,
            Answered::Found { value_bytes } => Some(format!("a value of {value_bytes} bytes")),
            Answered::Missing => Some("the key is not there".to_owned()),
            Answered::Refused(sentence) => Some(sentence),
        };
        match sentence {
            None => {
                self.outcome.requests += 1;
                self.outcome.latencies.record(latency.as_nanos() as u64);
            }
            Some(sentence) => *self.outcome.errors.entry(sentence).or_default() += 1,
        }
    }
}

#[cfg(test)]
mod tests;
