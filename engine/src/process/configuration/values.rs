//! What a setting's text means, and the sentences in which nonsense is refused: the same for flags, variables and the
//! file.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::PathBuf;

use bytesize::ByteSize;
use ostrakon_core::lsm::CompactionStrategy;

use crate::limits::{CORES_MAX, SHARDS_MAX};
use crate::process::cpu_list;
use crate::process::logging::parse_filter;
use crate::server::connection_limits::CONNECTIONS_MAX;
use crate::storage::sstable::format::Codec;

/// A time-out is a second at least, since the cores look for connections to end once a second.
const TIMEOUT_MS_MIN: u64 = 1_000;
/// Longest time-out of a hello: while it runs, a client that says nothing costs a connection.
const HELLO_TIMEOUT_MS_MAX: u64 = 10 * 60_000;
/// Longest idle time-out. Longer ones mean none.
const IDLE_TIMEOUT_MS_MAX: u64 = 366 * 24 * 3_600_000;

/// Lowest rate, in bytes a second: below it a look at all tables would never come to its end.
const RATE_MIN: u64 = 64 << 10;

/// Units of times in milliseconds, the longest first.
const TIME_UNITS: [(&str, u64); 5] = [
    ("d", 24 * 3_600_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// What is asked of a setting's value.
type Parsed<T> = Result<T, String>;

pub(super) fn directory(text: &OsStr) -> Parsed<PathBuf> {
    if text.is_empty() {
        return Err("a directory has a name".to_owned());
    }
    Ok(PathBuf::from(text))
}

pub(super) fn text(text: &OsStr) -> Parsed<&str> {
    text.to_str().ok_or_else(|| "it is not UTF-8".to_owned())
}

pub(super) fn address(text: &str) -> Parsed<SocketAddr> {
    text.parse().map_err(|_| {
        "an address is an IP address with a port, such as 127.0.0.1:5750 or [::1]:5750; names are not looked up"
            .to_owned()
    })
}

/// An address, or `None` for "off".
pub(super) fn optional_address(text: &str) -> Parsed<Option<SocketAddr>> {
    if text == "off" {
        return Ok(None);
    }
    address(text)
        .map(Some)
        .map_err(|sentence| format!("{sentence}; off turns it off"))
}

pub(super) fn switch(text: &str) -> Parsed<bool> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("write true or false".to_owned()),
    }
}

pub(super) fn cores(text: &str) -> Parsed<u16> {
    match text.parse() {
        Ok(cores @ 1..=CORES_MAX) => Ok(cores),
        _ => Err(format!("the number of cores is from 1 to {CORES_MAX}")),
    }
}

pub(super) fn shards(text: &str) -> Parsed<u32> {
    match text.parse::<u32>() {
        Ok(shards) if shards.is_power_of_two() && shards <= SHARDS_MAX => Ok(shards),
        _ => Err(format!(
            "the number of shards is a power of two from 1 to {SHARDS_MAX}, such as 64"
        )),
    }
}

pub(super) fn compaction(text: &str) -> Parsed<CompactionStrategy> {
    match text {
        "leveled" => Ok(CompactionStrategy::Leveled),
        "tiered" => Ok(CompactionStrategy::Tiered),
        _ => Err("write leveled or tiered".to_owned()),
    }
}

pub(super) fn format_compaction(strategy: CompactionStrategy) -> &'static str {
    match strategy {
        CompactionStrategy::Leveled => "leveled",
        CompactionStrategy::Tiered => "tiered",
    }
}

pub(super) fn codec(text: &str) -> Parsed<Codec> {
    match text {
        "none" => Ok(Codec::Plain),
        "lz4" => Ok(Codec::Lz4),
        "zstd" => Ok(Codec::Zstd),
        _ => Err("write none, lz4 or zstd".to_owned()),
    }
}

pub(super) fn format_codec(codec: Codec) -> &'static str {
    match codec {
        Codec::Plain => "none",
        Codec::Lz4 => "lz4",
        Codec::Zstd => "zstd",
    }
}

pub(super) fn connections(text: &str) -> Parsed<u32> {
    match text.parse() {
        Ok(connections @ 1..=CONNECTIONS_MAX) => Ok(connections),
        _ => Err(format!(
            "the number of connections is from 1 to {CONNECTIONS_MAX}"
        )),
    }
}

pub(super) fn size(text: &str) -> Parsed<u64> {
    match text.parse::<ByteSize>() {
        Ok(ByteSize(0)) => Err("a size is more than nothing".to_owned()),
        Ok(ByteSize(bytes)) => Ok(bytes),
        Err(_) => Err("write a number of bytes with a unit, such as 512MiB or 8GiB".to_owned()),
    }
}

/// Bytes a second; 0 for "off".
pub(super) fn rate(text: &str) -> Parsed<u64> {
    if text == "off" {
        return Ok(0);
    }
    match size(text) {
        Ok(bytes_per_second) if bytes_per_second >= RATE_MIN => Ok(bytes_per_second),
        _ => Err(
            "a rate is the bytes of one second, 64KiB at least, such as 8MiB; off turns it off".to_owned(),
        ),
    }
}

