//! `beyond-memory`: a data set ten times the memory of the server, over power cuts, and what it takes.
//!
//! 1. The server runs as a user would run it, with `--memory` and in a control group that allows it
//!    [`EXCESS_PERCENT`] more, on a small file system of its own ([`rig`]).
//! 2. All keys are put in random order, overwritten twice in other orders, and half of them deleted ([`clients`]).
//! 3. At moments that the seed chooses among the overwrites and deletes the power is cut. The server is started again
//!    and must serve; a scan holds every key against what was acknowledged ([`model`]), and the pass goes on.
//! 4. After the overwrites and after the deletes it is waited until nothing is left to do, and the files are measured.
//! 5. At the end the power is cut once more, all keys are read by gets and by a scan, and the server is stopped and
//!    started in order.
//!
//! It fails if a key is lost or wrong, if the server takes more memory than it may, or more space than [`SPACE_MAX`]
//! of the live data. Times are printed beside their goals and not judged: they are the machine's, too.

pub mod clients;
pub mod model;
pub mod rig;

mod summary;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::Args;
use loadgen::random::Random;

use self::clients::{CLIENTS, Findings, Progress};
use self::model::{HEAD_BYTES, Model, Pass, Values};
use self::rig::{After, Rig};
use crate::cli::{Common, Setup};
use crate::machine;
use crate::report::{Report, number};
use crate::settled;

const MIB: u64 = 1 << 20;
/// What the server may take beyond its memory, in percent.
pub const EXCESS_PERCENT: u64 = 15;
/// Bytes of files for each byte of live data, after all is settled.
pub const SPACE_MAX: f64 = 1.3;
/// Seconds from a start after a cut until the server serves.
const REOPEN_SECONDS_MAX: f64 = 2.0;
/// How long the server may take to settle.
const SETTLED_WITHIN: Duration = Duration::from_mins(20);
/// After a cut the server lives on for up to so long, to acknowledge what it must not.
const LINGER_MS_MAX: u64 = 200;
/// Between two looks at how far a pass has come.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// What the disk has besides twice the data: log segments, and room for merges.
const DISK_BYTES_MIN: u64 = 2048 * MIB;

/// Arguments of the benchmark.
#[derive(Debug, Clone, Args)]
pub struct BeyondMemory {
    /// MiB of memory that the server is given
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u64).range(32..))]
    pub memory_mib: u64,

    /// MiB of keys and values [default: ten times the memory]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..))]
    pub data_mib: Option<u64>,

    /// Power cuts among the overwrites and deletes; one more comes at the end
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub cuts: usize,

    /// Chooses the moments of the cuts [default: another one each time]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,

    /// Percent of a value that do not compress; the rest are zeros
    #[arg(long, value_name = "PERCENT", default_value_t = 50, value_parser = clap::value_parser!(u64).range(0..=100))]
    pub noise_percent: u64,

    /// What the control group allows, in percent of the memory; more than 115 shows how much would be needed
    #[arg(long, value_name = "PERCENT", default_value_t = 100 + EXCESS_PERCENT,
          value_parser = clap::value_parser!(u64).range(100..=1000))]
    pub limit_percent: u64,

    /// What every benchmark takes.
    #[command(flatten)]
    pub common: Common,
}

/// A row of the report: one phase.
#[derive(Debug, Clone)]
struct Phase {
    name: String,
    operations: u64,
    seconds: f64,
    /// Of keys and values that went over the wire.
    bytes: u64,
    /// Writes that were refused for the moment.
    refused: u64,
}

/// What files take when all is settled.
#[derive(Debug, Clone, Copy)]
struct Space {
    after: &'static str,
    live_bytes: u64,
    file_bytes: u64,
    table_bytes: u64,
    /// Tables' bytes for each byte in their last levels, as the server has it.
    of_last_levels: f64,
    /// What was written to the device for each byte that clients wrote, since the beginning.
    write_amplification: f64,
    settled_seconds: f64,
}

/// A run on its way.
struct Run<'a> {
    arguments: &'a BeyondMemory,
    rig: Rig<'a>,
    model: Model,
    seed: u64,
    random: Random,
    /// Moments of cuts that are left, in acknowledged writes since the load, the next one last.
    cuts: Vec<u64>,
    /// Acknowledged writes since the load, in passes that have ended.
    written: u64,
    user_bytes: u64,
    phases: Vec<Phase>,
    spaces: Vec<Space>,
    findings: Findings,
    unknown: u64,
}

