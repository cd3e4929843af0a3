//! Prometheus' text format, version 0.0.4: families of samples, each with its help and type, in one piece.
//!
//! `prometheus-client` writes the later `OpenMetrics` format, in which a counter's type line names something else than
//! its samples; scrapers of 0.0.4 would not know their type.

use std::fmt::{Display, Write as _};

/// Labels of a sample.
pub(super) type Labels<'a> = &'a [(&'a str, &'a str)];

/// What a family's samples are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Counter,
    Gauge,
    Histogram,
}

/// A text that grows by families.
#[derive(Default)]
pub(super) struct Exposition(String);

/// The family that is being written.
pub(super) struct Family<'a> {
    text: &'a mut String,
    name: &'static str,
}

impl Exposition {
    /// Begins a family. The names of counters end in `_total`.
    pub(super) fn family(&mut self, name: &'static str, of_type: Type, help: &str) -> Family<'_> {
        assert_eq!(
            of_type == Type::Counter,
            name.ends_with("_total"),
            "the name of a counter says what it is: {name}"
        );
        assert!(!help.contains(['\\', '\n']), "nothing to escape: {help}");
        let word = match of_type {
            Type::Counter => "counter",
            Type::Gauge => "gauge",
            Type::Histogram => "histogram",
        };
        line(&mut self.0, format_args!("# HELP {name} {help}"));
        line(&mut self.0, format_args!("# TYPE {name} {word}"));
        Family {
            text: &mut self.0,
            name,
        }
    }

    pub(super) fn into_text(self) -> String {
        self.0
    }
}

impl Family<'_> {
    /// Adds a sample of a counter or gauge.
    pub(super) fn sample(&mut self, labels: Labels<'_>, value: impl Display) {
        self.sample_of("", labels, None, value);
    }

    /// Adds a histogram: its buckets with their upper bounds, each of which counts what lies below too.
    pub(super) fn histogram(
        &mut self,
        labels: Labels<'_>,
        buckets: impl Iterator<Item = (f64, u64)>,
        sum: f64,
        count: u64,
    ) {
        for (bound, below) in buckets {
            self.sample_of("_bucket", labels, Some(&bound.to_string()), below);
        }
        self.sample_of("_bucket", labels, Some("+Inf"), count);
        self.sample_of("_sum", labels, None, sum);
        self.sample_of("_count", labels, None, count);
    }

    fn sample_of(&mut self, suffix: &str, labels: Labels<'_>, bound: Option<&str>, value: impl Display) {
        let bound = bound.map(|bound| ("le", bound));
        let written: Vec<String> = labels
            .iter()
            .copied()
            .chain(bound)
            .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
            .collect();
        let name = self.name;
        if written.is_empty() {
            line(self.text, format_args!("{name}{suffix} {value}"));
        } else {
            line(
                self.text,
                format_args!("{name}{suffix}{{{}}} {value}", written.join(",")),
            );
        }
    }
}

fn line(text: &mut String, content: std::fmt::Arguments<'_>) {
    // Writing into a string never fails.
    let _ = writeln!(text, "{content}");
}

fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_written_as_the_format_wants_them() {
        let mut exposition = Exposition::default();
        let mut family = exposition.family("a_total", Type::Counter, "Things.");
        family.sample(&[], 1);
        family.sample(&[("x", "1"), ("y", "a\"b\\c\nd")], 2.5);
        let mut family = exposition.family("h_seconds", Type::Histogram, "Times.");
        family.histogram(&[("x", "1")], [(0.5, 1), (1.0, 3)].into_iter(), 2.25, 4);
        let expected = "\
# HELP a_total Things.
# TYPE a_total counter
a_total 1
a_total{x=\"1\",y=\"a\\\"b\\\\c\\nd\"} 2.5
# HELP h_seconds Times.
# TYPE h_seconds histogram
h_seconds_bucket{x=\"1\",le=\"0.5\"} 1
h_seconds_bucket{x=\"1\",le=\"1\"} 3
h_seconds_bucket{x=\"1\",le=\"+Inf\"} 4
h_seconds_sum{x=\"1\"} 2.25
h_seconds_count{x=\"1\"} 4
";
        assert_eq!(exposition.into_text(), expected);
    }

    #[test]
    #[should_panic(expected = "the name of a counter")]
    fn a_counter_is_named_as_one() {
        Exposition::default().family("things", Type::Counter, "Things.");
    }
}
