//! What holds after defaults, with every contradiction refused in a sentence that says what to do.

use std::path::PathBuf;
use std::time::Duration;

use super::{
    Arguments, CpuList, DURATION_DEFAULT, OnDisconnect, Phase, RECORDS_DEFAULT, RECORDS_MAX, RateRange,
    Route, STEP_DEFAULT, STEP_WARM_UP_DEFAULT, Speaks,
};
use crate::arrival::{Arrivals, Rate};
use crate::distribution::Choice;
use crate::driver::MULTI_RECORDS_MAX;
use crate::keys::KEY_BYTES_MAX;
use crate::value::{VALUE_HEADER_BYTES, ValueSize};
use crate::workload::{Mix, OperationKind, Workload};

const CONNECTIONS_MAX: usize = 10_000;
const PIPELINE_MAX: usize = 4096;
const COUNTERS_MAX: u64 = 1_000_000;
/// First rate of a search that names none, in operations per second.
const SEARCH_FROM_PER_SECOND: f64 = 1000.0;

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
    /// Running at these addresses.
    Connect(Vec<String>),
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

/// The arrivals of an open loop.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct OpenLoop {
    /// How many are due.
    pub rate: Rate,
    /// How they lie in time.
    pub arrivals: Arrivals,
}

/// What a rate must keep, in a search for the highest; at least one.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(transparent)]
pub struct Goals(pub Vec<Goal>);

/// The latency that a percentile may have at most.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Goal {
    /// Such as `p99`.
    pub name: &'static str,
    /// Part of the operations, from 0 to 1.
    pub quantile: f64,
    /// What they may take.
    pub most_us: u64,
}

