//! The command line, and the configuration that follows from it.
//!
//! [`Arguments`] is what was typed; [`Configuration`] is what holds after defaults, with every contradiction
//! refused in a sentence that says what to do. Nothing here touches the outside, save the list of allowed
//! CPUs that is passed in.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use crate::value::VALUE_HEADER_BYTES;
use crate::workload::Workload;

/// Records of a run that says nothing else.
pub const RECORDS_DEFAULT: u64 = 100_000;
/// Above this, two keys of YCSB's hashed key space may well be the same (one chance in 2,000).
pub const RECORDS_MAX: u64 = 100_000_000;
/// Length of a run phase that says nothing else.
pub const DURATION_DEFAULT: Duration = Duration::from_secs(10);
const CONNECTIONS_MAX: usize = 10_000;
const PIPELINE_MAX: usize = 4096;

/// Load generator and verifier for Ostrakon.
///
/// Without arguments: starts a node inside this process with its data in ./loadgen-data, loads 100,000
/// records of 1,000 bytes, runs YCSB workload A for 10 seconds, reads everything back and compares it with
/// what the node had acknowledged, and prints throughput and latencies. Takes about 15 seconds.
///
/// Each connection is a closed loop: it keeps --pipeline operations unanswered and hands over a new one when
/// one is answered. Latency runs from handing an operation to its connection until its answer is decoded,
/// retries after a `Busy` answer included.
///
/// Exit codes: 0 all well; 1 wrong usage, a failure, or operations answered with errors; 2 the database broke
/// a promise (see --verify); 3 the node was lost (see --on-disconnect stop).
#[derive(Debug, Clone, Parser)]
#[command(name = "loadgen", version, max_term_width = 110)]
pub struct Arguments {
    /// YCSB core workload: a (50 % reads, 50 % updates), b (95/5), c (reads only), f (50 % reads, 50 %
    /// read-modify-writes). A value is one blob, so an update writes the whole value, where YCSB's default
    /// writes one of ten fields.
    #[arg(long, value_enum, default_value = "a", ignore_case = true)]
    pub workload: Workload,

    /// What to do, of load, run and check; always in this order. `load` writes every record once, `run` runs
    /// the workload, `check` compares a full scan with the register of writes [default: load,run; with
    /// --verify load,run,check]
    #[arg(long = "phase", value_enum, value_delimiter = ',')]
    pub phases: Vec<Phase>,

    /// Number of records [default: those of the register file, else 100000]
    #[arg(long)]
    pub records: Option<u64>,

    /// Length of the run phase, in operations
    #[arg(long, conflicts_with = "duration")]
    pub operations: Option<u64>,

    /// Length of the run phase as a time such as 30s, 5m or 500ms [default: 10s]
    #[arg(long, value_parser = parse_duration)]
    pub duration: Option<Duration>,

    /// Connections, spread over the threads
    #[arg(long, default_value_t = 50)]
    pub connections: usize,

    /// Unanswered operations per connection
    #[arg(long, default_value_t = 1)]
    pub pipeline: usize,

    /// Threads, each pinned to a CPU [default: one per CPU of --cpus, else half of the allowed CPUs]
    #[arg(long)]
    pub threads: Option<usize>,

    /// CPUs of the load threads, such as 2,3 or 4-7. An embedded node then keeps off them, if that leaves it
    /// any [default: the last allowed CPUs, which an embedded node uses too]
    #[arg(long, value_parser = parse_cpus)]
    pub cpus: Option<CpuList>,

    /// Fields of a record; their sizes only add up, since a value is one blob
    #[arg(long, default_value_t = 10, conflicts_with = "value_size")]
    pub fields: usize,

    /// Bytes of a field
    #[arg(long, default_value_t = 100, conflicts_with = "value_size")]
    pub field_bytes: usize,

    /// Bytes of a value, the self-check header of 40 bytes included [default: --fields × --field-bytes]
    #[arg(long)]
    pub value_size: Option<usize>,

    /// How the run phase chooses records; zipfian is YCSB's scrambled zipfian with the constant 0.99
    #[arg(long, value_enum, default_value = "zipfian")]
    pub distribution: Distribution,

