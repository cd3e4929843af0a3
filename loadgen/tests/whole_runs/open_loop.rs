//! Open loops against a fake node: what is due when, and what a stall of the server shows as.

use crate::common::{configuration, run_phase};
use crate::fake_node::{FakeNode, Fault};
use loadgen::report::Outcome;
use loadgen::run::execute;

const STALL_MS: u64 = 200;
/// Half of the stall.
const SLOW_NS: u64 = 100_000_000;

/// A server that stands still for 200 ms makes everything slow that was due meanwhile. A closed loop has
/// nothing due meanwhile, and shows a few slow operations among thousands; an open loop shows them all.
#[test]
fn a_stall_of_the_server_shows_in_full_only_in_an_open_loop() {
    let stall = Fault::StallAtRead(400, STALL_MS);
    let node = FakeNode::start(stall);
    let words = ["--workload", "c", "--duration", "1s", "--phase", "load,run"];
    let closed_configuration = configuration(&node, &words);
    let closed = execute(&closed_configuration).unwrap();
    assert_eq!(closed.outcome, Outcome::Ok, "{closed}");
    let closed = run_phase(&closed);

    let node = FakeNode::start(stall);
    let open_words = [&words[..], &["--rate", "1000"]].concat();
    let open_configuration = configuration(&node, &open_words);
    let open = execute(&open_configuration).unwrap();
    assert_eq!(open.outcome, Outcome::Ok, "{open}");
    let open = run_phase(&open);

    let slow = |histogram: &hdrhistogram::Histogram<u64>| histogram.count_between(SLOW_NS, u64::MAX);
    let share = |slow: u64, all: u64| slow as f64 / all as f64;
    // At 1000 operations/s, 100 were due in the first half of the stall, and waited for longer than the other
    // half of it, all but the few that were in flight since before.
    let open_slow = slow(open.statistics.operations_ns());
    assert!(open_slow >= 90, "{open_slow}: {open}");
    assert!(open.latency.p99_us > 150_000.0, "{open}");
    assert!(open.open_loop.unwrap().start_delay.p99_us > 100_000.0, "{open}");
    // The closed loop has five connections with one operation each: five slow answers among thousands. (A busy
    // machine adds some, to the open loop too.)
    let closed_slow = slow(closed.statistics.operations_ns());
    assert!(closed_slow >= 1 && closed.latency.max_us > 190_000.0, "{closed}");
    assert!(
        share(open_slow, open.operations) > 5.0 * share(closed_slow, closed.operations),
        "{open_slow} and {closed_slow}: {open}{closed}"
    );
    assert!(closed.latency.p99_us < open.latency.p99_us, "{open}{closed}");
    // The open loop, measured from the moment of sending, hides it in the same way.
    let service_slow = slow(open.statistics.service_ns());
    assert!(
        service_slow >= 1 && service_slow * 5 < open_slow,
        "{service_slow} and {open_slow}: {open}"
    );
}

#[test]
fn as_many_operations_are_done_as_are_due_after_the_warm_up() {
    for (threads, arrivals) in [("1", "constant"), ("2", "constant"), ("2", "poisson")] {
        let node = FakeNode::start(Fault::None);
        let words = [
            "--rate",
            "500",
            "--warmup",
            "300ms",
            "--duration",
            "500ms",
            "--threads",
            threads,
            "--arrivals",
            arrivals,
            "--verify",
        ];
        let configuration = configuration(&node, &words);
        let report = execute(&configuration).unwrap();
        assert_eq!(report.outcome, Outcome::Ok, "{report}");
        let run = run_phase(&report);
        // Poisson arrivals: within five standard deviations.
        let spread = if arrivals == "poisson" {
            5.0 * 250_f64.sqrt()
        } else {
            1.0
        };
        assert!((run.operations as f64 - 250.0).abs() <= spread, "{report}");
        assert!(
            (run.warm_up_operations as f64 - 150.0).abs() <= spread,
            "{report}"
        );
        let rows: u64 = run.requests.iter().map(|row| row.latency.count).sum();
        assert_eq!((rows, run.latency.count), (run.operations, run.operations));
        assert!((run.open_loop.unwrap().offered_per_second - 500.0).abs() < 1e-6);
        let of_series: u64 = run.series.iter().map(|row| row.operations).sum();
        assert_eq!(
            of_series,
            run.operations + run.warm_up_operations,
            "{:?}",
            run.series
        );
    }
}

#[test]
fn a_ramp_is_followed() {
    let node = FakeNode::start(Fault::None);
    let words = ["--rate", "20-380", "--duration", "2s", "--workload", "b"];
    let configuration = configuration(&node, &words);
    let report = execute(&configuration).unwrap();
    let run = run_phase(&report);
    assert!((run.operations as f64 - 400.0).abs() <= 1.0, "{report}");
    // 110 are due in the first second and 290 in the next one, and none is done before it is due.
    let early = run
        .series
        .iter()
        .filter(|row| row.second <= 0)
        .map(|row| row.operations);
    assert!(early.sum::<u64>() <= 111, "{:?}", run.series);
}

