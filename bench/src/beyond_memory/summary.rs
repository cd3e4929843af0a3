//! What a run says at its end: tables, figures, and which promises did not come true.

use serde_json::json;

use super::rig::{After, Life};
use super::{EXCESS_PERCENT, MIB, REOPEN_SECONDS_MAX, Run, SPACE_MAX, Space};
use crate::cli::Setup;
use crate::report::{Report, Table, number};

impl Run<'_> {
    pub(super) fn report(&self, setup: &Setup) -> Report {
        let mut report = setup.report("a data set beyond the memory, over power cuts");
        let keys = number(self.model.keys() as f64, 0);
        let values = self.model.values();
        let bytes = number((self.model.keys() * values.record_bytes()) as f64 / MIB as f64, 0);
        report.setting("keys", format!("{keys}, with values {bytes} MiB"));
        report.setting(
            "noise",
            format!("{} of {} bytes", values.noise_bytes, values.bytes),
        );
        report.setting("memory", format!("{} MiB", self.arguments.memory_mib));
        report.setting("seed", self.seed.to_string());
        report.table(self.phase_table());
        report.table(self.memory_table());
        report.table(self.space_table());
        report.table(self.start_table());
        for sentence in self.rig.missing() {
            report.note(sentence.as_str());
        }
        self.judge(&mut report);
        report.figures(self.figures());
        report
    }

    fn phase_table(&self) -> Table {
        let columns = [
            "phase",
            "operations",
            "seconds",
            "per second",
            "MiB/s",
            "refused, sent again",
        ];
        let mut table = Table::new(
            "phases, without the time of cuts and what followed them",
            &columns,
        );
        for phase in &self.phases {
            table.row([
                phase.name.clone(),
                number(phase.operations as f64, 0),
                number(phase.seconds, 1),
                number(phase.operations as f64 / phase.seconds, 0),
                number(phase.bytes as f64 / MIB as f64 / phase.seconds, 1),
                number(phase.refused as f64, 0),
            ]);
        }
        table
    }

    fn peak_bytes(&self) -> u64 {
        self.rig
            .lives()
            .iter()
            .map(|life| life.peak_bytes)
            .max()
            .unwrap_or(0)
    }

    fn memory_table(&self) -> Table {
        let columns = [
            "given",
            "resident at most",
            "in percent",
            "may be",
            "control group at most",
        ];
        let mut table = Table::new("memory, MiB", &columns);
        let mib = |bytes: f64| number(bytes / MIB as f64, 1);
        let (peak, given) = (self.peak_bytes() as f64, self.arguments.memory_bytes() as f64);
        table.row([
            mib(given),
            mib(peak),
            number(peak / given * 100.0, 1),
            mib(given * (100 + EXCESS_PERCENT) as f64 / 100.0),
            mib(self.rig.group_peak_bytes().map_or(f64::NAN, |bytes| bytes as f64)),
        ]);
        table
    }

    fn space_table(&self) -> Table {
        let columns = [
            "settled after",
            "live MiB",
            "files MiB",
            "tables MiB",
            "files / live",
            "tables / live",
            "tables / last levels",
            "written / user bytes",
            "settled in s",
        ];
        let mut table = Table::new("space and writes", &columns);
        let mib = |bytes: u64| number(bytes as f64 / MIB as f64, 1);
        for space in &self.spaces {
            table.row([
                space.after.to_owned(),
                mib(space.live_bytes),
                mib(space.file_bytes),
                mib(space.table_bytes),
                number(space.amplification(), 2),
                number(space.table_bytes as f64 / space.live_bytes as f64, 2),
                number(space.of_last_levels, 2),
                number(space.write_amplification, 2),
                number(space.settled_seconds, 1),
            ]);
        }
        table
    }

    fn start_table(&self) -> Table {
        let columns = [
            "start after",
            "served after ms",
            "resident at most MiB",
            "written MiB",
        ];
        let mut table = Table::new("starts of the server", &columns);
        for life in self.rig.lives() {
            table.row([
                match life.after {
                    After::Nothing => "nothing",
                    After::Cut => self.rig.cut_name(),
                    After::Stop => "stop",
                }
                .to_owned(),
                number(life.ready_after.as_secs_f64() * 1e3, 0),
                number(life.peak_bytes as f64 / MIB as f64, 1),
                number(life.written_bytes as f64 / MIB as f64, 1),
            ]);
        }
        table
    }

    fn longest_reopening(&self) -> f64 {
        let after_cut = self.rig.lives().iter().filter(|life| life.after == After::Cut);
        after_cut
            .map(|life: &Life| life.ready_after.as_secs_f64())
            .fold(0.0, f64::max)
    }

    fn judge(&self, report: &mut Report) {
        let findings = &self.findings;
        report.note(format!(
            "{} keys were looked at, {} of them with a write of unknown outcome: {} lost, {} wrong, {} risen, {} of \
             nobody.",
            number(findings.checked as f64, 0),
            number(self.unknown as f64, 0),
            findings.lost,
            findings.wrong,
            findings.risen,
            findings.foreign
        ));
        let longest = self.longest_reopening();
        let verdict = if longest <= REOPEN_SECONDS_MAX {
            "met"
        } else {
            "missed"
        };
        report.note(format!(
            "The longest start after a {} took {longest:.2} s; goal ≤ {REOPEN_SECONDS_MAX} s: {verdict}.",
            self.rig.cut_name()
        ));
        if findings.faults() > 0 {
            report.fail(format!(
                "{} keys are not as they should be: {}",
                number(findings.faults() as f64, 0),
                findings.sentences.join("; ")
            ));
        }
        let (peak, given) = (self.peak_bytes(), self.arguments.memory_bytes());
        if peak > given * (100 + EXCESS_PERCENT) / 100 {
            report.fail(format!(
                "the server took {} MiB, {} % of what it was given; {} % are allowed",
                number(peak as f64 / MIB as f64, 1),
                peak * 100 / given,
                100 + EXCESS_PERCENT
            ));
        }
        for space in &self.spaces {
            for (what, amplification) in [
                ("files take", space.amplification()),
                ("tables take of their last levels", space.of_last_levels),
            ] {
                if amplification > SPACE_MAX {
                    report.fail(format!(
                        "settled after the {}, {what} {amplification:.2} times the bytes; goal ≤ {SPACE_MAX}; {} MiB \
                         of the files are no tables, but log segments for the most part",
                        space.after,
                        number((space.file_bytes - space.table_bytes) as f64 / MIB as f64, 0)
                    ));
                }
            }
        }
    }

    fn figures(&self) -> serde_json::Value {
        let phases = self.phases.iter().map(|phase| {
            json!({
                "phase": phase.name,
                "operations": phase.operations,
                "seconds": phase.seconds,
                "bytes": phase.bytes,
                "refused": phase.refused,
            })
        });
        let lives = self.rig.lives().iter().map(|life| {
            json!({
                "after": format!("{:?}", life.after).to_lowercase(),
                "ready_after_ms": life.ready_after.as_secs_f64() * 1e3,
                "rss_peak_bytes": life.peak_bytes,
                "written_bytes": life.written_bytes,
            })
        });
        json!({
            "seed": self.seed,
            "phases": phases.collect::<Vec<_>>(),
            "starts": lives.collect::<Vec<_>>(),
            "spaces": self.spaces.iter().map(|space| space.to_json()).collect::<Vec<_>>(),
            "memory_bytes": self.arguments.memory_bytes(),
            "rss_peak_bytes": self.peak_bytes(),
            "control_group_peak_bytes": self.rig.group_peak_bytes(),
            "checked": self.findings.checked,
            "unknown": self.unknown,
            "lost": self.findings.lost,
            "wrong": self.findings.wrong,
            "risen": self.findings.risen,
            "foreign": self.findings.foreign,
        })
    }
}

impl Space {
    fn amplification(self) -> f64 {
        self.file_bytes as f64 / self.live_bytes as f64
    }

    fn to_json(self) -> serde_json::Value {
        json!({
            "settled_after": self.after,
            "live_bytes": self.live_bytes,
            "file_bytes": self.file_bytes,
            "table_bytes": self.table_bytes,
            "tables_by_last_levels": self.of_last_levels,
            "write_amplification": self.write_amplification,
            "settled_seconds": self.settled_seconds,
        })
    }
}