    /// Address of a running node; without it a node is started in this process
    #[arg(long, value_name = "HOST:PORT", conflicts_with_all = ["data", "cores", "shards"])]
    pub connect: Option<String>,

    /// Directory for the embedded node; not on tmpfs. It is made if it is not there. One made by loadgen (it
    /// holds a file LOADGEN) is emptied first if this run loads the database and continues no register file,
    /// and else used as it is. A directory that loadgen did not make is refused
    #[arg(long, value_name = "DIR", default_value = "loadgen-data")]
    pub data: PathBuf,

    /// Cores of the embedded node [default: all CPUs it may use]
    #[arg(long)]
    pub cores: Option<u16>,

    /// Shards of the embedded node, if it makes a new database [default: the node's]
    #[arg(long)]
    pub shards: Option<u32>,

    /// Ask for connections round robin on the node's cores; =false leaves the choice to the kernel
    #[arg(long, default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true,
          action = clap::ArgAction::Set)]
    pub spread_cores: bool,

    /// Seed of the choice of operations and records
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// Keep a register of all writes, check every read against it, and at the end compare a full scan with
    /// it. The database must hold nothing else and nobody else may write to it. On when an embedded node is
    /// loaded; =false turns it off
    #[arg(long, default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    pub verify: Option<bool>,

    /// Keep the register in this file, so that a later run goes on with it: loaded at the start if it exists,
    /// saved after each phase, also when the node is lost. Implies --verify
    #[arg(long, value_name = "FILE")]
    pub register: Option<PathBuf>,

    /// Write every request and its answer to this file, as Jepsen's EDN (see docs/histories.md), for checkers
    /// of linearizability and serializability. Values stand there as the number of the write among the writes
    /// of their key. Implies --verify, and needs the load phase. While a phase runs, its part of the history
    /// lies in unnamed files beside FILE. About 125 bytes per event, two events per request
    #[arg(long, value_name = "FILE")]
    pub history: Option<PathBuf>,

    /// What a lost connection means: `fail` ends with exit code 1; `stop` ends the phase, with all unanswered
    /// writes registered as of unknown outcome, and exit code 3
    #[arg(long, value_enum, default_value = "fail")]
    pub on_disconnect: OnDisconnect,

    /// Print one JSON document instead of the table
    #[arg(long)]
    pub json: bool,

    /// Also write the JSON document to this file
    #[arg(long, value_name = "FILE")]
    pub json_out: Option<PathBuf>,

    /// No progress bar and no notes; only the table (or the JSON document) and errors
    #[arg(long)]
    pub quiet: bool,
}

/// A step of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Write every record once.
    Load,
    /// Run the workload.
    Run,
    /// Compare a full scan with the register.
    Check,
}

/// How records are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Distribution {
    /// YCSB's scrambled zipfian.
    Zipfian,
    /// Every record alike.
    Uniform,
}

/// What a lost connection means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnDisconnect {
    /// A failure.
    Fail,
    /// A clean end of the phase.
    Stop,
}

/// CPU numbers, ascending, each once.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(transparent)]
pub struct CpuList(pub Vec<usize>);

/// Length of the run phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RunLength {
    /// So many operations, over all threads.
    Operations(u64),
    /// So long.
    #[serde(rename = "duration_ms", serialize_with = "as_milliseconds")]
    Duration(Duration),
}

/// Where the node is.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// Running at this address.
    Connect(String),
    /// To be started in this process.
    Embedded {
        /// Directory of loadgen's; the node's data lies below it.
        directory: PathBuf,
        /// Executors of the node; the node decides if not given.
        cores: Option<u16>,
        /// Shards of a new database; the node decides if not given.
        shards: Option<u32>,
        /// CPUs of the node; all that are allowed if not given.
        cpus: Option<CpuList>,
    },
}

