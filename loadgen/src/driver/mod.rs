//! Drives a node: the load phase and the run phase.
//!
//! Connections are opened with blocking sockets ([`connect`]) and dealt out to pinned glommio executors
//! ([`executor`]), where each is a closed loop ([`connection`]) that takes its operations from its executor's
//! [`source`] and tells the [`ledger`] of every write and answer. Executors share nothing but [`Shared`] and,
//! if there is one, the register.

mod connect;
mod connection;
mod executor;
mod ledger;
mod source;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use glommio::{LocalExecutorBuilder, Placement};

use crate::cli::{Configuration, Distribution, Phase, RunLength};
use crate::history::{PhaseHistory, Recorder};
use crate::keys::KeyChooser;
use crate::random::Random;
use crate::register::{Register, Violation};
use crate::statistics::{LiveCounters, Statistics};
use crate::value::WriterId;

use connect::{ConnectError, Ready};
use connection::{ConnectionEnd, Thread};
use ledger::Ledger;
use source::{End, Source};

/// Violations that are kept; the phase stops at the first, so there are few.
const VIOLATIONS_KEPT: usize = 20;

/// What the executors of a phase share with each other and with the progress bar.
#[derive(Debug)]
pub struct Shared {
    live: Vec<LiveCounters>,
    is_stopped: AtomicBool,
    findings: Mutex<Findings>,
}

/// What ended a phase before its time.
#[derive(Debug, Default, Clone)]
pub struct Findings {
    /// The node went away.
    pub lost: Option<String>,
    /// A fault of one of the two programs.
    pub broken: Option<String>,
    /// Broken promises.
    pub violations: Vec<Violation>,
}

/// What a phase measured and found.
#[derive(Debug, Default)]
pub struct PhaseOutcome {
    /// Of all executors.
    pub statistics: Statistics,
    /// From the first executor's start to the last one's end.
    pub elapsed: Duration,
    /// Finished operations.
    pub operations: u64,
    /// What ended it before its time.
    pub findings: Findings,
}

/// One phase, all defaults known.
#[derive(Debug, Clone)]
pub struct Order<'a> {
    /// Load or run.
    pub phase: Phase,
    /// Everything the command line says.
    pub configuration: &'a Configuration,
    /// Where the node listens.
    pub address: &'a str,
    /// Number of records.
    pub records: u64,
    /// Who judges the answers, if anybody.
    pub register: Option<Arc<Register>>,
    /// Inside the values, if there is no register.
    pub writer: WriterId,
}

impl Shared {
    /// For so many executors.
    pub fn new(threads: usize) -> Self {
        Self {
            live: (0..threads).map(|_| LiveCounters::default()).collect(),
            is_stopped: AtomicBool::new(false),
            findings: Mutex::new(Findings::default()),
        }
    }

    /// One per executor.
    pub fn live(&self) -> &[LiveCounters] {
        &self.live
    }

    /// Shall no operation be begun any more?
    fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Relaxed)
    }

    /// A broken promise; ends the phase.
    fn report(&self, violation: Violation) {
        self.stop_with(|findings| {
            if findings.violations.len() < VIOLATIONS_KEPT {
                findings.violations.push(violation);
            }
        });
    }

    /// A connection that cannot go on; ends the phase. The first reason of each sort is kept.
    fn end(&self, end: ConnectionEnd) {
        self.stop_with(|findings| {
            match end {
                ConnectionEnd::Lost(reason) => findings.lost.get_or_insert(reason),
                ConnectionEnd::Broken(reason) => findings.broken.get_or_insert(reason),
            };
        });
    }

    fn stop_with(&self, note: impl FnOnce(&mut Findings)) {
        note(&mut self.findings.lock().unwrap_or_else(PoisonError::into_inner));
        self.is_stopped.store(true, Ordering::Relaxed);
    }
}

