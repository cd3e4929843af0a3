//! The command line: what can be typed, and what it means ([`Arguments::into_configuration`]).
//!
//! Nothing here touches the outside, save the list of allowed CPUs that is passed in.

mod configuration;
mod parse;

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use crate::arrival::Arrivals;
use crate::distribution::{Distribution, ZIPFIAN_CONSTANT};
use crate::value::ValueSize;
use crate::workload::{Mix, Workload};

pub use configuration::{Configuration, Goal, Goals, OpenLoop, RunLength, Target};
pub use parse::parse_cpus;
use parse::{parse_duration, parse_fraction, parse_rate, parse_theta, parse_value_size};

/// Records of a run that says nothing else.
pub const RECORDS_DEFAULT: u64 = 100_000;
/// Above this, two keys of YCSB's hashed key space may well be the same (one chance in 2,000).
pub const RECORDS_MAX: u64 = 100_000_000;
/// Length of a run phase that says nothing else.
pub const DURATION_DEFAULT: Duration = Duration::from_secs(10);
/// Length of each step of a search that says nothing else.
pub const STEP_DEFAULT: Duration = Duration::from_secs(5);
/// Warm-up of each step of a search that says nothing else.
pub const STEP_WARM_UP_DEFAULT: Duration = Duration::from_secs(1);
/// Records of a multi-get or multi-put of a run that says nothing else.
const MULTI_RECORDS_DEFAULT: u32 = 10;
/// Counters of a run that says nothing else.
const COUNTERS_DEFAULT: u32 = 100;
/// Records of a YCSB scan at most.
const SCAN_RECORDS_DEFAULT: u32 = 100;