/// What a run does, all defaults applied.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one flag of the command line"
)]
pub struct Configuration {
    /// Operations of the run phase.
    pub workload: Workload,
    /// In ascending order, each at most once, at least one.
    pub phases: Vec<Phase>,
    /// Number of records, if the command line gives it.
    pub records: Option<u64>,
    /// Length of the run phase.
    pub run_length: RunLength,
    /// Connections of all threads together.
    pub connections: usize,
    /// Unanswered operations per connection.
    pub pipeline: usize,
    /// CPU of each thread.
    pub thread_cpus: Vec<usize>,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// How records are chosen.
    pub distribution: Distribution,
    /// Where the node is.
    pub target: Target,
    /// Name cores in the hello.
    pub spread_cores: bool,
    /// Of the pseudo-random numbers.
    pub seed: u64,
    /// Keep and check a register.
    pub verify: bool,
    /// File of the register.
    pub register: Option<PathBuf>,
    /// File of the history.
    pub history: Option<PathBuf>,
    /// What a lost connection means.
    pub on_disconnect: OnDisconnect,
    /// Print JSON.
    pub json: bool,
    /// Write JSON here.
    pub json_out: Option<PathBuf>,
    /// No notes, no progress bar.
    pub quiet: bool,
}

impl Arguments {
    /// Applies defaults and refuses contradictions.
    ///
    /// # Errors
    /// A sentence that says what is wrong and what to do.
    pub fn into_configuration(self, allowed_cpus: &CpuList) -> Result<Configuration, String> {
        self.refuse_out_of_range()?;
        let value_bytes = self.value_bytes()?;
        let thread_cpus = self.thread_cpus(allowed_cpus)?;
        let (phases, verify) = self.phases_and_verify()?;
        let run_length = match (self.operations, self.duration) {
            (Some(operations), _) => RunLength::Operations(operations),
            (None, duration) => RunLength::Duration(duration.unwrap_or(DURATION_DEFAULT)),
        };
        let node_cpus = node_cpus(self.cpus.as_ref(), allowed_cpus);
        let (directory, cores, shards) = (self.data, self.cores, self.shards);
        let embedded = Target::Embedded {
            directory,
            cores,
            shards,
            cpus: node_cpus,
        };
        let target = self.connect.map_or(embedded, Target::Connect);
        Ok(Configuration {
            workload: self.workload,
            phases,
            records: self.records,
            run_length,
            connections: self.connections,
            pipeline: self.pipeline,
            thread_cpus,
            value_bytes,
            distribution: self.distribution,
            target,
            spread_cores: self.spread_cores,
            seed: self.seed,
            verify,
            register: self.register,
            history: self.history,
            on_disconnect: self.on_disconnect,
            json: self.json,
            json_out: self.json_out,
            quiet: self.quiet,
        })
    }

    fn refuse_out_of_range(&self) -> Result<(), String> {
        let between = |name: &str, value: u64, most: u64| {
            if (1..=most).contains(&value) {
                return Ok(());
            }
            Err(format!("--{name} is {value}; give a number from 1 to {most}"))
        };
        between("records", self.records.unwrap_or(RECORDS_DEFAULT), RECORDS_MAX)?;
        between("operations", self.operations.unwrap_or(1), u64::MAX)?;
        between("connections", self.connections as u64, CONNECTIONS_MAX as u64)?;
        between("pipeline", self.pipeline as u64, PIPELINE_MAX as u64)?;
        between(
            "threads",
            self.threads.unwrap_or(1) as u64,
            self.connections as u64,
        )
        .map_err(|error| format!("{error} (a thread needs a connection; see --connections)"))
    }

    fn value_bytes(&self) -> Result<usize, String> {
        let (value_bytes, origin) = match self.value_size {
            Some(value_bytes) => (Some(value_bytes), "--value-size"),
            None => (
                self.fields.checked_mul(self.field_bytes),
                "--fields × --field-bytes",
            ),
        };
        let most = ostrakon_wire::limits::VALUE_BYTES_MAX;
        value_bytes
            .filter(|value_bytes| (VALUE_HEADER_BYTES..=most).contains(value_bytes))
            .ok_or_else(|| {
                format!(
                    "{origin} must be from {VALUE_HEADER_BYTES} (the header with which a value \
                     checks itself) to {most} bytes"
                )
            })
    }