impl BeyondMemory {
    /// Measures.
    ///
    /// # Errors
    /// A sentence, if anything fails on the way that is no finding of its own.
    pub fn run(&self, setup: &Setup) -> Result<Report, String> {
        let values = self.values()?;
        let keys = self.data_bytes() / values.record_bytes();
        if keys < CLIENTS {
            return Err(format!(
                "--data-mib {} holds {keys} keys of {} bytes; give more of it, or a smaller --value-size",
                self.data_bytes() / MIB,
                values.record_bytes()
            ));
        }
        let disk_bytes = 2 * self.data_bytes() + DISK_BYTES_MIN;
        let free = machine::free_bytes(setup.workspace.path())?;
        if free < disk_bytes {
            return Err(format!(
                "{} has {} MiB free, and {} may be needed; give --data a larger device, or a smaller --data-mib",
                self.common.data.display(),
                free / MIB,
                disk_bytes / MIB
            ));
        }
        let seed = self.seed.unwrap_or_else(fresh_seed);
        eprintln!("seed {seed}: {keys} keys of {} bytes", values.record_bytes());
        let mut random = Random::new(seed);
        let limit_bytes = self.memory_bytes() * self.limit_percent / 100;
        let mut run = Run {
            arguments: self,
            rig: Rig::new(setup, self.memory_mib, limit_bytes, disk_bytes)?,
            cuts: cuts(self.cuts, keys, &mut random),
            model: Model::new(keys, values),
            seed,
            random,
            written: 0,
            user_bytes: 0,
            phases: Vec::new(),
            spaces: Vec::new(),
            findings: Findings::default(),
            unknown: 0,
        };
        run.all().map_err(|error| run.rig.explained(&error))?;
        Ok(run.report(setup))
    }

    fn memory_bytes(&self) -> u64 {
        self.memory_mib * MIB
    }

    fn data_bytes(&self) -> u64 {
        self.data_mib.unwrap_or(10 * self.memory_mib) * MIB
    }

    fn values(&self) -> Result<Values, String> {
        let bytes = self.common.value_size;
        if bytes < 2 * HEAD_BYTES {
            return Err(format!(
                "--value-size is {bytes}; give {} or more: a value begins with what it is",
                2 * HEAD_BYTES
            ));
        }
        Ok(Values {
            bytes,
            noise_bytes: bytes * self.noise_percent as usize / 100,
        })
    }
}

/// Moments of the cuts, the first one last.
fn cuts(count: usize, keys: u64, random: &mut Random) -> Vec<u64> {
    let writes = |pass: Pass| (0..keys).filter(|number| pass.wants(*number)).count() as u64;
    let all = Pass::ALL[1..].iter().map(|pass| writes(*pass)).sum();
    let mut cuts: Vec<u64> = (0..count).map(|_| random.next_below(all)).collect();
    cuts.sort_unstable_by(|one, other| other.cmp(one));
    cuts
}

fn fresh_seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(1, |now| now.as_secs())
}

