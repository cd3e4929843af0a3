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
use ostrakon_tests::scenario::campaign::{
    self, FailedRun, ORDINARY, SAME_AGAIN, Settings, Totals, run_once_or_twice,
};
use ostrakon_tests::scenario::judge::Failure;
use ostrakon_tests::scenario::plan::Plan;
use ostrakon_tests::scenario::run::{Report, TraceWriter, run};
use ostrakon_tests::scenario::{shrink, sweep};
use ostrakon_tests::sim::Counters;

const EXIT_FAILED: u8 = 1;
const EXIT_VIOLATION: u8 = 2;
/// Seeds that `--minutes` takes begin at a random place, so that two soaks see different ones.
const SOAK_SEED_BITS: u32 = 48;
/// How a run is started again.
const COMMAND: &str = "cargo run --profile sim -p ostrakon-tests --bin sim --";

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
    /// Runs random seeds for so many minutes
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    minutes: Option<u64>,
    /// Runs a short workload with one crash or fault at each of its operations
    #[arg(long, value_enum, value_name = "WHAT")]
    sweep: Option<Sweep>,
    /// Runs a plan that a failure has left
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// Writes every event of the run (of the first with --twice) to this file, or without one to standard error. Only
    /// with --seed or --plan
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "/dev/stderr")]
    #[arg(conflicts_with_all = MANY)]
    trace: Option<PathBuf>,
    /// Writes what the clients saw to this file, in Jepsen's form. Only with --seed or --plan
    #[arg(long, value_name = "FILE", conflicts_with_all = MANY)]
    history: Option<PathBuf>,
    /// Runs each plan twice and compares the traces
    #[arg(long)]
    twice: bool,
    /// Threads, for many runs [default: one per CPU]
    #[arg(long, value_name = "N", conflicts_with_all = ONE, value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    /// Runs that may be spent on making a failed one smaller; 0 leaves it as it is
    #[arg(long, value_name = "N", default_value_t = 300)]
    shrink_runs: u32,
    /// Goes on until so many runs have failed, with many runs [default: 1]
    #[arg(long, value_name = "N", conflicts_with_all = ONE, value_parser = clap::value_parser!(u32).range(1..))]
    failures: Option<u32>,
    /// Seed of the sweep's workload [default: 1]
    #[arg(long, value_name = "N", conflicts_with_all = WITHOUT_SWEEP)]
    sweep_seed: Option<u64>,
}

/// What makes one run, and what makes many.
const ONE: [&str; 2] = ["seed", "plan"];
const MANY: [&str; 3] = ["seeds", "minutes", "sweep"];
const WITHOUT_SWEEP: [&str; 4] = ["seed", "seeds", "minutes", "plan"];

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
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // A closed standard output leaves nobody to tell.
            let _unread = error.print();
            return if error.use_stderr() {
                ExitCode::from(EXIT_FAILED)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    keep_freed_memory();
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

/// Each run takes and frees some megabytes, thousands of times. Giving them back to the kernel each time takes as long
/// as the runs.
fn keep_freed_memory() {
    const MMAP_THRESHOLD_BYTES: i32 = 32 << 20;
    const TRIM_THRESHOLD_BYTES: i32 = 256 << 20;
    #[cfg(target_env = "gnu")]
    // SAFETY: it sets numbers of the allocator, before a second thread exists.
    let are_set = unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES) == 1
            && libc::mallopt(libc::M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES) == 1
    };
    #[cfg(target_env = "gnu")]
    assert!(are_set, "the allocator knows these settings");
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
    let trace = trace.map(|file| Box::new(file) as TraceWriter);
    let report = run_once_or_twice(&plan, arguments.twice, trace);
    if let Some(path) = &arguments.history {
        std::fs::write(path, report.history.to_edn())
            .map_err(|error| format!("can't write {}: {error}", path.display()))?;
    }
    print_run(&report, begun.elapsed());
    let Some(failure) = report.failure.clone() else {
        if arguments.twice {
            println!("the second run was the same: trace {:016x}", report.trace_hash);
        }
        return Ok(true);
    };
    report_failure(&FailedRun { plan, failure }, arguments);
    Ok(false)
}

fn run_many(arguments: &Arguments) -> Result<bool, String> {
    let begun = Instant::now();
    let sweep = match arguments.sweep {
        Some(Sweep::Crashes) => Some(sweep::crashes_at_every_sync(arguments.sweep_seed.unwrap_or(1))),
        Some(Sweep::Faults) => Some(sweep::faults_at_every_operation(
            arguments.sweep_seed.unwrap_or(1),
        )?),
        None => None,
    };
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
        jobs: arguments.jobs.map_or_else(available_threads, usize::from),
        is_twice: arguments.twice,
        failures_max: arguments.failures.unwrap_or(1) as usize,
        demands,
    };
    let (totals, failed) = campaign::run_all(&next, settings, &|totals, failures| {
        bar.set_position(totals.runs);
        bar.set_message(pace(totals, failures, begun.elapsed()));
    });
    bar.finish_and_clear();
    print_totals(&totals, failed.len(), begun.elapsed(), arguments);
    for (kind, count) in sweep.iter().flat_map(|plans| sweep::counts(plans)) {
        println!("runs with {kind:<20}{count:>8}");
    }
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

