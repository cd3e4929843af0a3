//! What the system says of this process, under the names that client libraries of Prometheus use.

use std::fs;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

use super::exposition::{Exposition, Type};

/// Fields of `/proc/self/stat` (proc(5)), counted from the one after the program's name.
const UTIME: usize = 11;
const STIME: usize = 12;
const START_TIME: usize = 19;
const RESIDENT_PAGES: usize = 21;

/// Writes the families of this process. What the system does not tell is left out.
pub(super) fn metrics(exposition: &mut Exposition) {
    let ticks_per_second = clock_ticks_per_second() as f64;
    if let Some(stat) = fs::read_to_string("/proc/self/stat")
        .ok()
        .as_deref()
        .and_then(numbers)
    {
        let cpu_seconds = (stat[UTIME] + stat[STIME]) / ticks_per_second;
        exposition
            .family(
                "process_cpu_seconds_total",
                Type::Counter,
                "CPU time of the process.",
            )
            .sample(&[], cpu_seconds);
        exposition
            .family(
                "process_resident_memory_bytes",
                Type::Gauge,
                "Memory of the process.",
            )
            .sample(&[], stat[RESIDENT_PAGES] * page_size() as f64);
        if let Some(booted) = booted_seconds() {
            exposition
                .family(
                    "process_start_time_seconds",
                    Type::Gauge,
                    "Start of the process, Unix time.",
                )
                .sample(&[], booted + stat[START_TIME] / ticks_per_second);
        }
    }
    if let Ok(descriptors) = fs::read_dir("/proc/self/fd") {
        exposition
            .family("process_open_fds", Type::Gauge, "Open file descriptors.")
            .sample(&[], descriptors.count());
    }
    if let Some(limit) = getrlimit(Resource::Nofile).current {
        exposition
            .family("process_max_fds", Type::Gauge, "Limit of open file descriptors.")
            .sample(&[], limit);
    }
}

/// The fields after the program's name, which may hold blanks and brackets itself.
fn numbers(stat: &str) -> Option<Vec<f64>> {
    let (_, fields) = stat.rsplit_once(')')?;
    let numbers = fields.split_whitespace();
    // The first of them is a letter.
    let numbers: Vec<f64> = numbers.map(|field| field.parse().unwrap_or(0.0)).collect();
    (numbers.len() > RESIDENT_PAGES).then_some(numbers)
}

/// When the system was started, in seconds of Unix time.
fn booted_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let booted = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    booted.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_program_may_hold_brackets() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 250 50 13 14 15 16 17 18 900 20 300 22";
        let found = numbers(stat).unwrap();
        assert_eq!((found[UTIME], found[STIME]), (250.0, 50.0));
        assert_eq!((found[START_TIME], found[RESIDENT_PAGES]), (900.0, 300.0));
        assert_eq!(numbers("7 (a) S 1 2 3"), None);
        assert_eq!(numbers(""), None);
    }

    #[test]
    fn this_process_has_them_all() {
        let mut exposition = Exposition::default();
        metrics(&mut exposition);
        let text = exposition.into_text();
        assert_eq!(text.matches("# TYPE process_").count(), 5, "{text}");
    }
}
