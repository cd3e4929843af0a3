//! The load beside the probe: updates of uniformly chosen records, by `loadgen` inside this process.
//!
//! Beside the probe its threads give way to it, since they share a CPU: what the probe waits for shall be the server.

use clap::Parser;
use loadgen::cli::Arguments;
use loadgen::kernel;
use loadgen::report::{Outcome, PhaseReport};

use crate::machine;

/// What `loadgen` found in one phase.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Operations a second.
    pub per_second: f64,
    /// Median of whole operations, in microseconds.
    pub p50_us: f64,
    /// Their 99th percentile.
    pub p99_us: f64,
    /// Whole seconds after the warm-up in which nothing was answered.
    pub silent_seconds: u64,
    /// Share of the time that its busiest thread was on its CPU.
    pub busy: f64,
}

/// Where and on what it works.
#[derive(Debug, Clone)]
pub struct Background {
    /// The server.
    pub address: String,
    /// Records.
    pub records: u64,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// CPU of its thread.
    pub cpu: usize,
}

impl Background {
    /// Writes every record once.
    ///
    /// # Errors
    /// A sentence, if an operation fails or the server is lost.
    pub fn load(&self) -> Result<Loaded, String> {
        self.drive(&["--phase", "load", "--pipeline", "8"])
    }

    /// Updates in a closed loop.
    ///
    /// # Errors
    /// A sentence, if an operation fails or the server is lost.
    pub fn at_full_speed(&self, seconds: u64) -> Result<Loaded, String> {
        self.drive(&[
            "--phase",
            "run",
            "--pipeline",
            "4",
            "--duration",
            &format!("{seconds}s"),
        ])
    }

    /// Updates in an open loop, so many a second. What is due in the warm-up is not counted. The calling thread gives
    /// way to others from here on.
    ///
    /// # Errors
    /// As [`Background::at_full_speed`]; and if the server could not keep up.
    pub fn at_rate(&self, per_second: f64, warm_up_seconds: u64, seconds: u64) -> Result<Loaded, String> {
        let warm_up = format!("{warm_up_seconds}s");
        let (rate, duration) = (format!("{per_second:.0}"), format!("{seconds}s"));
        machine::give_way()?;
        let open = ["--phase", "run", "--pipeline", "16", "--rate", &rate];
        self.drive(&[&open[..], &["--warmup", &warm_up, "--duration", &duration]].concat())
    }

    fn drive(&self, more: &[&str]) -> Result<Loaded, String> {
        let (records, bytes, cpu) = (
            self.records.to_string(),
            self.value_bytes.to_string(),
            self.cpu.to_string(),
        );
        let words = [
            "loadgen",
            "--quiet",
            "--verify=false",
            "--mix",
            "update=1",
            "--distribution",
            "uniform",
        ];
        let place = ["--connect", &self.address, "--threads", "1", "--cpus", &cpu];
        let data = ["--records", &records, "--value-size", &bytes];
        let all = [&words[..], &place[..], &data[..], more].concat();
        let arguments = Arguments::try_parse_from(all).map_err(|error| error.to_string())?;
        let configuration = arguments.into_configuration(&kernel::allowed_cpus()?)?;
        let report = loadgen::run::execute(&configuration)?;
        if report.outcome != Outcome::Ok {
            let reason = report.reason.unwrap_or_default();
            return Err(format!("the load did not go through: {reason}"));
        }
        let phase = report.phases.last().ok_or("the load has no phase")?;
        Ok(Loaded::of(phase))
    }
}

impl Loaded {
    fn of(phase: &PhaseReport) -> Self {
        let whole = phase
            .series
            .iter()
            .filter(|row| row.second >= 0 && row.lasted_seconds >= 1.0);
        Self {
            per_second: phase.operations_per_second,
            p50_us: phase.latency.p50_us,
            p99_us: phase.latency.p99_us,
            silent_seconds: whole.filter(|row| row.operations == 0).count() as u64,
            busy: phase.busiest_thread,
        }
    }
}