/// Load generator and verifier for Ostrakon.
///
/// Without arguments: starts a node inside this process with its data in ./loadgen-data, loads 100,000
/// records of 1,000 bytes, runs YCSB workload A for 10 seconds, reads everything back and compares it with
/// what the node had acknowledged, and prints throughput and latencies. Takes about 15 seconds.
///
/// Without --rate each connection is a closed loop: it keeps --pipeline operations unanswered and hands over a
/// new one when one is answered. With --rate the load is an open loop: operations are due at that rate,
/// whatever the answers do, and latency is counted from the moment an operation was due, so that a stall of
/// the server shows in full. Retries after a `Busy` answer are part of the latency in both.
///
/// Exit codes: 0 all well; 1 wrong usage, a failure, operations answered with errors, or no rate that meets
/// the goals of --find-max; 2 the database broke a promise (see --verify); 3 the node was lost (see
/// --on-disconnect stop).
#[derive(Debug, Clone, Parser)]
#[command(name = "loadgen", version, max_term_width = 110)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one flag of the command line"
)]
pub struct Arguments {
    /// YCSB core workload: a (50 % reads, 50 % updates), b (95/5), c (reads only), d (95 % reads of the latest
    /// records, 5 % inserts), e (95 % scans, 5 % inserts), f (50 % reads, 50 % read-modify-writes). A value is
    /// one blob, so an update writes the whole value, where YCSB's default writes one of ten fields
    /// [default: a]
    #[arg(
        long,
        value_enum,
        ignore_case = true,
        conflicts_with = "mix",
        help_heading = "Workload"
    )]
    pub workload: Option<Workload>,

    /// A mix of one's own, as weights: KIND=WEIGHT,… with the kinds read, update, insert, scan, rmw
    /// (read-modify-write), delete, add (to a counter; see --counters), ttl (an update that expires; see --ttl), mget
    /// and mput (several records at once; see --multi) and rscan (backwards), such as read=80,update=15,insert=5
    #[arg(long, value_name = "MIX", help_heading = "Workload")]
    pub mix: Option<Mix>,

    /// Number of records [default: those of the register file, else 100000]
    #[arg(long, help_heading = "Workload")]
    pub records: Option<u64>,

    /// How records are chosen. zipfian: YCSB's scrambled zipfian, among the records that were there when the
    /// run phase began. uniform: every record alike. latest: zipfian, the record inserted last the most
    /// frequent. sequential: one after the other, by number, then from the first again. hotset: see
    /// --hot-records [default: latest for workload d, else zipfian]
    #[arg(long, value_enum, help_heading = "Workload")]
    pub distribution: Option<Distribution>,

    /// Skew of zipfian and latest, above 0 and below 1
    #[arg(long, default_value_t = ZIPFIAN_CONSTANT, value_parser = parse_theta, help_heading = "Workload")]
    pub theta: f64,

    /// With --distribution hotset: the part of the records that is hot
    #[arg(long, value_name = "PART", default_value_t = 0.2, value_parser = parse_fraction, help_heading = "Workload")]
    pub hot_records: f64,

    /// With --distribution hotset: the part of the operations that goes to hot records
    #[arg(long, value_name = "PART", default_value_t = 0.8, value_parser = parse_fraction, help_heading = "Workload")]
    pub hot_operations: f64,

    /// Bytes of a value, or a range of which every length is as likely, such as 100-1000; the self-check
    /// header of 40 bytes included [default: --fields × --field-bytes]
    #[arg(long, value_name = "BYTES|LO-HI", value_parser = parse_value_size, help_heading = "Workload")]
    pub value_size: Option<ValueSize>,

    /// Fields of a record; their sizes only add up, since a value is one blob
    #[arg(
        long,
        default_value_t = 10,
        conflicts_with = "value_size",
        help_heading = "Workload"
    )]
    pub fields: usize,

    /// Bytes of a field
    #[arg(
        long,
        default_value_t = 100,
        conflicts_with = "value_size",
        help_heading = "Workload"
    )]
    pub field_bytes: usize,

    /// Most records of a scan; every number from 1 on is as likely
    #[arg(long, value_name = "RECORDS", default_value_t = SCAN_RECORDS_DEFAULT, help_heading = "Workload")]
    pub scan_length: u32,

    /// Records of each mget and mput: the chosen one and those after it by number
    #[arg(long, value_name = "RECORDS", default_value_t = MULTI_RECORDS_DEFAULT, help_heading = "Workload")]
    pub multi: u32,

    /// How long after a ttl operation its record is absent
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration, help_heading = "Workload")]
    pub ttl: Duration,

    /// Counters that adds increment; the chosen record's number says which. They are new in each run, and verified by
    /// its check
    #[arg(long, value_name = "N", default_value_t = COUNTERS_DEFAULT, help_heading = "Workload")]
    pub counters: u32,

    /// Seed of the choice of operations, records and arrivals
    #[arg(long, default_value_t = 1, help_heading = "Workload")]
    pub seed: u64,

    /// What to do, of load, run and check; always in this order. `load` writes every record once, `run` runs
    /// the workload, `check` compares a full scan with the register of writes [default: load,run; with
    /// --verify load,run,check]
    #[arg(long = "phase", value_enum, value_delimiter = ',', help_heading = "Load")]
    pub phases: Vec<Phase>,

    /// Length of the run phase, in operations after the warm-up
    #[arg(long, conflicts_with = "duration", help_heading = "Load")]
    pub operations: Option<u64>,

    /// Length of the run phase after the warm-up, as a time such as 30s, 5m or 500ms; with --find-max of each
    /// step [default: 10s; with --find-max 5s]
    #[arg(long, value_parser = parse_duration, help_heading = "Load")]
    pub duration: Option<Duration>,

    /// Run so long before measuring; what is due meanwhile is in no figure but the errors and the time series
    /// [default: none; with --find-max 1s for each step]
    #[arg(long, value_name = "TIME", value_parser = parse_duration, help_heading = "Load")]
    pub warmup: Option<Duration>,

    /// Connections, spread over the threads and the addresses
    #[arg(long, default_value_t = 50, help_heading = "Load")]
    pub connections: usize,

    /// Unanswered operations per connection at most
    #[arg(long, default_value_t = 1, help_heading = "Load")]
    pub pipeline: usize,

    /// Open loop: so many operations per second, such as 20000 or 20k; or a ramp, such as 1k-50k, over --ramp.
    /// What is due before the end is carried out, however late, up to 10 s after it
    #[arg(long, value_name = "RATE|A-B", value_parser = parse_rate, help_heading = "Load")]
    pub rate: Option<RateRange>,

    /// How long the change from A to B of --rate takes; B holds from then on [default: --duration]
    #[arg(long, value_name = "TIME", value_parser = parse_duration, requires = "rate", help_heading = "Load")]
    pub ramp: Option<Duration>,

    /// How the operations of an open loop lie in time: evenly, or as of many independent clients
    #[arg(long, value_enum, default_value = "constant", help_heading = "Load")]
    pub arrivals: Arrivals,

    /// Search for the highest rate at which the goals hold (--p50, --p95, --p99, --p999; at least one), no
    /// operation fails and none is left behind: open loops from --rate (default 1000) on, doubled until one
    /// fails, then halving the gap until it is below 5 %; the answer is measured once more, for twice as long
    #[arg(long, conflicts_with_all = ["operations", "ramp"], help_heading = "Load")]
    pub find_max: bool,

    /// Goal of --find-max: 50 % of the operations take at most so long
    #[arg(long, value_name = "TIME", value_parser = parse_duration, requires = "find_max", help_heading = "Load")]
    pub p50: Option<Duration>,

    /// Goal of --find-max: 95 % of the operations take at most so long
    #[arg(long, value_name = "TIME", value_parser = parse_duration, requires = "find_max", help_heading = "Load")]
    pub p95: Option<Duration>,

    /// Goal of --find-max: 99 % of the operations take at most so long, such as 5ms
    #[arg(long, value_name = "TIME", value_parser = parse_duration, requires = "find_max", help_heading = "Load")]
    pub p99: Option<Duration>,

    /// Goal of --find-max: 99.9 % of the operations take at most so long
    #[arg(long, value_name = "TIME", value_parser = parse_duration, requires = "find_max", help_heading = "Load")]
    pub p999: Option<Duration>,

    /// Threads, each pinned to a CPU [default: one per CPU of --cpus, else half of the allowed CPUs]
    #[arg(long, help_heading = "Load")]
    pub threads: Option<usize>,

    /// CPUs of the load threads, such as 2,3 or 4-7. An embedded node then keeps off them, if that leaves it
    /// any [default: the last allowed CPUs, which an embedded node uses too]
    #[arg(long, value_parser = parse_cpus, help_heading = "Load")]
    pub cpus: Option<CpuList>,

    /// What is loaded: ostrakon, or redis (GET, SET, DEL and INCR; needs --connect; no scans, no mget or mput, and no
    /// --verify) with the same operations, clock and histograms
    #[arg(
        long = "target",
        value_enum,
        default_value = "ostrakon",
        help_heading = "Target"
    )]
    pub speaks: Speaks,

    /// Addresses of running nodes of one cluster, as HOST:PORT,… or given several times; without it a node is
    /// started in this process. Connections go round them. With --target redis each key has one of them, by
    /// its hash
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', help_heading = "Target",
          conflicts_with_all = ["data", "cores", "shards"])]
    pub connect: Vec<String>,

    /// Which connections take an operation. any: all of them; the node passes requests on between its cores.
    /// shard: those to the core that owns the key, by the node's map of shards
    #[arg(long, value_enum, default_value = "any", help_heading = "Target")]
    pub route: Route,

    /// Ask for connections round robin on the node's cores; =false leaves the choice to the kernel
    #[arg(long, default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true,
          action = clap::ArgAction::Set, help_heading = "Target")]
    pub spread_cores: bool,

    /// Directory for the embedded node; not on tmpfs. It is made if it is not there. One made by loadgen (it
    /// holds a file LOADGEN) is emptied first if this run loads the database and continues no register file,
    /// and else used as it is. A directory that loadgen did not make is refused
    #[arg(
        long,
        value_name = "DIR",
        default_value = "loadgen-data",
        help_heading = "Target"
    )]
    pub data: PathBuf,

    /// Cores of the embedded node [default: all CPUs it may use]
    #[arg(long, help_heading = "Target")]
    pub cores: Option<u16>,

    /// Shards of the embedded node, if it makes a new database [default: the node's]
    #[arg(long, help_heading = "Target")]
    pub shards: Option<u32>,

    /// What a lost connection means: `fail` ends with exit code 1; `stop` ends the phase, with all unanswered
    /// writes registered as of unknown outcome, and exit code 3
    #[arg(long, value_enum, default_value = "fail", help_heading = "Target")]
    pub on_disconnect: OnDisconnect,

    /// Name every write by a session and a number, so that it can be sent again: a lost connection is opened again,
    /// and what was unanswered is sent again over it, each write still happening once. No outcome is unknown then,
    /// if the node comes back in time
    #[arg(long, help_heading = "Target")]
    pub sessions: bool,

    /// With --sessions: how long to wait for a node that went away
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration, help_heading = "Target")]
    pub retry_for: Duration,

    /// Keep a register of all writes, check every read against it, and at the end compare a full scan with
    /// it. The database must hold nothing else and nobody else may write to it. Not with delete or ttl. On when an
    /// embedded node is loaded and nothing speaks against it; =false turns it off
    #[arg(long, default_missing_value = "true", num_args = 0..=1, require_equals = true,
          help_heading = "Verification")]
    pub verify: Option<bool>,

    /// Keep the register in this file, so that a later run goes on with it: loaded at the start if it exists,
    /// saved after each phase, also when the node is lost. Implies --verify
    #[arg(long, value_name = "FILE", help_heading = "Verification")]
    pub register: Option<PathBuf>,

    /// Write every request and its answer to this file, as Jepsen's EDN (see docs/histories.md), for checkers
    /// of linearizability and serializability. Values stand there as the number of the write among the writes
    /// of their key. Implies --verify, and needs the load phase; with read, update, insert and rmw only. While a phase
    /// runs, its part of the history lies in unnamed files beside FILE. About 125 bytes per event, two events per
    /// request
    #[arg(long, value_name = "FILE", help_heading = "Verification")]
    pub history: Option<PathBuf>,

    /// Print one JSON document instead of the table
    #[arg(long, help_heading = "Output")]
    pub json: bool,

    /// Also write the JSON document to this file
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub json_out: Option<PathBuf>,

    /// Write the latency distribution of the last phase in the percentile table of HDR histograms, in milliseconds:
    /// whole operations to FILE; each kind of request, and for an open loop the time from handing over, to
    /// files beside it (out.hgrm, out.read.hgrm, …, out.service.hgrm)
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub hgrm: Option<PathBuf>,

    /// Draw the last phase as an SVG: throughput and latency percentiles over time, latency distribution, with
    /// --stages where the time goes, and with --find-max the latency at each rate
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub plot: Option<PathBuf>,

    /// Ask the node where the time of every so manieth request goes: waiting for its turn, between cores, for the
    /// log, and else; what is left is the network's and the client's [default: none; --stages: every 16th]
    #[arg(long, value_name = "EVERY", default_missing_value = "16", num_args = 0..=1, require_equals = true,
          value_parser = clap::value_parser!(u32).range(1..), help_heading = "Output")]
    pub stages: Option<u32>,

    /// Print throughput and latencies of every second, too
    #[arg(long, help_heading = "Output")]
    pub series: bool,

    /// No progress bar and no notes; only the table (or the JSON document) and errors
    #[arg(long, help_heading = "Output")]
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

/// What is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Speaks {
    /// An Ostrakon node.
    Ostrakon,
    /// A Redis server.
    Redis,
}

/// Which connections take an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Route {
    /// All of them.
    Any,
    /// Those to the core that owns the key.
    Shard,
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

/// The two ends of a ramp, in operations per second; the same for a fixed rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RateRange {
    /// At the beginning.
    pub from_per_second: f64,
    /// At the end.
    pub to_per_second: f64,
}

/// CPU numbers, ascending, each once.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(transparent)]
pub struct CpuList(pub Vec<usize>);

#[cfg(test)]
mod tests;