    fn thread_cpus(&self, allowed: &CpuList) -> Result<Vec<usize>, String> {
        if let Some(foreign) = self
            .cpus
            .iter()
            .flat_map(|cpus| &cpus.0)
            .find(|cpu| !allowed.0.contains(cpu))
        {
            let allowed: Vec<String> = allowed.0.iter().map(ToString::to_string).collect();
            return Err(format!(
                "--cpus names CPU {foreign}, which this process may not use; it may use {}",
                allowed.join(",")
            ));
        }
        let chosen = self.cpus.as_ref().unwrap_or(allowed);
        let most = if self.cpus.is_some() {
            chosen.0.len()
        } else {
            (chosen.0.len() / 2).max(1)
        };
        let threads = self.threads.unwrap_or(most.min(self.connections));
        let last_first = chosen.0.iter().rev().copied().cycle();
        Ok(last_first.take(threads).collect())
    }

    fn phases_and_verify(&self) -> Result<(Vec<Phase>, bool), String> {
        let mut phases = self.phases.clone();
        phases.sort_unstable();
        phases.dedup();
        let is_loaded_here = self.connect.is_none() && (phases.is_empty() || phases.contains(&Phase::Load));
        let needs_register =
            self.register.is_some() || self.history.is_some() || phases.contains(&Phase::Check);
        if needs_register && self.verify == Some(false) {
            return Err(
                "--verify=false contradicts --register, --history and --phase check; leave one of them out"
                    .to_owned(),
            );
        }
        let verify = self.verify.unwrap_or(needs_register || is_loaded_here);
        if phases.is_empty() {
            phases = vec![Phase::Load, Phase::Run];
            phases.extend(verify.then_some(Phase::Check));
        }
        if verify && !phases.contains(&Phase::Load) && self.register.is_none() {
            return Err(
                "verifying needs the register of the writes that loaded the database; \
                        add `load` to --phase, or give --register FILE with the file of that run"
                    .to_owned(),
            );
        }
        if self.history.is_some() && !phases.contains(&Phase::Load) {
            return Err(
                "a history begins with the first write of each record; add `load` to --phase, or leave \
                 --history out"
                    .to_owned(),
            );
        }
        Ok((phases, verify))
    }
}

fn as_milliseconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(duration.as_millis() as u64)
}

/// The allowed CPUs without those of the load threads, if the user chose these and any remain.
fn node_cpus(threads: Option<&CpuList>, allowed: &CpuList) -> Option<CpuList> {
    let threads = threads?;
    let rest: Vec<usize> = allowed
        .0
        .iter()
        .copied()
        .filter(|cpu| !threads.0.contains(cpu))
        .collect();
    (!rest.is_empty()).then_some(CpuList(rest))
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit_ms = match &text[digits.len()..] {
        "ms" => Some(1.0),
        "" | "s" => Some(1000.0),
        "m" => Some(60_000.0),
        "h" => Some(3_600_000.0),
        _ => None,
    };
    let number: Option<f64> = digits.parse().ok();
    let milliseconds = unit_ms.zip(number).map(|(unit, number)| unit * number);
    match milliseconds.filter(|milliseconds| (1.0..1e11).contains(milliseconds)) {
        Some(milliseconds) => Ok(Duration::from_millis(milliseconds as u64)),
        None => Err(format!(
            "{text:?} is no time; write a number and ms, s, m or h, such as 30s"
        )),
    }
}

/// Reads a list such as `0,2-5`, as the kernel writes it.
///
/// # Errors
/// A sentence, when the text is no such list.
pub fn parse_cpus(text: &str) -> Result<CpuList, String> {
    let wrong = || format!("{text:?} is no list of CPUs; write numbers and ranges, such as 0,2-5");
    let mut cpus = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first: usize = first.parse().map_err(|_| wrong())?;
        let last: usize = last.parse().map_err(|_| wrong())?;
        if first > last || last >= 4096 {
            return Err(wrong());
        }
        cpus.extend(first..=last);
    }
    cpus.sort_unstable();
    cpus.dedup();
    Ok(CpuList(cpus))
}

#[cfg(test)]
mod tests;
