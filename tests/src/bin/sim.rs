//! The program `sim`: runs the node in the simulator, seed after seed, and reports what breaks.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "it measures real time; no part of a world sees it"
)]

use std::fs::File;
use std::io::BufWriter;
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use ostrakon_tests::scenario::campaign::{self, FailedRun, ORDINARY, Settings, Totals};
use ostrakon_tests::scenario::plan::Plan;
use ostrakon_tests::scenario::run::{Report, run};
use ostrakon_tests::scenario::{shrink, sweep};
use ostrakon_tests::sim::Counters;

const EXIT_FAILED: u8 = 1;
const EXIT_VIOLATION: u8 = 2;
/// Seeds that `--minutes` takes begin at a random place, so that two soaks see different ones.
const SOAK_SEED_BITS: u32 = 48;

/// Runs the whole node in a deterministic simulator under faults, checks what its clients saw, and prints the seed
/// of a run that fails, with a smaller form of it.
///
/// Exit codes: 0 nothing broke; 1 wrong usage; 2 something broke.
#[derive(Debug, Parser)]
#[command(name = "sim", max_term_width = 110)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["seed", "seeds", "minutes", "sweep", "plan"])))]
struct Arguments {
    /// Runs this seed, and prints its sums
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Runs these seeds, the second bound excluded
    #[arg(long, value_name = "A..B", value_parser = parse_range)]
    seeds: Option<Range<u64>>,
    /// Runs random seeds for so long
    #[arg(long, value_name = "M")]
    minutes: Option<u64>,
    /// Runs a short workload with one crash or fault at each of its operations
    #[arg(long, value_enum, value_name = "WHAT")]
    sweep: Option<Sweep>,
    /// Runs a plan that a failure has left
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// Writes every event of the run to this file, or without one to standard error (with --seed or --plan)
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "/dev/stderr")]
    trace: Option<PathBuf>,
    /// Writes what the clients saw to this file, in Jepsen's form (with --seed or --plan)
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// Runs each plan twice and compares the traces
    #[arg(long)]
    twice: bool,
    /// Threads [default: one per CPU]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Runs that may be spent on making a failed one smaller; 0 leaves it as it is
    #[arg(long, value_name = "N", default_value_t = 300)]
    shrink_runs: u32,
    /// Goes on until so many runs have failed
    #[arg(long, value_name = "N", default_value_t = 1)]
    failures: usize,
    /// Seed of the sweep's workload
    #[arg(long, value_name = "N", default_value_t = 1)]
    sweep_seed: u64,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Sweep {
    /// A crash before, during and after each operation that makes something durable
    Crashes,
    /// Each kind of fault at each disk and network operation
    Faults,
}

