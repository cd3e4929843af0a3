//! Reads Prometheus' text format 0.0.4 by its rules, more strictly than a scraper does.
//!
//! Rules: each family in one piece, with help and type before its samples; names and labels as the format allows them;
//! no series twice; counters that are named as such and never negative; histograms whose buckets rise to `+Inf`, which
//! equals the count; a line feed at the end.

use std::collections::BTreeMap;

/// Samples by series: the name with its labels, as they are written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exposition(BTreeMap<String, f64>);

/// The family that is being read.
struct Family<'a> {
    name: &'a str,
    of_type: Option<&'a str>,
}

impl Exposition {
    /// Reads a whole text.
    ///
    /// # Errors
    /// The line that breaks a rule, and which.
    pub fn parse(text: &str) -> Result<Exposition, String> {
        if !text.ends_with('\n') {
            return Err("the last line has no end".to_owned());
        }
        let mut exposition = Exposition::default();
        let mut seen: Vec<&str> = Vec::new();
        let mut family: Option<Family<'_>> = None;
        for line in text.lines() {
            let wrong = |rule: &str| format!("{rule}: {line}");
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').ok_or_else(|| wrong("no help"))?;
                if seen.contains(&name) || help.is_empty() || !is_name(name) {
                    return Err(wrong("a family begins once, with a name and help"));
                }
                seen.push(name);
                family = Some(Family { name, of_type: None });
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, of_type) = rest.split_once(' ').ok_or_else(|| wrong("no type"))?;
                let family = family.as_mut().filter(|family| family.name == name);
                let family = family.ok_or_else(|| wrong("the type follows the help"))?;
                if family.of_type.is_some() || !["counter", "gauge", "histogram"].contains(&of_type) {
                    return Err(wrong("one type, of those that there are"));
                }
                if (of_type == "counter") != name.ends_with("_total") {
                    return Err(wrong("counters end in _total, others do not"));
                }
                family.of_type = Some(of_type);
            } else {
                let family = family
                    .as_ref()
                    .ok_or_else(|| wrong("a sample without a family"))?;
                exposition.sample(family, line).map_err(|rule| wrong(&rule))?;
            }
        }
        exposition.check_histograms()?;
        Ok(exposition)
    }

    /// The value of a series, such as `a_total{x="1"}`.
    pub fn value(&self, series: &str) -> Option<f64> {
        self.0.get(series).copied()
    }

    /// Sum of all series of a name whose labels hold these words.
    pub fn sum(&self, name: &str, labels: &str) -> f64 {
        let of_name = self.0.iter().filter(|(series, _)| {
            let (found, rest) = series.split_once('{').unwrap_or((series, ""));
            found == name && rest.contains(labels)
        });
        of_name.map(|(_, value)| value).sum()
    }

    fn sample(&mut self, family: &Family<'_>, line: &str) -> Result<(), String> {
        let (series, value) = line.rsplit_once(' ').ok_or("a sample has a value")?;
        let value: f64 = value.parse().map_err(|_| "a value is a number")?;
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}').ok_or("labels end with a bracket")?),
            None => (series, ""),
        };
        let suffix = name
            .strip_prefix(family.name)
            .ok_or("a sample belongs to its family")?;
        let allowed = match family.of_type.ok_or("a family has a type")? {
            "histogram" => ["_bucket", "_sum", "_count"].contains(&suffix),
            _ => suffix.is_empty(),
        };
        if !allowed {
            return Err("a sample has its family's name".to_owned());
        }
        check_labels(labels)?;
        if family.of_type != Some("gauge") && value < 0.0 {
            return Err("counts do not fall below zero".to_owned());
        }
        match self.0.insert(series.to_owned(), value) {
            None => Ok(()),
            Some(_) => Err("a series is there once".to_owned()),
        }
    }

    /// Buckets are written from the lowest bound on; here they are found by number.
    fn check_histograms(&self) -> Result<(), String> {
        let mut buckets: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
        for (series, value) in &self.0 {
            let Some((rest, bound)) = series.split_once("le=\"") else {
                continue;
            };
            let bound = bound.trim_end_matches("\"}");
            let bound = if bound == "+Inf" {
                f64::INFINITY
            } else {
                bound.parse().map_err(|_| series.clone())?
            };
            let of = rest.replace("_bucket{", "_count{");
            buckets.entry(of).or_default().push((bound, *value));
        }
        for (count, mut buckets) in buckets {
            buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
            let series = match count.strip_suffix(',') {
                Some(with_labels) => format!("{with_labels}}}"),
                None => count.trim_end_matches('{').to_owned(),
            };
            let rises = buckets.is_sorted_by(|one, other| one.1 <= other.1);
            let last = buckets.last().copied();
            if !rises || last.map(|(bound, _)| bound) != Some(f64::INFINITY) {
                return Err(format!("buckets rise to +Inf: {series}"));
            }
            if last.map(|(_, value)| value) != self.value(&series) {
                return Err(format!("the last bucket is the count: {series}"));
            }
        }
        Ok(())
    }
}

fn is_name(name: &str) -> bool {
    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == ':');
    begins
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
}

/// Labels between the brackets: `a="1",b="2"`, with backslash, quote and line feed escaped.
fn check_labels(labels: &str) -> Result<(), String> {
    let mut rest = labels;
    while !rest.is_empty() {
        let (name, value) = rest.split_once("=\"").ok_or("a label has a quoted value")?;
        if !is_name(name) || name.contains(':') {
            return Err(format!("'{name}' is no name of a label"));
        }
        let mut escaped = false;
        let end = value.find(|c: char| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        let end = end.ok_or("a label's value ends with a quote")?;
        rest = &value[end + 1..];
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# HELP a_total Things.\n# TYPE a_total counter\na_total{x=\"1\",y=\"a\\\"b\"} 2\n\
        # HELP h Times.\n# TYPE h histogram\nh_bucket{x=\"1\",le=\"0.5\"} 1\nh_bucket{x=\"1\",le=\"+Inf\"} 3\n\
        h_sum{x=\"1\"} 4\nh_count{x=\"1\"} 3\n";

    #[test]
    fn what_follows_the_rules_is_read() {
        let found = Exposition::parse(GOOD).unwrap();
        assert_eq!(found.value("h_count{x=\"1\"}"), Some(3.0));
        assert!((found.sum("a_total", "x=\"1\"") - 2.0).abs() < f64::EPSILON);
        let bare = "# HELP h Times.\n# TYPE h histogram\nh_bucket{le=\"+Inf\"} 3\nh_sum 4\nh_count 3\n";
        assert!(Exposition::parse(bare).is_ok());
    }

    #[test]
    fn what_breaks_a_rule_is_refused() {
        for (from, to) in [
            ("a_total counter", "a_total gauge"),
            ("# TYPE a_total counter\n", ""),
            ("# HELP a_total Things.\n", ""),
            ("a_total{x=\"1\",", "b_total{x=\"1\","),
            ("a\\\"b\"", "a\"b\""),
            (" 2\n", " -2\n"),
            (" 2\n", " two\n"),
            ("le=\"+Inf\"} 3", "le=\"+Inf\"} 2"),
            ("le=\"0.5\"} 1", "le=\"0.5\"} 5"),
            ("h_sum{x=\"1\"} 4\n", "h_sum{x=\"1\"} 4\nh_sum{x=\"1\"} 4\n"),
            ("h_count{x=\"1\"} 3\n", "h_count{x=\"1\"} 3"),
        ] {
            let text = GOOD.replacen(from, to, 1);
            assert_ne!(text, GOOD, "{from}");
            assert!(Exposition::parse(&text).is_err(), "{text}");
        }
    }
}