/// What a run does, all defaults applied.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one flag of the command line"
)]
pub struct Configuration {
    /// Of YCSB; none for a mix of one's own.
    pub workload: Option<Workload>,
    /// Operations of the run phase.
    pub mix: Mix,
    /// In ascending order, each at most once, at least one.
    pub phases: Vec<Phase>,
    /// Number of records, if the command line gives it.
    pub records: Option<u64>,
    /// How records are chosen.
    pub choice: Choice,
    /// Lengths of values.
    pub value_size: ValueSize,
    /// Most records of a scan.
    pub scan_records_max: u32,
    /// Records of a request for several.
    pub multi_records: u32,
    /// Of updates that expire.
    #[serde(rename = "ttl_ms", serialize_with = "as_milliseconds")]
    pub ttl: Duration,
    /// Counters of adds.
    pub counters: u32,
    /// Every so manieth request asks where its time goes, if any does.
    pub stages_every: Option<u32>,
    /// If writes are in sessions: how long a node that went away is waited for.
    #[serde(rename = "retry_for_ms", serialize_with = "as_milliseconds_if_any")]
    pub retry_for: Option<Duration>,
    /// Length of the run phase, or of each step of a search.
    pub run_length: RunLength,
    /// Before it.
    #[serde(rename = "warm_up_ms", serialize_with = "as_milliseconds")]
    pub warm_up: Duration,
    /// None for a closed loop. The first step of a search.
    pub open_loop: Option<OpenLoop>,
    /// If the highest rate is searched for.
    pub goals: Option<Goals>,
    /// Connections of all threads together.
    pub connections: usize,
    /// Unanswered operations per connection.
    pub pipeline: usize,
    /// CPU of each thread.
    pub thread_cpus: Vec<usize>,
    /// What is loaded.
    pub speaks: Speaks,
    /// Where it is.
    pub target: Target,
    /// Which connections take an operation.
    pub route: Route,
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
    /// Write percentile tables here.
    pub hgrm: Option<PathBuf>,
    /// Draw here.
    pub plot: Option<PathBuf>,
    /// Print every second.
    pub series: bool,
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
        let (workload, mix) = match (self.workload, self.mix) {
            (_, Some(mix)) => (None, mix),
            (workload, None) => {
                let workload = workload.unwrap_or(Workload::A);
                (Some(workload), workload.mix())
            }
        };
        let value_size = self.value_size()?;
        let thread_cpus = self.thread_cpus(allowed_cpus)?;
        let (phases, verify) = self.phases_and_verify(&mix)?;
        self.refuse_for_redis(&mix)?;
        if mix.has(OperationKind::MultiUpdate) {
            self.refuse_big_multi_puts(value_size)?;
        }
        let goals = self.goals(&phases)?;
        let run_length = self.run_length();
        let open_loop = self.open_loop(run_length)?;
        let ycsb_choice = workload.unwrap_or(Workload::A).distribution();
        let target = self.target(allowed_cpus);
        let step_warm_up = if self.find_max {
            STEP_WARM_UP_DEFAULT
        } else {
            Duration::ZERO
        };
        Ok(Configuration {
            workload,
            mix,
            phases,
            records: self.records,
            choice: Choice {
                distribution: self.distribution.unwrap_or(ycsb_choice),
                theta: self.theta,
                hot_records: self.hot_records,
                hot_operations: self.hot_operations,
            },
            value_size,
            scan_records_max: self.scan_length,
            multi_records: self.multi,
            ttl: self.ttl,
            counters: self.counters,
            stages_every: self.stages,
            retry_for: self.sessions.then_some(self.retry_for),
            run_length,
            warm_up: self.warmup.unwrap_or(step_warm_up),
            open_loop,
            goals,
            connections: self.connections,
            pipeline: self.pipeline,
            thread_cpus,
            speaks: self.speaks,
            target,
            route: self.route,
            spread_cores: self.spread_cores,
            seed: self.seed,
            verify,
            register: self.register,
            history: self.history,
            on_disconnect: self.on_disconnect,
            json: self.json,
            json_out: self.json_out,
            hgrm: self.hgrm,
            plot: self.plot,
            series: self.series,
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
        let scan_most = ostrakon_wire::limits::SCAN_LIMIT_MAX;
        between("multi", u64::from(self.multi), MULTI_RECORDS_MAX as u64)?;
        between("counters", u64::from(self.counters), COUNTERS_MAX)?;
        between(
            "ttl (in ms)",
            self.ttl.as_millis() as u64,
            ostrakon_wire::limits::TTL_MS_MAX,
        )?;
        between("scan-length", u64::from(self.scan_length), u64::from(scan_most))?;
        between(
            "threads",
            self.threads.unwrap_or(1) as u64,
            self.connections as u64,
        )
        .map_err(|error| format!("{error} (a thread needs a connection; see --connections)"))
    }

    fn value_size(&self) -> Result<ValueSize, String> {
        let (value_size, origin) = match self.value_size {
            Some(value_size) => (Some(value_size), "--value-size"),
            None => (
                self.fields.checked_mul(self.field_bytes).map(ValueSize::fixed),
                "--fields × --field-bytes",
            ),
        };
        let most = ostrakon_wire::limits::VALUE_BYTES_MAX;
        value_size
            .filter(|size| VALUE_HEADER_BYTES <= size.low_bytes && size.high_bytes <= most)
            .ok_or_else(|| {
                format!(
                    "{origin} must be from {VALUE_HEADER_BYTES} (the header with which a value \
                     checks itself) to {most} bytes"
                )
            })
    }

    /// What a multi-put carries shares the room of the longest put.
    fn refuse_big_multi_puts(&self, value_size: ValueSize) -> Result<(), String> {
        let most = ostrakon_wire::limits::KEY_BYTES_MAX + ostrakon_wire::limits::VALUE_BYTES_MAX;
        let record_bytes = KEY_BYTES_MAX + value_size.high_bytes;
        let records = self.multi as usize;
        if records * record_bytes <= most {
            return Ok(());
        }
        Err(format!(
            "an mput of {records} records (--multi) with up to {} bytes of value is longer than the {most} bytes \
             that a node takes at once; give --multi {} or less, or a smaller --value-size",
            value_size.high_bytes,
            most / record_bytes
        ))
    }

    fn run_length(&self) -> RunLength {
        let default = if self.find_max {
            STEP_DEFAULT
        } else {
            DURATION_DEFAULT
        };
        match (self.operations, self.duration) {
            (Some(operations), _) => RunLength::Operations(operations),
            (None, duration) => RunLength::Duration(duration.unwrap_or(default)),
        }
    }

    fn open_loop(&self, run_length: RunLength) -> Result<Option<OpenLoop>, String> {
        let range = match (self.rate, self.find_max) {
            (Some(range), _) => range,
            (None, true) => RateRange {
                from_per_second: SEARCH_FROM_PER_SECOND,
                to_per_second: SEARCH_FROM_PER_SECOND,
            },
            (None, false) if self.arrivals == Arrivals::Poisson => {
                return Err("--arrivals is about an open loop; add --rate or --find-max".to_owned());
            }
            (None, false) => return Ok(None),
        };
        let is_ramp = range.from_per_second.total_cmp(&range.to_per_second).is_ne();
        let ramp_seconds = match (is_ramp, self.ramp, run_length) {
            (true, _, _) if self.find_max => {
                return Err("--find-max begins at one rate; give --rate one number".to_owned());
            }
            (false, Some(_), _) => {
                return Err("--ramp needs the two ends of a ramp, such as --rate 1k-50k".to_owned());
            }
            (false, None, _) => 0.0,
            (true, Some(ramp), _) => ramp.as_secs_f64(),
            (true, None, RunLength::Duration(duration)) => duration.as_secs_f64(),
            (true, None, RunLength::Operations(_)) => {
                return Err("a ramp of a run in operations needs its length; add --ramp".to_owned());
            }
        };
        Ok(Some(OpenLoop {
            rate: Rate {
                from_per_second: range.from_per_second,
                to_per_second: range.to_per_second,
                ramp_seconds,
            },
            arrivals: self.arrivals,
        }))
    }

    fn goals(&self, phases: &[Phase]) -> Result<Option<Goals>, String> {
        if !self.find_max {
            return Ok(None);
        }
        if !phases.contains(&Phase::Run) {
            return Err("--find-max searches in the run phase; add `run` to --phase".to_owned());
        }
        let goals: Vec<Goal> = [
            ("p50", 0.5, self.p50),
            ("p95", 0.95, self.p95),
            ("p99", 0.99, self.p99),
            ("p99.9", 0.999, self.p999),
        ]
        .into_iter()
        .filter_map(|(name, quantile, most)| {
            Some(Goal {
                name,
                quantile,
                most_us: most?.as_micros() as u64,
            })
        })
        .collect();
        if goals.is_empty() {
            return Err("--find-max needs a goal; add one such as --p99 5ms".to_owned());
        }
        Ok(Some(Goals(goals)))
    }

    fn target(&self, allowed_cpus: &CpuList) -> Target {
        if !self.connect.is_empty() {
            return Target::Connect(self.connect.clone());
        }
        Target::Embedded {
            directory: self.data.clone(),
            cores: self.cores,
            shards: self.shards,
            cpus: node_cpus(self.cpus.as_ref(), allowed_cpus),
        }
    }

    /// Redis has neither versions nor ordered scans nor shards.
    fn refuse_for_redis(&self, mix: &Mix) -> Result<(), String> {
        if self.speaks != Speaks::Redis {
            return Ok(());
        }
        let what = if self.connect.is_empty() {
            "--target redis needs the address of a running Redis; add --connect HOST:PORT"
        } else if mix.has_any(OperationKind::is_scan) {
            "Redis keeps no order of keys, so there is no scan to compare with; choose a workload without scans"
        } else if mix.has(OperationKind::MultiRead) || mix.has(OperationKind::MultiUpdate) {
            "mget and mput are compared with nothing of Redis; leave them out of --mix"
        } else if self.sessions || self.stages.is_some() {
            "Redis knows no sessions and does not say where time goes; leave --sessions and --stages out"
        } else if self.route == Route::Shard {
            "--route shard asks an Ostrakon node for its map; leave it out with --target redis"
        } else if self.verify == Some(true) || self.register.is_some() || self.history.is_some() {
            "verifying needs the versions that Ostrakon gives with each answer; leave --verify, --register and \
             --history out with --target redis"
        } else if self.phases.contains(&Phase::Check) {
            "--phase check scans an Ostrakon node; leave it out with --target redis"
        } else {
            return Ok(());
        };
        Err(what.to_owned())
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

    fn phases_and_verify(&self, mix: &Mix) -> Result<(Vec<Phase>, bool), String> {
        let mut phases = self.phases.clone();
        phases.sort_unstable();
        phases.dedup();
        let is_loaded_here = self.connect.is_empty() && (phases.is_empty() || phases.contains(&Phase::Load));
        let needs_register =
            self.register.is_some() || self.history.is_some() || phases.contains(&Phase::Check);
        if needs_register && self.verify == Some(false) {
            return Err(
                "--verify=false contradicts --register, --history and --phase check; leave one of them out"
                    .to_owned(),
            );
        }
        let is_verifiable = !mix.has_any(OperationKind::removes);
        let verify = self
            .verify
            .unwrap_or(needs_register || is_loaded_here && is_verifiable);
        if verify && !is_verifiable {
            return Err(
                "the register knows no deletes and no expiry; leave delete and ttl out of --mix, or leave --verify, \
                 --register and --history out"
                    .to_owned(),
            );
        }
        if self.history.is_some() && mix.has_any(|kind| !is_in_history(kind)) {
            return Err(
                "a history holds reads and writes of single records; choose a workload without scans, adds and \
                 requests for several records, or leave --history out"
                    .to_owned(),
            );
        }
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

/// Can a history tell of it?
fn is_in_history(kind: OperationKind) -> bool {
    matches!(
        kind,
        OperationKind::Read | OperationKind::Update | OperationKind::Insert | OperationKind::ReadModifyWrite
    )
}

#[expect(clippy::ref_option, reason = "serde lends the field as it is")]
fn as_milliseconds_if_any<S: serde::Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => as_milliseconds(duration, serializer),
        None => serializer.serialize_none(),
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