fn parse_range(text: &str) -> Result<Range<u64>, String> {
    let wrong = || format!("{text:?} is no range of seeds: write it like 0..1000");
    let (start, end) = text.split_once("..").ok_or_else(wrong)?;
    let number = |part: &str| part.trim().parse().map_err(|_| wrong());
    let range = number(start)?..number(end)?;
    if range.is_empty() { Err(wrong()) } else { Ok(range) }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = if arguments.seed.is_some() || arguments.plan.is_some() {
        run_one(&arguments)
    } else {
        run_many(&arguments)
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(EXIT_VIOLATION),
        Err(sentence) => {
            eprintln!("sim: {sentence}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

fn run_one(arguments: &Arguments) -> Result<bool, String> {
    let plan = match (&arguments.plan, arguments.seed) {
        (Some(path), _) => read_plan(path)?,
        (None, seed) => Plan::of_seed(seed.unwrap_or(0)),
    };
    let create = |path: &PathBuf| {
        File::create(path)
            .map(BufWriter::new)
            .map_err(|error| format!("can't write {}: {error}", path.display()))
    };
    let trace = arguments.trace.as_ref().map(create).transpose()?;
    let begun = Instant::now();
    let report = run(&plan, trace.map(|file| Box::new(file) as _));
    if let Some(path) = &arguments.history {
        std::fs::write(path, report.history.to_edn())
            .map_err(|error| format!("can't write {}: {error}", path.display()))?;
    }
    print_run(&report, begun.elapsed());
    let Some(failure) = report.failure.clone() else {
        return Ok(true);
    };
    report_failure(&FailedRun { plan, failure }, arguments);
    Ok(false)
}

fn run_many(arguments: &Arguments) -> Result<bool, String> {
    let begun = Instant::now();
    let sweep = arguments.sweep.map(|what| match what {
        Sweep::Crashes => sweep::crashes_at_every_sync(arguments.sweep_seed),
        Sweep::Faults => sweep::faults_at_every_operation(arguments.sweep_seed),
    });
    let seeds = arguments.seeds.clone().unwrap_or_else(|| {
        let start = random_seed();
        start..u64::MAX
    });
    let ends = arguments
        .minutes
        .map(|minutes| begun + Duration::from_mins(minutes));
    let next = |number: u64| match &sweep {
        Some(plans) => plans.get(number as usize).cloned(),
        None if ends.is_some_and(|ends| Instant::now() >= ends) => None,
        None => Some(seeds.start + number)
            .filter(|seed| seeds.contains(seed))
            .map(Plan::of_seed),
    };
    let expected = match (&sweep, &arguments.seeds) {
        (Some(plans), _) => Some(plans.len() as u64),
        (None, seeds) => seeds.as_ref().map(|seeds| seeds.end - seeds.start),
    };
    let bar = expected.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
    let style = ProgressStyle::with_template("{elapsed} {bar:30} {pos}/{len} runs, {msg}");
    bar.set_style(style.map_err(|error| error.to_string())?);
    let demands = sweep.is_none().then_some(ORDINARY);
    let settings = Settings {
        jobs: arguments
            .jobs
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)),
        is_twice: arguments.twice,
        failures_max: arguments.failures.max(1),
        demands,
    };
    let (totals, failed) = campaign::run_all(&next, settings, &|totals, failures| {
        bar.set_position(totals.runs);
        bar.set_message(pace(totals, failures, begun.elapsed()));
    });
    bar.finish_and_clear();
    print_totals(&totals, failed.len(), begun.elapsed(), arguments);
    for failed in &failed {
        report_failure(failed, arguments);
    }
    let lacks = match demands {
        Some(demands) if failed.is_empty() => demands.lacks_of_all(&totals),
        _ => Vec::new(),
    };
    for lack in &lacks {
        println!("\nFAILED: the runs together show less than is demanded of them: {lack}");
    }
    Ok(failed.is_empty() && lacks.is_empty())
}

fn random_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish() >> (u64::BITS - SOAK_SEED_BITS)
}

fn read_plan(path: &PathBuf) -> Result<Plan, String> {
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("can't read {}: {error}", path.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{} is no plan: {error}", path.display()))
}

fn pace(totals: &Totals, failures: usize, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64().max(0.001);
    format!(
        "{failures} failed, {:.0} events/s, {:.3} simulated hours per second",
        totals.events as f64 / seconds,
        totals.virtual_ns as f64 / 3.6e12 / seconds
    )
}

fn print_run(report: &Report, elapsed: Duration) {
    println!(
        "seed {}: trace {:016x}, {} events, {:.1} virtual seconds in {:.2} s; {} operations answered, \
         {} of {} requests across cores; {} starts, {} refused; {} crashes",
        report.seed,
        report.trace_hash,
        report.events,
        report.virtual_ns as f64 / 1e9,
        elapsed.as_secs_f64(),
        report.answered,
        report.cross_core,
        report.requests,
        report.starts,
        report.refused_starts,
        report.crashes(),
    );
    print_counters(&report.counters);
}

fn print_totals(totals: &Totals, failures: usize, elapsed: Duration, arguments: &Arguments) {
    println!(
        "{} runs{} in {:.1} s: {failures} failed, {}",
        totals.runs,
        if arguments.twice { ", each twice," } else { "" },
        elapsed.as_secs_f64(),
        pace(totals, failures, elapsed)
    );
    println!(
        "{} operations called, {} answered; {} % of {} requests across cores; {} starts, {} refused for a reason; {} \
         crashes",
        totals.operations,
        totals.answered,
        totals.cross_core_percent(),
        totals.requests,
        totals.starts,
        totals.refused_starts,
        totals.crashes
    );
    print_counters(&totals.counters);
    let refusals: Vec<String> = totals
        .refusals
        .iter()
        .map(|(code, count)| format!("{code} {count}"))
        .collect();
    println!("refused requests: {}", refusals.join(", "));
}

fn print_counters(counters: &Counters) {
    println!("faults that struck:");
    for (kind, count) in counters.iter() {
        println!("  {:<24}{count:>10}", kind.name());
    }
}

/// Says what broke, how to see it again, and a smaller form of it.
fn report_failure(failed: &FailedRun, arguments: &Arguments) {
    let FailedRun { plan, failure } = failed;
    println!(
        "\nFAILED: seed {}, commit {}",
        plan.seed,
        ostrakon::process::version::COMMIT
    );
    println!("{failure}");
    let is_of_seed = *plan == Plan::of_seed(plan.seed);
    let report = run(plan, None);
    let (plan, report) = if arguments.shrink_runs > 0 && report.failure.is_some() {
        std::panic::set_hook(Box::new(|_| {}));
        let shrunk = shrink::shrink(plan, report, arguments.shrink_runs, &mut |_, _| {});
        let _quiet_until_here = std::panic::take_hook();
        println!(
            "\nmade smaller by {} runs: {} faults, {} operations, {} clients",
            shrunk.runs,
            shrunk.plan.fault_count(),
            shrunk.plan.operations(),
            shrunk.plan.clients.len()
        );
        if let Some(failure) = &shrunk.report.failure {
            println!("{failure}");
        }
        (shrunk.plan, shrunk.report)
    } else {
        (plan.clone(), report)
    };
    println!("\nfaults: {:#?}", plan.faults);
    if !plan.faults_at.is_empty() || plan.crash_at_sync.is_some() {
        println!(
            "at operations: {:#?}, crash at sync {:?}",
            plan.faults_at, plan.crash_at_sync
        );
    }
    if !plan.rudenesses.is_empty() {
        println!("rude connections: {:?}", plan.rudenesses);
    }
    for (host, lines) in &report.last_events {
        println!("\nlast events of {host}:");
        for line in lines.iter().rev().take(40).rev() {
            println!("  {line}");
        }
    }
    let path = format!("sim-{}.plan.json", plan.seed);
    match serde_json::to_string_pretty(&plan).map(|text| std::fs::write(&path, text)) {
        Ok(Ok(())) => println!(
            "\nreplay the smaller run:  cargo run --profile sim -p ostrakon-tests --bin sim -- --plan {path}"
        ),
        Ok(Err(error)) => println!("\ncan't write {path}: {error}"),
        Err(error) => println!("\ncan't write the plan: {error}"),
    }
    if is_of_seed {
        println!(
            "replay the whole run:    cargo run --profile sim -p ostrakon-tests --bin sim -- --seed {}",
            plan.seed
        );
    }
}
