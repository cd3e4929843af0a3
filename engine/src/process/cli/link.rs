//! The client that commands use: made when it is needed, and timed. What is sent again, and when, is the library's
//! part.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ostrakon_client::{Client, Error, Options, StageTimings};

use super::failure::Failure;
use super::interrupt::Interrupt;
use super::requests::ConnectArguments;
use crate::process::version::RELEASE;

/// A node's address, and the connection to it if there is one.
#[derive(Debug)]
pub(super) struct Link {
    address: String,
    timeout_ms: u64,
    client: Option<Client>,
    interrupt: Arc<Interrupt>,
    /// Ask the node where its time goes.
    pub(super) asks_for_timings: bool,
    /// Time that the running command has waited for the node.
    waited: Duration,
    /// The node's part of it, over all answers.
    served: StageTimings,
}

/// Why an exchange with the node ended early.
#[derive(Debug)]
pub(super) enum Stopped {
    /// By the client library.
    Client(Error),
    /// By whatever was done with the answers.
    Failure(Failure),
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Stopped {
        Stopped::Client(error)
    }
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Stopped {
        Stopped::Failure(failure)
    }
}

/// Adds up the time that is spent waiting for the node, within [`Link::run`].
#[derive(Debug, Default)]
pub(super) struct Stopwatch(Duration);

impl Stopwatch {
    /// Does something that waits for the node.
    pub(super) fn time<T>(&mut self, action: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let done = action();
        self.0 += started.elapsed();
        done
    }
}

impl Link {
    pub(super) fn new(arguments: &ConnectArguments, interrupt: Arc<Interrupt>) -> Link {
        Link {
            address: arguments.connect.clone(),
            timeout_ms: arguments.timeout_ms,
            client: None,
            interrupt,
            asks_for_timings: false,
            waited: Duration::ZERO,
            served: StageTimings::default(),
        }
    }

    /// Another link to the same node, which no Ctrl-C ends.
    pub(super) fn apart(&self) -> Link {
        Link {
            address: self.address.clone(),
            timeout_ms: self.timeout_ms,
            client: None,
            interrupt: Arc::default(),
            asks_for_timings: false,
            waited: Duration::ZERO,
            served: StageTimings::default(),
        }
    }

    /// Where the node is.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// The switch that ends a running command.
    pub(super) fn interrupt(&self) -> &Arc<Interrupt> {
        &self.interrupt
    }

    /// Goes to another node; stays where it is if nobody answers there.
    pub(super) fn move_to(&mut self, address: &str) -> Result<(), Failure> {
        let before = std::mem::replace(&mut self.address, address.to_owned());
        let client = self.client.take();
        let moved = self.connect();
        if moved.is_err() {
            self.address = before;
            self.client = client;
            self.interrupt
                .watch(self.client.as_ref().map(Client::interrupter));
        }
        moved
    }

    /// Makes the connection if there is none that is good.
    pub(super) fn connect(&mut self) -> Result<(), Failure> {
        if self.client.is_some() {
            return Ok(());
        }
        let defaults = Options::default();
        let options = Options {
            connect_timeout_ms: self.timeout_ms.min(defaults.connect_timeout_ms),
            request_timeout_ms: self.timeout_ms,
            client: format!("ostrakon/{RELEASE}"),
            ..defaults
        };
        let client = Client::connect(&self.address, options).map_err(|error| Failure::from(&error))?;
        self.interrupt.watch(Some(client.interrupter()));
        self.client = Some(client);
        Ok(())
    }

    /// Asks the node once.
    pub(super) fn call<T>(
        &mut self,
        question: impl FnOnce(&mut Client) -> Result<T, Error>,
    ) -> Result<T, Failure> {
        self.run(|client, watch| Ok(watch.time(|| question(client))?))
    }

    /// Uses the connection for an exchange that times its waits itself.
    pub(super) fn run<T>(
        &mut self,
        exchange: impl FnOnce(&mut Client, &mut Stopwatch) -> Result<T, Stopped>,
    ) -> Result<T, Failure> {
        self.connect()?;
        self.interrupt.check()?;
        let client = self.client.as_mut().expect("connected above");
        client.set_timings(self.asks_for_timings);
        let mut watch = Stopwatch::default();
        let done = exchange(client, &mut watch);
        self.waited += watch.0;
        self.served += client.take_timings();
        match done {
            Ok(done) => Ok(done),
            Err(Stopped::Failure(failure)) => Err(failure),
            Err(Stopped::Client(error)) => {
                if !matches!(error, Error::Server { .. } | Error::Submit(_)) {
                    self.client = None;
                }
                Err(match error {
                    Error::UnknownOutcome { .. } if self.interrupt.is_raised() => Failure::OutcomeUnknown(
                        "cancelled, but the write had been sent: it may or may not be applied, now or shortly; read \
                         the key to see"
                            .to_owned(),
                    ),
                    _ if self.interrupt.is_raised() => Failure::cancelled(),
                    error => Failure::from(&error),
                })
            }
        }
    }

    /// The node's clock in microseconds since 1970, as of its last answer; 0 before one.
    pub(super) fn node_time_us(&self) -> u64 {
        self.client
            .as_ref()
            .map_or(0, |client| timestamp_us(client.timestamp()))
    }

    /// A command begins, which Ctrl-C ends.
    pub(super) fn command_begins(&self) {
        self.interrupt.begin();
    }

    /// The command has ended. If it was told to, its client may have an interrupt left that would end the next one's
    /// first wait, and is used no longer.
    pub(super) fn command_ended(&mut self) {
        self.interrupt.end();
        if self.interrupt.is_raised() {
            self.client = None;
            self.interrupt.watch(None);
        }
    }

    /// Where the time went since this was asked last: the wait, and the node's part of it.
    pub(super) fn take_timings(&mut self) -> (Duration, StageTimings) {
        (std::mem::take(&mut self.waited), std::mem::take(&mut self.served))
    }
}

/// The microseconds since 1970 in a timestamp of the hybrid logical clock.
pub(super) fn timestamp_us(timestamp: u64) -> u64 {
    timestamp >> 12
}