impl Run<'_> {
    fn all(&mut self) -> Result<(), String> {
        for pass in Pass::ALL {
            self.pass(pass)?;
            let after = match pass {
                Pass::Load | Pass::Overwrite => continue,
                Pass::OverwriteAgain => "overwrites",
                Pass::Delete => "deletes",
            };
            self.settle(after)?;
        }
        eprintln!("a {} at the end", self.rig.cut_name());
        self.rig.cut(Duration::ZERO)?;
        self.rig.start(After::Cut)?;
        self.read_all()?;
        self.scan("scan all")?;
        self.rig.stop()?;
        self.rig.start(After::Stop)?;
        self.rig.stop()
    }

    /// Takes a pass to its end, over cuts.
    fn pass(&mut self, pass: Pass) -> Result<(), String> {
        let mut phase = Phase {
            name: pass.name().to_owned(),
            operations: 0,
            seconds: 0.0,
            bytes: 0,
            refused: 0,
        };
        let record_bytes = match pass {
            Pass::Delete => model::key(0).len() as u64,
            _ => self.model.values().record_bytes(),
        };
        let mut done = 0;
        loop {
            let target = self.cuts.last().filter(|_| pass != Pass::Load);
            let target = target.map(|cut| cut.saturating_sub(self.written));
            let progress = Progress::default();
            let begun = Instant::now();
            let was_cut = self.write(pass, &progress, target.map(|target| target.saturating_sub(done)))?;
            phase.seconds += was_cut.unwrap_or_else(|| begun.elapsed()).as_secs_f64();
            phase.refused += progress.refused.load(Ordering::Relaxed);
            done += progress.answered.load(Ordering::Relaxed);
            if was_cut.is_none() {
                break;
            }
            self.cuts.pop();
            self.unknown += self.model.unknown();
            self.rig.start(After::Cut)?;
            let ready_ms = self
                .rig
                .lives()
                .last()
                .map_or(0, |life| life.ready_after.as_millis());
            eprintln!(
                "{} after {done} writes of {}: ready after {ready_ms} ms",
                self.rig.cut_name(),
                pass.name()
            );
            self.scan(&format!(
                "scan after {} {}",
                self.rig.cut_name(),
                self.rig.lives().len() - 1
            ))?;
        }
        phase.operations = done;
        phase.bytes = done * record_bytes;
        self.user_bytes += phase.bytes;
        if pass != Pass::Load {
            self.written += done;
        }
        self.end(phase)
    }

    /// Lets clients write until the pass is at its end, or so many writes are acknowledged: then the power is cut.
    /// Returns after how long that was.
    fn write(
        &mut self,
        pass: Pass,
        progress: &Progress,
        cut_after: Option<u64>,
    ) -> Result<Option<Duration>, String> {
        let address = self.rig.server()?.address().to_owned();
        let linger = Duration::from_millis(self.random.next_below(LINGER_MS_MAX));
        let (model, cpu) = (&self.model, self.arguments.common.client_cpu);
        let rig = &mut self.rig;
        std::thread::scope(|scope| {
            let address = address.as_str();
            let begun = Instant::now();
            let threads: Vec<_> = (0..CLIENTS)
                .map(|client| {
                    scope.spawn(move || clients::write(address, model, pass, client, cpu, progress))
                })
                .collect();
            let mut cut = Ok(None);
            while progress.ended.load(Ordering::SeqCst) < CLIENTS as usize {
                if cut_after.is_some_and(|writes| progress.answered.load(Ordering::Relaxed) >= writes) {
                    progress.is_cut.store(true, Ordering::SeqCst);
                    let elapsed = begun.elapsed();
                    cut = rig.cut(linger).map(|()| Some(elapsed));
                    break;
                }
                std::thread::sleep(LOOK_AGAIN);
            }
            for thread in threads {
                thread
                    .join()
                    .map_err(|_| "a client's thread panicked".to_owned())??;
            }
            cut
        })
    }

    fn settle(&mut self, after: &'static str) -> Result<(), String> {
        eprintln!("settling after the {after}");
        let settled = settled::wait(self.rig.server()?, SETTLED_WITHIN)?;
        self.rig.look()?;
        let stats = self.rig.server()?.stats()?;
        let (file_bytes, table_bytes) = self.rig.file_bytes()?;
        self.spaces.push(Space {
            after,
            live_bytes: self.model.live_keys() * self.model.values().record_bytes(),
            file_bytes,
            table_bytes,
            of_last_levels: crate::server::core_figure(&stats, "storage/space_amplification")?,
            write_amplification: self.rig.written_bytes() as f64 / self.user_bytes as f64,
            settled_seconds: settled.as_secs_f64(),
        });
        Ok(())
    }

    fn read_all(&mut self) -> Result<(), String> {
        let address = self.rig.server()?.address().to_owned();
        let (model, cpu) = (&self.model, self.arguments.common.client_cpu);
        let begun = Instant::now();
        let findings = std::thread::scope(|scope| {
            let address = address.as_str();
            let threads: Vec<_> = (0..CLIENTS)
                .map(|client| scope.spawn(move || clients::read(address, model, client, cpu)))
                .collect();
            let mut findings = Findings::default();
            for thread in threads {
                findings.add(
                    thread
                        .join()
                        .map_err(|_| "a client's thread panicked".to_owned())??,
                );
            }
            Ok::<_, String>(findings)
        })?;
        self.checked("get all", findings, begun.elapsed())
    }

    fn scan(&mut self, name: &str) -> Result<(), String> {
        let address = self.rig.server()?.address();
        let (model, cpu) = (&self.model, self.arguments.common.client_cpu);
        let scanned = std::thread::scope(|scope| {
            let thread = scope.spawn(move || clients::scan(address, model, cpu));
            thread
                .join()
                .map_err(|_| "the scan's thread panicked".to_owned())?
        });
        let (findings, elapsed) = scanned?;
        self.checked(name, findings, elapsed)
    }

    fn checked(&mut self, name: &str, findings: Findings, elapsed: Duration) -> Result<(), String> {
        let phase = Phase {
            name: name.to_owned(),
            operations: findings.checked,
            seconds: elapsed.as_secs_f64(),
            bytes: self.model.live_keys() * self.model.values().record_bytes(),
            refused: 0,
        };
        for sentence in &findings.sentences {
            eprintln!("{sentence}");
        }
        self.findings.add(findings);
        self.end(phase)
    }

    fn end(&mut self, phase: Phase) -> Result<(), String> {
        self.rig.look()?;
        let peak = self.rig.lives().last().map_or(0, |life| life.peak_bytes);
        eprintln!(
            "{}: {} in {:.1} s, {}/s; resident memory at most {} MiB",
            phase.name,
            number(phase.operations as f64, 0),
            phase.seconds,
            number(phase.operations as f64 / phase.seconds, 0),
            peak / MIB
        );
        self.phases.push(phase);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_follow_from_the_seed_and_lie_among_the_writes() {
        let keys = 1000;
        let one = cuts(5, keys, &mut Random::new(3));
        assert_eq!(one, cuts(5, keys, &mut Random::new(3)));
        assert!(one.is_sorted_by(|one, other| one >= other));
        assert!(one.iter().all(|cut| *cut < 3 * keys), "{one:?}");
        assert!(cuts(0, keys, &mut Random::new(3)).is_empty());
    }
}
