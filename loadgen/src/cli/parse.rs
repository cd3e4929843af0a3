//! Reads the values of flags; each refusal says how to write it.

use std::time::Duration;

use super::{CpuList, RateRange};
use crate::value::ValueSize;

/// Reads a time such as `30s`.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
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

/// Reads a length such as `100`, or a range of them such as `100-1000`.
pub(super) fn parse_value_size(text: &str) -> Result<ValueSize, String> {
    let wrong = || format!("{text:?} is no size; write bytes or a range of them, such as 1000 or 100-1000");
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let size = ValueSize {
        low_bytes: low.trim().parse().map_err(|_| wrong())?,
        high_bytes: high.trim().parse().map_err(|_| wrong())?,
    };
    if size.low_bytes > size.high_bytes {
        return Err(wrong());
    }
    Ok(size)
}

/// Reads a rate such as `20000` or `20k`, or the two ends of a ramp such as `1k-50k`.
pub(super) fn parse_rate(text: &str) -> Result<RateRange, String> {
    let wrong = || {
        format!(
            "{text:?} is no rate; write operations per second from 1 to 1G, such as 20000 or 20k, or both ends of \
             a ramp, such as 1k-50k"
        )
    };
    let one = |text: &str| {
        let text = text.trim();
        let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
        let factor = match &text[digits.len()..] {
            "" => 1.0,
            "k" => 1e3,
            "M" => 1e6,
            "G" => 1e9,
            _ => return Err(wrong()),
        };
        let rate = digits.parse::<f64>().map_err(|_| wrong())? * factor;
        if (1.0..=1e9).contains(&rate) {
            Ok(rate)
        } else {
            Err(wrong())
        }
    };
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    Ok(RateRange {
        from_per_second: one(from)?,
        to_per_second: one(to)?,
    })
}

/// Reads a part of a whole such as `0.2`.
pub(super) fn parse_fraction(text: &str) -> Result<f64, String> {
    let fraction = text
        .parse::<f64>()
        .ok()
        .filter(|fraction| *fraction > 0.0 && *fraction <= 1.0);
    fraction.ok_or_else(|| {
        format!("{text:?} is no part of a whole; write a number above 0 and up to 1, such as 0.2")
    })
}

/// Reads a skew such as `0.99`.
pub(super) fn parse_theta(text: &str) -> Result<f64, String> {
    let theta = text
        .parse::<f64>()
        .ok()
        .filter(|theta| *theta > 0.0 && *theta < 1.0);
    theta.ok_or_else(|| format!("{text:?} is no skew; write a number above 0 and below 1, such as 0.99"))
}
