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
    // Five connections, one operation each: five slow answers, and far fewer than 1 %.
    let closed_slow = slow(closed.statistics.operations_ns());
    assert!((1..=5).contains(&closed_slow), "{closed_slow}: {closed}");
    assert!(
        closed.latency.p99_us < 100_000.0 && closed.latency.max_us > 190_000.0,
        "{closed}"
    );
    // At 1000 operations/s, 100 were due in the first half of the stall, and waited for longer than the other
    // half of it: 10 % of the operations of this second.
    let open_slow = slow(open.statistics.operations_ns());
    assert!((90..=250).contains(&open_slow), "{open_slow}: {open}");
    assert!(open.latency.p99_us > 150_000.0, "{open}");
    // The same run, measured from the moment of sending, hides it as the closed loop does.
    let service_slow = slow(open.statistics.service_ns());
    assert!((1..=5).contains(&service_slow), "{service_slow}: {open}");
    assert!(open.open_loop.unwrap().start_delay.p99_us > 100_000.0, "{open}");
}

#[test]
fn as_many_operations_are_done_as_are_due_after_the_warm_up() {
    for (threads, arrivals) in [("1", "constant"), ("2", "constant"), ("2", "poisson")] {
        let node = FakeNode::start(Fault::None);
        let words = [
            "--rate",
            "2000",
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
            5.0 * 1000_f64.sqrt()
        } else {
            1.0
        };
        assert!((run.operations as f64 - 1000.0).abs() <= spread, "{report}");
        assert!(
            (run.warm_up_operations as f64 - 600.0).abs() <= spread,
            "{report}"
        );
        let rows: u64 = run.requests.iter().map(|row| row.latency.count).sum();
        assert_eq!((rows, run.latency.count), (run.operations, run.operations));
        assert!((run.open_loop.unwrap().offered_per_second - 2000.0).abs() < 1e-6);
        let of_series: u64 = run.series.iter().map(|row| row.operations).sum();
        assert_eq!(
            of_series,
            run.operations + run.warm_up_operations,
            "{:?}",
            run.series
        );
        assert_eq!(run.series[0].second, -1);
    }
}

#[test]
fn a_ramp_is_followed() {
    let node = FakeNode::start(Fault::None);
    let words = ["--rate", "100-1900", "--duration", "2s", "--workload", "b"];
    let configuration = configuration(&node, &words);
    let report = execute(&configuration).unwrap();
    let run = run_phase(&report);
    let done: Vec<u64> = run.series.iter().take(2).map(|row| row.operations).collect();
    assert!((run.operations as f64 - 2000.0).abs() <= 1.0, "{report}");
    // 550 are due in the first second and 1450 in the next one; a few answers come in the second after.
    assert!(
        done[0].abs_diff(550) < 60 && done[1].abs_diff(1450) < 60,
        "{done:?}"
    );
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
    assert!((0.25..2.0).contains(&run.seconds), "{report}");
}

#[test]
fn what_the_server_cannot_keep_up_with_is_late_and_still_done() {
    // 5000 operations/s are due, and 1000 can be done.
    let node = FakeNode::start(Fault::None);
    let load = configuration(&node, &["--phase", "load"]);
    execute(&load).unwrap();
    node.revive(Fault::Slow(1000));
    let words = ["--rate", "5000", "--duration", "300ms", "--phase", "run"];
    let configuration = configuration(&node, &words);
    let report = execute(&configuration).unwrap();
    assert_eq!(report.outcome, Outcome::Ok, "{report}");
    let run = run_phase(&report);
    assert!(run.operations >= 1499 && run.seconds > 1.3, "{report}");
    assert!(run.latency.p99_us > 1_000_000.0, "{report}");
}

#[test]
fn the_highest_rate_is_found() {
    let node = FakeNode::start(Fault::None);
    let load = configuration(&node, &["--phase", "load"]);
    execute(&load).unwrap();
    node.revive(Fault::Slow(1000));
    let words = [
        "--find-max",
        "--p50",
        "30ms",
        "--rate",
        "200",
        "--duration",
        "400ms",
        "--warmup",
        "100ms",
        "--phase",
        "run",
    ];
    let configuration = configuration(&node, &words);
    let report = execute(&configuration).unwrap();
    assert_eq!(report.outcome, Outcome::Ok, "{report}");
    let search = report.search.as_ref().unwrap();
    // A request takes a millisecond and a little more.
    let found = search.found_per_second.unwrap();
    assert!((400.0..1050.0).contains(&found), "{report}");
    assert_eq!(report.phases.len(), 1);
    let text = report.to_string();
    assert!(
        text.contains("confirmed") && text.contains("highest rate that keeps the goals"),
        "{text}"
    );
    let document = serde_json::to_value(&report).unwrap();
    assert!(
        document["search"]["steps"].as_array().unwrap().len() > 3,
        "{document}"
    );
}

#[test]
fn a_search_without_an_answer_fails() {
    let node = FakeNode::start(Fault::MemoryFullEvery(2));
    let words = [
        "--find-max",
        "--p99",
        "1s",
        "--rate",
        "2",
        "--duration",
        "500ms",
        "--warmup",
        "1ms",
        "--phase",
        "run",
        "--mix",
        "update=1",
    ];
    let configuration = configuration(&node, &words);
    let report = execute(&configuration).unwrap();
    assert_eq!(report.outcome, Outcome::Failed, "{report}");
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
