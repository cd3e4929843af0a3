//! Drives a node: the load phase and the run phase.
//!
//! Connections are opened with blocking sockets ([`connect`]) and dealt out to pinned glommio executors
//! ([`executor`]). In a closed loop each [`connection`] takes its next operation from its executor's [`source`]
//! when one is answered; in an open loop a [`dispatcher`] hands them over when they are due. What an [`operation`]
//! asks, what follows from answers, and what is measured is in [`thread`] and [`several`]; the [`ledger`] is told of
//! every write and answer, and a history by [`recording`]. With a [`session`] a connection outlives its sockets.
//! Executors share nothing but [`Shared`], the number of records, the counters and, if there is one, the register.

mod connect;
mod connection;
mod dispatcher;
mod executor;
mod ledger;
mod operation;
mod recording;
mod route;
mod session;
mod several;
mod source;
mod thread;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use ostrakon::env::glommio::executors;

use crate::arrival::{Arrivals, Rate, Schedule};
use crate::cli::{Configuration, Phase, RunLength};
use crate::counters::Counters;
use crate::distribution::KeyChooser;
use crate::history::{PhaseHistory, Recorder};
use crate::kernel;
use crate::random::Random;
use crate::records::Records;
use crate::register::{Register, Violation};
use crate::series::{SecondRow, Series, SeriesSender};
use crate::statistics::{LiveCounters, Statistics};
use crate::value::{ValueSize, WriterId};

use connect::{ConnectError, Ready};
use connection::ConnectionEnd;
use ledger::Ledger;
use route::Router;
use source::{Draw, End, Pace, Source};
use thread::Thread;

pub(crate) use operation::MULTI_RECORDS_MAX;

/// Violations that are kept; the phase stops at the first, so there are few.
const VIOLATIONS_KEPT: usize = 20;

/// From the first executor's start to the first arrival of an open loop: the others start meanwhile.
const OPEN_LOOP_LEAD: Duration = Duration::from_millis(50);

/// What the executors of a phase share with each other and with the progress bar.
#[derive(Debug)]
pub struct Shared {
    live: Vec<LiveCounters>,
    /// What times of the phase count from; set by the first executor.
    origin: OnceLock<Instant>,
    is_stopped: AtomicBool,
    findings: Mutex<Findings>,
}

/// When operations begin.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PhasePace {
    /// As soon as a connection is free.
    Closed,
    /// When they are due.
    Open {
        /// How many are due.
        rate: Rate,
        /// How they lie in time.
        arrivals: Arrivals,
        /// How long after the end of the phase the last one may begin.
        give_up_after: Duration,
    },
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
    /// From the end of the warm-up to the last executor's end.
    pub elapsed: Duration,
    /// Second by second, warm-up included.
    pub series: Vec<SecondRow>,
    /// The part of the time, from 0 to 1, that the busiest load thread was on its CPU.
    pub busiest_thread: f64,
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
    /// Where the nodes listen.
    pub addresses: &'a [String],
    /// Records there are, and are inserted.
    pub records: Arc<Records>,
    /// When operations begin.
    pub pace: PhasePace,
    /// How long operations are not measured at first.
    pub warm_up: Duration,
    /// Length of a run phase.
    pub run_length: RunLength,
    /// Who judges the answers, if anybody.
    pub register: Option<Arc<Register>>,
    /// Inside the values, if there is no register.
    pub writer: WriterId,
    /// What adds increment.
    pub counters: Arc<Counters>,
}