/// Runs one phase. `shared` must be the progress bar's, and `'static` because executors are threads of their
/// own. What is sent and answered goes to `history`, if there is one.
///
/// # Errors
/// A sentence, when executors cannot be started; what goes wrong with the node is in the outcome.
pub fn run_phase(
    order: &Order<'_>,
    shared: &Arc<Shared>,
    history: Option<&PhaseHistory>,
) -> Result<PhaseOutcome, String> {
    let configuration = order.configuration;
    let Configuration {
        connections,
        pipeline,
        spread_cores,
        ..
    } = *configuration;
    let ready = match connect::connect_all(order.address, connections, pipeline, spread_cores) {
        Ok(ready) => ready,
        Err(error) => return Ok(not_connected(error)),
    };
    let threads = configuration.thread_cpus.len();
    let mut dealt: Vec<Vec<Ready>> = (0..threads).map(|_| Vec::new()).collect();
    for (index, ready) in ready.into_iter().enumerate() {
        dealt[index % threads].push(ready);
    }
    let mut handles = Vec::with_capacity(threads);
    for (index, ready) in dealt.into_iter().enumerate() {
        let builder = LocalExecutorBuilder::new(Placement::Fixed(configuration.thread_cpus[index]))
            .name(&format!("loadgen-{index}"))
            .preempt_timer(Duration::from_millis(1))
            .io_memory(1 << 20);
        let (order, shared) = (ThreadOrder::new(order, index, history), Arc::clone(shared));
        let spawned = builder.spawn(move || async move { order.run(index, &shared, ready).await });
        handles.push(spawned.map_err(|error| format!("could not start a load thread: {error}"))?);
    }
    let mut outcome = PhaseOutcome::default();
    let mut span: Option<(Instant, Instant)> = None;
    for handle in handles {
        let (statistics, started_at, ended_at) = handle
            .join()
            .map_err(|error| format!("a load thread failed: {error}"))?;
        outcome.statistics.merge(&statistics);
        let (first, last) = span.unwrap_or((started_at, ended_at));
        span = Some((first.min(started_at), last.max(ended_at)));
    }
    outcome.elapsed = span.map(|(first, last)| last - first).unwrap_or_default();
    outcome.operations = shared.live.iter().map(LiveCounters::operations).sum();
    outcome.findings = shared
        .findings
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    Ok(outcome)
}

fn not_connected(error: ConnectError) -> PhaseOutcome {
    let mut outcome = PhaseOutcome::default();
    match error {
        ConnectError::Lost(reason) => outcome.findings.lost = Some(reason),
        ConnectError::Refused(reason) => outcome.findings.broken = Some(reason),
    }
    outcome
}

/// What one executor needs, owned.
struct ThreadOrder {
    source: Source,
    register: Option<Arc<Register>>,
    writer: WriterId,
    value_bytes: usize,
    pipeline: usize,
    recorder: Option<Recorder>,
}

impl ThreadOrder {
    fn new(order: &Order<'_>, index: usize, history: Option<&PhaseHistory>) -> Self {
        let configuration = order.configuration;
        let threads = configuration.thread_cpus.len();
        let source = match order.phase {
            Phase::Load => Source::Load(source::share_of(order.records, index, threads)),
            Phase::Run => Source::Run {
                workload: configuration.workload,
                chooser: match configuration.distribution {
                    Distribution::Zipfian => KeyChooser::scrambled_zipfian(order.records),
                    Distribution::Uniform => KeyChooser::uniform(order.records),
                },
                random: Random::for_lane(configuration.seed, index as u64),
                end: match configuration.run_length {
                    RunLength::Operations(total) => {
                        let share = source::share_of(total, index, threads);
                        End::Operations(share.end - share.start)
                    }
                    RunLength::Duration(duration) => End::Lasting(duration),
                },
            },
            Phase::Check => unreachable!("the check phase is not driven by executors"),
        };
        Self {
            source,
            register: order.register.clone(),
            // Values of two executors without a register differ by their writer.
            writer: WriterId(order.writer.0.wrapping_add(index as u64)),
            value_bytes: configuration.value_bytes,
            pipeline: configuration.pipeline,
            recorder: history.map(|history| history.recorder(index)),
        }
    }

    async fn run(
        self,
        index: usize,
        shared: &Arc<Shared>,
        ready: Vec<Ready>,
    ) -> (Statistics, Instant, Instant) {
        let ledger = match self.register {
            Some(register) => Ledger::Verified(register),
            None => Ledger::Unchecked {
                writer: self.writer,
                sequence: Cell::new(0),
            },
        };
        let thread = Rc::new(RefCell::new(Thread {
            source: self.source,
            ledger,
            statistics: Statistics::default(),
            shared: Arc::clone(shared),
            live_index: index,
            value_bytes: self.value_bytes,
            recorder: self.recorder,
        }));
        let (started_at, ended_at) = executor::run(Rc::clone(&thread), ready, self.pipeline).await;
        let mut thread = thread.borrow_mut();
        thread.finish_recording();
        let statistics = std::mem::take(&mut thread.statistics);
        (statistics, started_at, ended_at)
    }
}
