//! A run from its configuration to its outcome.
//!
//! 1. Probe the kernel, load the register file if there is one, start the embedded node if none is named.
//! 2. Per phase: load and run are driven, check scans; after each the history is written and the register is
//!    saved, also when the node was lost. A search drives the run phase again and again.
//! 3. The first phase that does not end well is the last.
//! 4. Stop the embedded node, print the report, draw, and say how it went.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::arrival::Rate;
use crate::check;
use crate::cli::{Configuration, Goals, OnDisconnect, Phase, RECORDS_DEFAULT, RunLength, Target};
use crate::counters::Counters;
use crate::driver::{self, Order, PhasePace, Shared};
use crate::embedded::{Directory, EmbeddedNode, NodeSettings};
use crate::history::History;
use crate::kernel;
use crate::percentiles;
use crate::plot;
use crate::progress::{self, Extent, Progress};
use crate::records::Records;
use crate::register::{Register, RegisterFile};
use crate::report::{self, Offered, Outcome, PhaseReport, RunReport};
use crate::search::{self, SearchReport, StepRow};
use crate::value::WriterId;
use crate::workload::OperationKind;

/// How long after the end of a run the operations of an open loop may begin that were due before it.
const GIVE_UP_AFTER: Duration = Duration::from_secs(10);
/// The same for a step of a search, which has failed by then.
const STEP_GIVE_UP_AFTER: Duration = Duration::from_secs(1);

/// Violations that are printed; their number is always told.
const VIOLATIONS_SHOWN: usize = 20;

/// Runs everything and prints the report on standard output.
///
/// # Errors
/// A sentence, when the run could not be begun or its report could not be delivered.
pub fn run(configuration: &Configuration) -> Result<Outcome, String> {
    let report = execute(configuration)?;
    let document = || serde_json::to_string_pretty(&report).expect("a report is plain data") + "\n";
    if let Some(path) = &configuration.json_out {
        let written = std::fs::write(path, document());
        written.map_err(|error| format!("could not write the report to {}: {error}", path.display()))?;
    }
    write_pictures(&report)?;
    print(&if configuration.json {
        document()
    } else {
        report.to_string()
    })?;
    Ok(report.outcome)
}

/// Runs everything.
///
/// # Errors
/// A sentence, when the run could not be begun, or the register could not be saved.
pub fn execute(configuration: &Configuration) -> Result<RunReport<'_>, String> {
    kernel::probe_io_uring()?;
    kernel::register_membarrier();
    let register_file = configuration.register.as_deref().map(RegisterFile::new);
    let loaded = match &register_file {
        Some(file) => file.load().map_err(|error| error.to_string())?,
        None => None,
    };
    let (is_continued, records) = (loaded.is_some(), records(configuration, loaded.as_ref())?);
    let writer = loaded.as_ref().map_or_else(random_writer, Register::writer);
    let register = configuration
        .verify
        .then(|| Arc::new(loaded.unwrap_or_else(|| Register::new(writer, records))));
    let history = open_history(configuration, is_continued, writer)?;
    let node = start_node(configuration, is_continued)?;
    let addresses = match (&configuration.target, &node) {
        (Target::Connect(addresses), _) => addresses.clone(),
        (_, Some(node)) => vec![node.address().to_string()],
        (Target::Embedded { .. }, None) => unreachable!("an embedded node was started"),
    };
    if !configuration.quiet && !configuration.json {
        eprintln!("{}", report::headline(configuration, records, &addresses));
    }
    let order = Order {
        phase: Phase::Load,
        configuration,
        addresses: &addresses,
        pace: PhasePace::Closed,
        warm_up: Duration::ZERO,
        run_length: configuration.run_length,
        records: Arc::new(Records::new(records)),
        register: register.clone(),
        writer,
        counters: Arc::new(Counters::new(random_writer().0, configuration.counters)),
    };
    let mut run = Run {
        order,
        register_file,
        history,
        ending: Ending::default(),
        phases: Vec::new(),
        search: None,
        check: None,
    };
    run.all_phases()?;
    let Run {
        mut ending,
        phases,
        search,
        check,
        ..
    } = run;
    if let Some(Err(sentence)) = node.map(EmbeddedNode::shut_down) {
        ending.broken.get_or_insert(sentence);
    }
    let (outcome, reason) = ending.judge(configuration, &phases, search.as_ref());
    let mut violations = ending.violations;
    violations.truncate(VIOLATIONS_SHOWN);
    let loadgen = env!("CARGO_PKG_VERSION");
    Ok(RunReport {
        loadgen,
        configuration,
        records,
        addresses,
        phases,
        search,
        check,
        violations,
        outcome,
        reason,
    })
}

struct Run<'a> {
    order: Order<'a>,
    register_file: Option<RegisterFile>,
    history: Option<History>,
    ending: Ending,
    phases: Vec<PhaseReport>,
    search: Option<SearchReport>,
    check: Option<check::CheckReport>,
}

/// What ended the last phase, if it did not end by itself.
#[derive(Debug, Default)]
struct Ending {
    lost: Option<String>,
    broken: Option<String>,
    violations: Vec<crate::register::Violation>,
}