impl Shared {
    /// For so many executors.
    pub fn new(threads: usize) -> Self {
        Self {
            live: (0..threads).map(|_| LiveCounters::default()).collect(),
            origin: OnceLock::new(),
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
    let (ready, router) = match connect::connect_all(order.addresses, configuration) {
        Ok(ready) => ready,
        Err(error) => return Ok(not_connected(error)),
    };
    let threads = configuration.thread_cpus.len();
    let series = Series::start(threads).map_err(|error| format!("could not start a thread: {error}"))?;
    let mut dealt: Vec<Vec<Ready>> = (0..threads).map(|_| Vec::new()).collect();
    for (index, ready) in ready.into_iter().enumerate() {
        dealt[index % threads].push(ready);
    }
    let mut handles = Vec::with_capacity(threads);
    let pulses =
        executors::pulses(threads as u16).map_err(|error| format!("could not start a thread: {error}"))?;
    for ((index, ready), pulse) in dealt.into_iter().enumerate().zip(pulses) {
        let name = format!("loadgen-{index}");
        let builder = executors::builder(configuration.thread_cpus[index], &name).io_memory(1 << 20);
        let (order, shared) = (
            ThreadOrder::new(order, index, router.clone(), series.recorder(index), history),
            Arc::clone(shared),
        );
        let spawned =
            builder.spawn(move || executors::work(pulse, async move { order.run(&shared, ready).await }));
        handles.push(spawned.map_err(|error| format!("could not start a load thread: {error}"))?);
    }
    let mut outcome = PhaseOutcome::default();
    let mut last_ended_at = None;
    for handle in handles {
        let done = handle
            .join()
            .map_err(|error| format!("a load thread failed: {error}"))?;
        outcome.statistics.merge(&done.statistics);
        outcome.busiest_thread = outcome.busiest_thread.max(done.busy);
        last_ended_at = last_ended_at.max(Some(done.ended_at));
    }
    if let (Some(origin), Some(ended_at)) = (shared.origin.get(), last_ended_at) {
        outcome.elapsed = ended_at.saturating_duration_since(*origin + order.warm_up);
    }
    outcome.series = series.rows(outcome.elapsed.as_secs_f64());
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
    index: usize,
    draw: Draw,
    router: Router,
    pace: PhasePace,
    warm_up: Duration,
    length: Length,
    executors: usize,
    seed: u64,
    series: SeriesSender,
    register: Option<Arc<Register>>,
    writer: WriterId,
    value_size: ValueSize,
    ttl_ms: u64,
    counters: Arc<Counters>,
    stages_every: u32,
    retry_for: Option<Duration>,
    pipeline: usize,
    recorder: Option<Recorder>,
}

/// Length of a phase for one executor.
#[derive(Clone, Copy)]
enum Length {
    Load,
    Operations(u64),
    Duration(Duration),
}

/// What one executor hands back.
struct ThreadDone {
    statistics: Statistics,
    ended_at: Instant,
    /// The part of the time that it was on its CPU.
    busy: f64,
}

impl ThreadOrder {
    fn new(
        order: &Order<'_>,
        index: usize,
        router: Router,
        series: SeriesSender,
        history: Option<&PhaseHistory>,
    ) -> Self {
        let configuration = order.configuration;
        let executors = configuration.thread_cpus.len();
        let records = order.records.count();
        let share = |total| source::share_of(total, index, executors);
        let (draw, length) = match order.phase {
            Phase::Load => (Draw::Load(share(records)), Length::Load),
            Phase::Run => {
                let chooser = KeyChooser::new(&configuration.choice, records, index as u64, executors as u64);
                let draw = Draw::Run {
                    mix: configuration.mix,
                    chooser: Box::new(chooser),
                    random: Random::for_lane(configuration.seed, index as u64),
                    records: Arc::clone(&order.records),
                    scan_records_max: configuration.scan_records_max,
                    multi_records: configuration.multi_records,
                    counters: Arc::clone(&order.counters),
                };
                let length = match order.run_length {
                    RunLength::Operations(total) => Length::Operations(share(total).end - share(total).start),
                    RunLength::Duration(duration) => Length::Duration(duration),
                };
                (draw, length)
            }
            Phase::Check => unreachable!("the check phase is not driven by executors"),
        };
        Self {
            index,
            draw,
            router,
            pace: order.pace,
            warm_up: order.warm_up,
            length,
            executors,
            seed: configuration.seed,
            series,
            register: order.register.clone(),
            // Values of two executors without a register differ by their writer.
            writer: WriterId(order.writer.0.wrapping_add(index as u64)),
            value_size: configuration.value_size,
            ttl_ms: configuration.ttl.as_millis() as u64,
            counters: Arc::clone(&order.counters),
            stages_every: configuration.stages_every.unwrap_or(0),
            retry_for: configuration.retry_for,
            pipeline: configuration.pipeline,
            recorder: history.map(|history| history.recorder(index)),
        }
    }

    async fn run(self, shared: &Arc<Shared>, ready: Vec<Ready>) -> ThreadDone {
        let lead = match self.pace {
            PhasePace::Closed => Duration::ZERO,
            PhasePace::Open { .. } => OPEN_LOOP_LEAD,
        };
        let origin = *shared.origin.get_or_init(|| Instant::now() + lead);
        let (started_at, cpu_before) = (Instant::now(), kernel::thread_cpu_time());
        let pipeline = self.pipeline;
        let thread = Rc::new(RefCell::new(self.into_thread(shared, origin, ready.len())));
        let ended_at = executor::run(Rc::clone(&thread), ready, pipeline).await;
        let mut thread = thread.borrow_mut();
        thread.finish();
        let cpu = kernel::thread_cpu_time().saturating_sub(cpu_before);
        let lasted = ended_at.saturating_duration_since(started_at).as_secs_f64();
        ThreadDone {
            statistics: std::mem::take(&mut thread.statistics),
            ended_at,
            busy: if lasted > 0.0 {
                (cpu.as_secs_f64() / lasted).min(1.0)
            } else {
                0.0
            },
        }
    }

    fn into_thread(self, shared: &Arc<Shared>, origin: Instant, connections: usize) -> Thread {
        let measure_from = origin + self.warm_up;
        let pace = match self.pace {
            PhasePace::Closed => Pace::Closed,
            PhasePace::Open {
                rate,
                arrivals,
                give_up_after,
            } => Pace::Open {
                schedule: Schedule::new(
                    rate,
                    arrivals,
                    self.warm_up,
                    self.index,
                    self.executors,
                    self.seed,
                ),
                origin,
                give_up_after,
            },
        };
        let end = match self.length {
            Length::Load => End::Never,
            Length::Operations(operations) => End::Operations(operations),
            Length::Duration(duration) => End::At(measure_from + duration),
        };
        let ledger = match self.register {
            Some(register) => Ledger::Verified(register),
            None => Ledger::Unchecked {
                writer: self.writer,
                sequence: Cell::new(0),
            },
        };
        Thread {
            source: Source::new(self.draw, pace, end, measure_from, self.router, connections),
            ledger,
            statistics: Statistics::default(),
            series: self.series.begin(measure_from),
            shared: Arc::clone(shared),
            live_index: self.index,
            value_size: self.value_size,
            ttl_ms: self.ttl_ms,
            counters: self.counters,
            stages_every: self.stages_every,
            untimed: 0,
            retry_for: self.retry_for,
            spare_reads: Vec::new(),
            spare_writes: Vec::new(),
            recorder: self.recorder,
            dispatcher: None,
            is_saturated: false,
            is_hungry: false,
        }
    }
}