fn available_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
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
    let shown: Vec<String> = totals
        .shown
        .iter()
        .map(|(what, count)| format!("{what} {count}"))
        .collect();
    println!("shown: {}", shown.join(", "));
}

fn print_counters(counters: &Counters) {
    println!("faults that struck:");
    for (kind, count) in counters.iter() {
        println!("  {:<24}{count:>10}", kind.name());
    }
}

/// Says what broke, how to see it again, and a smaller form of it.
fn report_failure(failed: &FailedRun, arguments: &Arguments) {
    println!(
        "\nFAILED: seed {}, commit {}",
        failed.plan.seed,
        ostrakon::process::version::COMMIT
    );
    println!("{}", failed.failure);
    let (plan, report) = smaller(failed, arguments.shrink_runs);
    print_faults(&plan);
    for (host, lines) in &report.last_events {
        println!("\nlast events of {host}:");
        for line in lines.iter().rev().take(40).rev() {
            println!("  {line}");
        }
    }
    let path = format!("sim-{}.plan.json", plan.seed);
    let written = serde_json::to_string_pretty(&plan)
        .map_err(|error| error.to_string())
        .and_then(|text| std::fs::write(&path, text).map_err(|error| error.to_string()));
    println!();
    if let Err(error) = &written {
        println!("can't write {path}: {error}");
    }
    for line in replay_commands(failed, &plan, written.is_ok().then_some(&path)) {
        println!("{line}");
    }
}

/// The plan that a failure is shown with: a smaller one if that fails alike.
fn smaller(failed: &FailedRun, runs_max: u32) -> (Plan, Report) {
    let report = run(&failed.plan, None);
    if report.failure.is_none() && !only_shows_twice(&failed.failure) {
        println!("\nrun again, the same plan does not fail: it does not run the same way each time");
    }
    if runs_max == 0 || report.failure.is_none() {
        return (failed.plan.clone(), report);
    }
    std::panic::set_hook(Box::new(|_| {}));
    let shrunk = shrink::shrink(&failed.plan, report, runs_max, &mut |_, _| {});
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
}

/// True for the failure that a single run can't have.
fn only_shows_twice(failure: &Failure) -> bool {
    failure.check == SAME_AGAIN
}

fn print_faults(plan: &Plan) {
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
}

/// Commands that run `shown`, which lies at `path`, and what failed, again.
fn replay_commands(failed: &FailedRun, shown: &Plan, path: Option<&String>) -> Vec<String> {
    let twice = if only_shows_twice(&failed.failure) {
        " --twice"
    } else {
        ""
    };
    let what = if *shown == failed.plan {
        "replay the run:        "
    } else {
        "replay the smaller run:"
    };
    let seed = failed.plan.seed;
    let of_plan = path.map(|path| format!("{what}  {COMMAND} --plan {path}{twice}"));
    let of_seed = (failed.plan == Plan::of_seed(seed))
        .then(|| format!("replay the whole run:    {COMMAND} --seed {seed}{twice}"));
    of_plan.into_iter().chain(of_seed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands(check: &str, plan: Plan, shown: &Plan) -> Vec<String> {
        let failure = Failure {
            check: check.to_owned(),
            detail: String::new(),
        };
        replay_commands(&FailedRun { plan, failure }, shown, Some(&"p.json".to_owned()))
    }

    #[test]
    fn what_only_two_runs_show_is_replayed_twice() {
        let plan = Plan::of_seed(7);
        assert_eq!(
            commands(SAME_AGAIN, plan.clone(), &plan),
            [
                format!("replay the run:          {COMMAND} --plan p.json --twice"),
                format!("replay the whole run:    {COMMAND} --seed 7 --twice"),
            ]
        );
        assert_eq!(
            commands("no task panics", plan.clone(), &Plan::short(7)),
            [
                format!("replay the smaller run:  {COMMAND} --plan p.json"),
                format!("replay the whole run:    {COMMAND} --seed 7"),
            ]
        );
    }

    #[test]
    fn a_plan_that_no_seed_gives_is_replayed_from_its_file_only() {
        let plan = Plan::short(7);
        assert_eq!(
            commands(SAME_AGAIN, plan.clone(), &plan),
            [format!(
                "replay the run:          {COMMAND} --plan p.json --twice"
            )]
        );
    }
}