impl Run<'_> {
    fn all_phases(&mut self) -> Result<(), String> {
        let configuration = self.order.configuration;
        for phase in &configuration.phases {
            self.order.phase = *phase;
            match (phase, &configuration.goals) {
                (Phase::Load, _) => self.drive_once()?,
                (Phase::Run, None) => {
                    self.order.warm_up = configuration.warm_up;
                    if let Some(open_loop) = configuration.open_loop {
                        self.order.pace = PhasePace::Open {
                            rate: open_loop.rate,
                            arrivals: open_loop.arrivals,
                            give_up_after: GIVE_UP_AFTER,
                        };
                    }
                    self.drive_once()?;
                }
                (Phase::Run, Some(goals)) => self.search(goals)?,
                (Phase::Check, _) => self.check(),
            }
            if let (Some(file), Some(register)) = (&self.register_file, &self.order.register) {
                file.save(register).map_err(|error| error.to_string())?;
            }
            if !self.ending.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn drive_once(&mut self) -> Result<(), String> {
        let report = self.drive(self.order.configuration.run_length)?;
        self.phases.push(report);
        Ok(())
    }

    /// Runs the run phase at one rate after the other; only the last one is a phase of the report.
    fn search(&mut self, goals: &Goals) -> Result<(), String> {
        let configuration = self.order.configuration;
        let (Some(open_loop), RunLength::Duration(length)) =
            (configuration.open_loop, configuration.run_length)
        else {
            unreachable!("the command line gives a search a first rate and a length");
        };
        self.order.warm_up = configuration.warm_up;
        let mut last = None;
        let found = search::search(open_loop.rate.from_per_second, |rate, times| {
            self.order.pace = PhasePace::Open {
                rate: Rate::fixed(rate),
                arrivals: open_loop.arrivals,
                give_up_after: STEP_GIVE_UP_AFTER,
            };
            let length = length * times;
            let report = self.drive(RunLength::Duration(length))?;
            let step = StepRow::new(goals, rate, length, &report);
            last = Some(report);
            Ok::<_, String>(self.ending.is_none().then_some(step))
        });
        self.search = Some(found?);
        self.phases.extend(last);
        Ok(())
    }

    fn drive(&mut self, run_length: RunLength) -> Result<PhaseReport, String> {
        let Order {
            phase,
            configuration,
            warm_up,
            pace,
            ..
        } = self.order;
        self.order.run_length = run_length;
        if let Some(file) = &self.register_file {
            file.begin_phase().map_err(|error| error.to_string())?;
        }
        let shared = Arc::new(Shared::new(configuration.thread_cpus.len()));
        let (name, extent) = match (phase, run_length) {
            (Phase::Load, _) => ("load", Extent::Operations(self.order.records.count())),
            (_, RunLength::Operations(operations)) => ("run", Extent::Operations(operations)),
            (_, RunLength::Duration(duration)) => ("run", Extent::Duration(warm_up + duration)),
        };
        let bar = Progress::start(name, extent, &shared, is_silent(configuration));
        let recording = match &self.history {
            Some(history) => Some(history.begin_phase(configuration.thread_cpus.len())?),
            None => None,
        };
        let mut outcome = driver::run_phase(&self.order, &shared, recording.as_ref())?;
        let recorded = match (&mut self.history, recording) {
            (Some(history), Some(recording)) => history.end_phase(recording),
            _ => Ok(()),
        };
        drop(bar);
        let driver::Findings {
            lost,
            broken,
            violations,
        } = std::mem::take(&mut outcome.findings);
        self.ending = Ending {
            lost,
            broken: recorded.err().or(broken),
            violations,
        };
        let offered = match pace {
            PhasePace::Closed => None,
            PhasePace::Open { rate, .. } => Some(Offered {
                rate,
                seconds: match run_length {
                    RunLength::Duration(duration) => Some(duration.as_secs_f64()),
                    RunLength::Operations(_) => None,
                },
            }),
        };
        Ok(PhaseReport::new(phase, outcome, offered))
    }

    fn check(&mut self) {
        let register = self
            .order
            .register
            .as_ref()
            .expect("the command line asks for a register with a check");
        let bar = progress::bar(
            "check",
            Extent::Operations(register.records()),
            is_silent(self.order.configuration),
        );
        let target = check::Target {
            address: &self.order.addresses[0],
            register,
            counters: &self.order.counters,
            patience: self.order.configuration.retry_for.unwrap_or_default(),
        };
        let outcome = check::run(&target, &bar, self.history.as_mut());
        self.check = Some(outcome.report);
        self.ending = Ending {
            lost: outcome.lost,
            broken: outcome.broken,
            violations: outcome.violations,
        };
    }
}

impl Ending {
    fn is_none(&self) -> bool {
        self.lost.is_none() && self.broken.is_none() && self.violations.is_empty()
    }

    /// The outcome of the run, and the sentence that explains it unless all is well.
    fn judge(
        &self,
        configuration: &Configuration,
        phases: &[PhaseReport],
        search: Option<&SearchReport>,
    ) -> (Outcome, Option<String>) {
        let errors: u64 = phases
            .iter()
            .flat_map(|phase| &phase.errors)
            .map(|error| error.count)
            .sum();
        let not_found: u64 = phases.iter().map(|phase| phase.not_found).sum();
        if !self.violations.is_empty() {
            let reason = "the database broke a promise; keep its data directory and this report".to_owned();
            return (Outcome::Violation, Some(reason));
        }
        if let Some(reason) = &self.broken {
            return (Outcome::Failed, Some(reason.clone()));
        }
        match (&self.lost, configuration.on_disconnect) {
            (Some(reason), OnDisconnect::Stop) => {
                return (Outcome::NodeLost, Some(format!("node lost: {reason}")));
            }
            (Some(reason), OnDisconnect::Fail) => {
                return (Outcome::Failed, Some(format!("node lost: {reason}")));
            }
            (None, _) => {}
        }
        if search.is_some_and(|search| search.found_per_second.is_none()) {
            let reason = "no rate keeps the goals; relax them, or begin at a lower --rate".to_owned();
            return (Outcome::Failed, Some(reason));
        }
        if errors > 0 {
            return (
                Outcome::Failed,
                Some(format!("{errors} operations were answered with errors")),
            );
        }
        let unstarted: u64 = phases
            .iter()
            .filter_map(|phase| phase.open_loop.map(|open_loop| open_loop.unstarted))
            .sum();
        if unstarted > 0 {
            let reason = format!(
                "{unstarted} operations were due and not begun within {} s after the end: the latencies are too good \
                 by those; lower --rate, or raise --connections or --pipeline",
                GIVE_UP_AFTER.as_secs()
            );
            return (Outcome::Failed, Some(reason));
        }
        if not_found > 0 && !configuration.verify && !configuration.mix.has_any(OperationKind::removes) {
            let reason = format!(
                "{not_found} reads found no record; load as many records as are run on (--phase load)"
            );
            return (Outcome::Failed, Some(reason));
        }
        (Outcome::Ok, None)
    }
}

/// The files that show the last phase, if they are asked for.
fn write_pictures(report: &RunReport<'_>) -> Result<Vec<PathBuf>, String> {
    let configuration = report.configuration;
    let mut files = Vec::new();
    let Some(phase) = report.phases.last() else {
        return Ok(files);
    };
    if let Some(path) = &configuration.hgrm {
        files.extend(percentiles::write(path, phase)?);
    }
    if let Some(path) = &configuration.plot {
        let heading = report::headline(configuration, report.records, &report.addresses);
        plot::draw(path, &heading, phase, phase.offered, report.search.as_ref())?;
        files.push(path.clone());
    }
    Ok(files)
}

fn is_silent(configuration: &Configuration) -> bool {
    configuration.quiet || configuration.json
}

fn records(configuration: &Configuration, loaded: Option<&Register>) -> Result<u64, String> {
    match (configuration.records, loaded) {
        (Some(asked), Some(register)) if asked != register.records() => Err(format!(
            "--records is {asked}, but the register file is of {} records; leave --records out, \
             or name another file",
            register.records()
        )),
        (_, Some(register)) => Ok(register.records()),
        (_, None) if configuration.register.is_some() && !configuration.phases.contains(&Phase::Load) => {
            Err(no_register(configuration))
        }
        (asked, None) => Ok(asked.unwrap_or(RECORDS_DEFAULT)),
    }
}

fn no_register(configuration: &Configuration) -> String {
    let path = configuration
        .register
        .as_ref()
        .map(|path| path.display().to_string())
        .unwrap_or_default();
    format!("there is no register file {path} yet; add `load` to --phase to begin one")
}

fn open_history(
    configuration: &Configuration,
    is_continued: bool,
    writer: WriterId,
) -> Result<Option<History>, String> {
    let Some(path) = &configuration.history else {
        return Ok(None);
    };
    if is_continued {
        return Err(
            "a history begins with the first write of each record, but the register file continues an earlier \
             run; name a register file that is not there yet, or leave --history out"
                .to_owned(),
        );
    }
    History::create(path, writer).map(Some)
}

fn start_node(configuration: &Configuration, is_continued: bool) -> Result<Option<EmbeddedNode>, String> {
    let Target::Embedded {
        directory,
        cores,
        shards,
        cpus,
    } = &configuration.target
    else {
        return Ok(None);
    };
    let is_fresh = configuration.phases.contains(&Phase::Load) && !is_continued;
    let directory = Directory::take(directory, is_fresh)?;
    let settings = NodeSettings {
        cores: *cores,
        shards: *shards,
        cpus: cpus.as_ref(),
    };
    EmbeddedNode::start(directory, settings).map(Some)
}

/// An id that no other register has, as far as the kernel's randomness goes.
fn random_writer() -> WriterId {
    WriterId(RandomState::new().hash_one(std::process::id()))
}

fn print(text: &str) -> Result<(), String> {
    use std::io::Write as _;
    let printed = std::io::stdout().lock().write_all(text.as_bytes());
    printed.map_err(|error| format!("could not print the report: {error}"))
}