#[test]
fn a_number_of_operations_ends_an_open_loop_too() {
    let node = FakeNode::start(Fault::None);
    let words = [
        "--rate",
        "2000",
        "--operations",
        "700",
        "--warmup",
        "100ms",
        "--threads",
        "2",
    ];
    let configuration = configuration(&node, &words);
    let report = execute(&configuration).unwrap();
    let run = run_phase(&report);
    assert_eq!(run.operations, 700, "{report}");
    assert!(run.seconds > 0.3, "{report}");
}

#[test]
fn what_the_server_cannot_keep_up_with_is_late_and_still_done() {
    // 2500 operations/s are due, and 1000 can be done at most.
    let node = FakeNode::start(Fault::None);
    let load = configuration(&node, &["--phase", "load"]);
    execute(&load).unwrap();
    node.revive(Fault::Slow(1000));
    let words = ["--rate", "2500", "--duration", "300ms", "--phase", "run"];
    let configuration = configuration(&node, &words);
    let report = execute(&configuration).unwrap();
    assert_eq!(report.outcome, Outcome::Ok, "{report}");
    let run = run_phase(&report);
    assert!(run.operations.abs_diff(750) <= 1 && run.seconds > 0.7, "{report}");
    assert!(run.latency.p99_us > 400_000.0, "{report}");
}

/// The words of a search whose only failures are the refusals of the node.
const SEARCH: [&str; 13] = [
    "--find-max",
    "--p50",
    "1h",
    "--p999",
    "1h",
    "--rate",
    "20",
    "--duration",
    "300ms",
    "--warmup",
    "100ms",
    "--phase",
    "run",
];

#[test]
fn the_highest_rate_is_found() {
    let node = FakeNode::start(Fault::None);
    let load = configuration(&node, &["--phase", "load"]);
    execute(&load).unwrap();
    // The load was the first phase; from the fourth step on, those above 100 operations/s are refused.
    node.revive(Fault::RefuseInPhases(&[5, 6, 8]));
    let configuration = configuration(&node, &SEARCH);
    let report = execute(&configuration).unwrap();
    assert_eq!(report.outcome, Outcome::Ok, "{report}");
    let search = report.search.as_ref().unwrap();
    let rates: Vec<u32> = search
        .steps
        .iter()
        .map(|step| step.offered_per_second as u32)
        .collect();
    assert_eq!(rates, [20, 40, 80, 160, 113, 95, 103, 99, 99], "{report}");
    let failed: Vec<usize> = (0..rates.len())
        .filter(|step| !search.steps[*step].failures.is_empty())
        .collect();
    assert_eq!(failed, [3, 4, 6], "{report}");
    assert_eq!(search.found_per_second.map(|rate| rate as u32), Some(99));
    // The phase of the report is the confirmation, which lasts twice as long.
    assert_eq!(report.phases.len(), 1);
    assert!(run_phase(&report).operations.abs_diff(60) <= 1, "{report}");
    let text = report.to_string();
    assert!(
        text.contains("confirmed") && text.contains("that keeps the goals: 99 operations/s"),
        "{text}"
    );
    let document = serde_json::to_value(&report).unwrap();
    assert_eq!(document["search"]["steps"].as_array().unwrap().len(), 9);
    assert_eq!(document["configuration"]["goals"][1]["name"], "p99.9");
}

#[test]
fn a_search_without_an_answer_fails() {
    let node = FakeNode::start(Fault::RefuseInPhases(&[1, 2, 3, 4, 5]));
    let configuration = configuration(&node, &SEARCH);
    let report = execute(&configuration).unwrap();
    assert_eq!(report.outcome, Outcome::Failed, "{report}");
    assert_eq!(
        report.search.as_ref().unwrap().steps.len(),
        5,
        "20, 10, 5, 2.5 and 1.25 operations/s"
    );
    assert!(report.reason.unwrap().contains("no rate keeps the goals"));
}

#[test]
fn a_lost_node_ends_an_open_loop() {
    let node = FakeNode::start(Fault::DieAtWrite(700));
    let words = [
        "--rate",
        "1000",
        "--duration",
        "60s",
        "--verify",
        "--on-disconnect",
        "stop",
        "--threads",
        "2",
    ];
    let configuration = configuration(&node, &words);
    let report = execute(&configuration).unwrap();
    assert_eq!(report.outcome, Outcome::NodeLost, "{report}");
    assert!(run_phase(&report).seconds < 30.0, "{report}");
}