pub(super) fn cpus(text: &str) -> Parsed<Vec<usize>> {
    cpu_list::parse(text).map_err(|error| error.to_string())
}

pub(super) fn log_filter(text: &str) -> Parsed<String> {
    match parse_filter(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// In milliseconds.
pub(super) fn hello_timeout(text: &str) -> Parsed<u64> {
    match milliseconds(text) {
        Some(time_ms @ TIMEOUT_MS_MIN..=HELLO_TIMEOUT_MS_MAX) => Ok(time_ms),
        _ => Err("the time for a hello is from 1s to 10m, such as 10s".to_owned()),
    }
}

/// In milliseconds; zero for "off".
pub(super) fn idle_timeout(text: &str) -> Parsed<u64> {
    if text == "off" {
        return Ok(0);
    }
    match milliseconds(text) {
        Some(time_ms @ (0 | TIMEOUT_MS_MIN..=IDLE_TIMEOUT_MS_MAX)) => Ok(time_ms),
        _ => Err("an idle time-out is from 1s to 366d, such as 10m; off or 0 for none".to_owned()),
    }
}

fn milliseconds(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_lowercase());
    let unit = &text[digits.len()..];
    let number: u64 = digits.parse().ok()?;
    if number == 0 && unit.is_empty() {
        return Some(0);
    }
    let (_, unit_ms) = TIME_UNITS.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*unit_ms)
}

/// A time as the settings take it, in the longest unit that fits without a rest.
pub(super) fn format_time(time_ms: u64) -> String {
    let (unit, unit_ms) = TIME_UNITS
        .into_iter()
        .find(|(_, unit_ms)| time_ms.is_multiple_of(*unit_ms) && time_ms > 0)
        .unwrap_or(("ms", 1));
    format!("{}{unit}", time_ms / unit_ms)
}

/// A size as the settings take it, to the byte.
pub(super) fn format_size(bytes: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match units
        .into_iter()
        .find(|(_, bits)| bytes.is_multiple_of(1 << bits))
    {
        Some((unit, bits)) if bytes > 0 => format!("{}{unit}", bytes >> bits),
        _ => format!("{bytes}B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_written() {
        for (text, time_ms) in [
            ("1s", 1_000),
            ("1500ms", 1_500),
            ("90s", 90_000),
            ("10m", 600_000),
            ("2h", 7_200_000),
            ("1d", 86_400_000),
        ] {
            assert_eq!(idle_timeout(text), Ok(time_ms), "{text}");
            assert_eq!(format_time(time_ms), text);
        }
        assert_eq!((idle_timeout("off"), idle_timeout("0")), (Ok(0), Ok(0)));
        for text in [
            "",
            "10",
            "s",
            "1.5s",
            "-1s",
            "1 s",
            "999ms",
            "367d",
            "99999999999999999999h",
            "10M",
        ] {
            assert!(idle_timeout(text).is_err(), "{text}");
        }
        assert!(hello_timeout("off").is_err() && hello_timeout("0").is_err());
        assert_eq!(hello_timeout("10m"), Ok(600_000));
        assert!(hello_timeout("601s").unwrap_err().contains("10m"));
    }

    #[test]
    fn sizes_are_written_to_the_byte() {
        for (text, bytes) in [
            ("512MiB", 512 << 20),
            ("3GiB", 3 << 30),
            ("5KiB", 5 << 10),
            ("1025B", 1025),
        ] {
            assert_eq!(format_size(bytes), text);
            assert_eq!(size(text), Ok(bytes));
        }
        assert!(size("0").unwrap_err().contains("more than nothing"));
        assert!(size("much").unwrap_err().contains("512MiB"));
    }

    #[test]
    fn numbers_have_bounds() {
        assert_eq!((cores("1"), cores("256")), (Ok(1), Ok(256)));
        for text in ["0", "257", "-1", "x"] {
            assert!(cores(text).unwrap_err().contains("from 1 to 256"));
        }
        assert_eq!(shards("64"), Ok(64));
        for text in ["0", "12", "8192"] {
            assert!(shards(text).unwrap_err().contains("power of two from 1 to 4096"));
        }
        assert_eq!(connections("1000000"), Ok(1_000_000));
        assert!(connections("1000001").is_err() && connections("0").is_err());
    }

    #[test]
    fn an_address_has_a_port_and_may_be_off_where_that_means_something() {
        assert_eq!(address("[::1]:1").unwrap().to_string(), "[::1]:1");
        assert!(address("localhost:5750").unwrap_err().contains("not looked up"));
        assert!(address("off").is_err());
        assert_eq!(optional_address("off"), Ok(None));
        assert!(
            optional_address("127.0.0.1")
                .unwrap_err()
                .contains("off turns it off")
        );
    }
}
