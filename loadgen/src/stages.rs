//! Where the time of requests went: the server's account of its stages, and what is left for network and client.
//!
//! A share of the requests asks for it. The server answers with the nanoseconds that the request waited for its
//! turn, was on the way between cores, waited for the log, and took otherwise; their sum is the server's time. The
//! request's own latency here runs from putting it into its connection's buffer until its answer is decoded, so what
//! the server's time leaves of it belongs to the network, the kernel and this program.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use ostrakon_client::StageTimings;

use crate::statistics::{Measure, count, histogram};

/// A part of a request's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Received, and waiting for its turn on its connection.
    Queue,
    /// On the way to the core that owns the key, and back.
    Hop,
    /// Waiting for the log: until a write is durable, or until what a read has to wait for is.
    Log,
    /// Lookup, decision, application and encoding.
    Apply,
    /// All of these.
    Server,
    /// What the server's time leaves.
    NetworkAndClient,
}

impl Stage {
    /// In the order of the table.
    pub const ALL: [Self; 6] = [
        Self::Queue,
        Self::Hop,
        Self::Log,
        Self::Apply,
        Self::Server,
        Self::NetworkAndClient,
    ];

    /// For tables and pictures.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Hop => "hop",
            Self::Log => "log",
            Self::Apply => "apply",
            Self::Server => "server",
            Self::NetworkAndClient => "network, client",
        }
    }
}

type OfOneKind = [Histogram<u64>; Stage::ALL.len()];

/// Of one executor, or, merged, of a phase.
#[derive(Debug, Clone, Default)]
pub struct Stages {
    kinds: BTreeMap<Measure, Box<OfOneKind>>,
}

impl Stages {
    /// One answered request. Allocates for the first of its kind only.
    pub fn record(&mut self, measure: Measure, latency_ns: u64, timings: &StageTimings) {
        // The two clocks are of two machines, so the parts can be more than the whole by a hair.
        let rest_ns = latency_ns.saturating_sub(timings.total_ns);
        let times_ns = [
            timings.queue_ns,
            timings.hop_ns,
            timings.log_ns,
            timings.apply_ns,
            timings.total_ns,
            rest_ns,
        ];
        for (histogram, time_ns) in self.of_kind(measure).iter_mut().zip(times_ns) {
            // A server may say anything; the histogram's bound is 13 days.
            count(histogram, time_ns.min(1 << 49));
        }
    }

    /// Adds what another executor recorded.
    pub fn merge(&mut self, other: &Self) {
        for (measure, theirs) in &other.kinds {
            for (mine, theirs) in self.of_kind(*measure).iter_mut().zip(theirs.iter()) {
                mine.add(theirs).expect("all histograms have the same bounds");
            }
        }
    }

    /// Kinds of requests that there are samples of.
    pub fn measures(&self) -> impl Iterator<Item = Measure> {
        self.kinds.keys().copied()
    }

    /// Times of one stage, in nanoseconds.
    pub fn times_ns(&self, measure: Measure, stage: Stage) -> Option<&Histogram<u64>> {
        self.kinds.get(&measure).map(|kind| &kind[stage as usize])
    }

    fn of_kind(&mut self, measure: Measure) -> &mut OfOneKind {
        let kind = self.kinds.entry(measure);
        kind.or_insert_with(|| Box::new(std::array::from_fn(|_| histogram())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_does_not_account_for_is_network_and_client() {
        let timings = StageTimings {
            queue_ns: 1_000,
            hop_ns: 2_000,
            log_ns: 30_000,
            apply_ns: 4_000,
            total_ns: 37_000,
        };
        let (mut one, mut other) = (Stages::default(), Stages::default());
        one.record(Measure::Update, 50_000, &timings);
        other.record(Measure::Update, 50_000, &timings);
        other.record(Measure::Read, 30_000, &timings);
        one.merge(&other);
        let at = |measure, stage| {
            let times = one.times_ns(measure, stage).unwrap();
            (times.len(), times.max())
        };
        let near = |found: (u64, u64), count: u64, expected: u64| {
            assert_eq!(found.0, count);
            assert!(found.1.abs_diff(expected) <= expected / 500, "{found:?}");
        };
        near(at(Measure::Update, Stage::Log), 2, 30_000);
        near(at(Measure::Update, Stage::Server), 2, 37_000);
        near(at(Measure::Update, Stage::NetworkAndClient), 2, 13_000);
        near(at(Measure::Read, Stage::NetworkAndClient), 1, 0);
        assert_eq!(
            one.measures().collect::<Vec<_>>(),
            [Measure::Read, Measure::Update]
        );
        assert!(one.times_ns(Measure::Scan, Stage::Log).is_none());
    }
}
