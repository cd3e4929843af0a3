//! The operations beyond those of YCSB, sessions, and stages, on a node that is right or wrong in a chosen way.

use crate::common::{configuration, configuration_of, run_phase};
use crate::fake_node::{FakeNode, Fault};
use loadgen::register::ViolationKind;
use loadgen::report::{Outcome, RunReport};
use loadgen::run::execute;
use loadgen::stages::Stage;
use loadgen::statistics::Measure;

const EVERYTHING: &str = "read=2,update=2,insert=1,rmw=1,add=3,mget=1,mput=1,scan=1,rscan=1";

fn count(report: &RunReport<'_>, measure: Measure) -> u64 {
    let mut rows = run_phase(report).requests.iter();
    rows.find(|row| row.operation == measure)
        .map_or(0, |row| row.latency.count)
}

#[test]
fn every_operation_is_carried_out_and_verified() {
    for fault in [Fault::None, Fault::BusyPartEvery(3)] {
        let node = FakeNode::start(fault);
        let words = [
            "--mix",
            EVERYTHING,
            "--operations",
            "4000",
            "--pipeline",
            "8",
            "--verify",
            "--threads",
            "2",
            "--multi",
            "7",
            "--counters",
            "20",
        ];
        let configuration = configuration(&node, &words);
        let report = execute(&configuration).unwrap();
        assert_eq!((report.outcome, &report.reason), (Outcome::Ok, &None), "{report}");
        for measure in [
            Measure::Add,
            Measure::MultiRead,
            Measure::MultiUpdate,
            Measure::ReverseScan,
        ] {
            assert!(count(&report, measure) > 100, "{measure:?}: {report}");
        }
        assert_eq!(
            run_phase(&report).busy_retries > 0,
            fault != Fault::None,
            "{report}"
        );
        let check = report.check.as_ref().unwrap();
        let counters = check.counters.unwrap();
        assert_eq!(
            (counters.sum, counters.acknowledged, counters.unknown),
            (count(&report, Measure::Add), count(&report, Measure::Add), 0)
        );
        assert!(
            report.to_string().contains("acknowledged adds: exact"),
            "{report}"
        );
    }
}

#[test]
fn a_lost_add_is_found() {
    let node = FakeNode::start(Fault::LoseAdd(150));
    let words = [
        "--mix",
        "add=1",
        "--operations",
        "500",
        "--verify",
        "--counters",
        "3",
    ];
    let configuration = configuration(&node, &words);
    let report = execute(&configuration).unwrap();
    assert_eq!(report.outcome, Outcome::Violation, "{report}");
    assert_eq!(report.violations[0].kind, ViolationKind::WrongCount, "{report}");
}

#[test]
fn updates_that_expire_carry_their_time() {
    let node = FakeNode::start(Fault::None);
    let words = ["--mix", "ttl=1,read=1", "--ttl", "2s", "--operations", "500"];
    let configuration = configuration(&node, &words);
    let report = execute(&configuration).unwrap();
    assert_eq!(report.outcome, Outcome::Ok, "{report}");
    assert!(count(&report, Measure::PutExpiring) > 100, "{report}");
}

#[test]
fn with_sessions_lost_connections_leave_no_outcome_unknown() {
    for pace in [
        &["--operations", "3000"] as &[&str],
        &["--rate", "3000", "--duration", "1s"],
    ] {
        let node = FakeNode::start(Fault::CutEvery(150));
        let words = [
            pace,
            &[
                "--sessions",
                "--mix",
                "read=2,update=2,insert=1,rmw=1,add=3,mput=1",
                "--pipeline",
                "4",
                "--verify",
                "--threads",
                "2",
            ],
        ]
        .concat();
        let configuration = configuration(&node, &words);
        let report = execute(&configuration).unwrap();
        assert_eq!((report.outcome, &report.reason), (Outcome::Ok, &None), "{report}");
        let run = run_phase(&report);
        assert!(run.reconnections > 5 && run.resent > 5, "{report}");
        assert_eq!(run.unanswered, 0, "{report}");
        let (repeated, sessions) = node.repeated();
        assert!(repeated > 0, "some write was applied and not answered");
        assert_eq!(sessions, 10, "each connection of each phase has one session");
        let check = report.check.as_ref().unwrap();
        assert_eq!(check.unknown_writes, 0, "{report}");
        let counters = check.counters.unwrap();
        assert_eq!(
            (counters.sum, counters.unknown),
            (counters.acknowledged, 0),
            "{report}"
        );
        assert!(counters.sum > 0, "{report}");
    }
}

#[test]
fn with_sessions_the_history_has_no_unknown_outcome() {
    // A write that was refused outright, as the node went down, is another call when it is sent again. One that may
    // have been applied stays the call that it was.
    for (fault, least_reconnections, has_refusals) in [
        (Fault::CutEvery(100), 6, false),
        (Fault::GoDownEvery(100), 6, true),
        (Fault::FailCoreEvery(100), 0, false),
    ] {
        let node = FakeNode::start(fault);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("history.edn").display().to_string();
        let words = [
            "--sessions",
            "--operations",
            "1500",
            "--pipeline",
            "4",
            "--history",
            &path,
        ];
        let configuration = configuration(&node, &words);
        let report = execute(&configuration).unwrap();
        assert_eq!(report.outcome, Outcome::Ok, "{report}");
        let run = run_phase(&report);
        assert!(run.reconnections >= least_reconnections, "{report}");
        assert!(run.resent > 5, "{report}");
        let history = std::fs::read_to_string(&path).unwrap();
        let lines = |what: &str| history.lines().filter(|line| line.contains(what)).count();
        assert_eq!(lines(":type :info"), 0, "{fault:?}");
        assert_eq!(
            lines(":type :invoke"),
            lines(":type :ok") + lines(":type :fail"),
            "{fault:?}"
        );
        assert_eq!(lines(":type :fail") > 0, has_refusals, "{fault:?}");
    }
}

#[test]
fn counters_of_an_earlier_run_are_passed_over() {
    let node = FakeNode::start(Fault::None);
    let words = ["--mix", "add=1,rscan=1", "--operations", "600", "--verify"];
    let configuration = configuration(&node, &words);
    for _ in 0..2 {
        let report = execute(&configuration).unwrap();
        assert_eq!(report.outcome, Outcome::Ok, "{report}");
        let counters = report.check.as_ref().unwrap().counters.unwrap();
        assert_eq!(counters.sum, count(&report, Measure::Add), "{report}");
    }
}

#[test]
fn a_node_that_stays_away_is_lost_in_the_end() {
    let node = FakeNode::start(Fault::DieAtWrite(700));
    let words = [
        "--sessions",
        "--retry-for",
        "100ms",
        "--operations",
        "3000",
        "--verify",
    ];
    let configuration = configuration(&node, &words);
    let report = execute(&configuration).unwrap();
    assert_eq!(report.outcome, Outcome::Failed, "{report}");
    assert!(
        report.reason.as_ref().unwrap().contains("not to be had again"),
        "{report}"
    );
}

#[test]
fn stages_are_asked_for_and_reported() {
    let node = FakeNode::start(Fault::None);
    let directory = tempfile::tempdir().unwrap();
    let plot = directory.path().join("plot.svg").display().to_string();
    let words = [
        "--stages=4",
        "--operations",
        "2000",
        "--mix",
        EVERYTHING,
        "--plot",
        &plot,
        "--pipeline",
        "4",
        "--threads",
        "2",
    ];
    let timed = configuration(&node, &words);
    assert_eq!(loadgen::run::run(&timed), Ok(Outcome::Ok));
    let svg = std::fs::read_to_string(&plot).unwrap();
    assert!(
        svg.contains("Medians of the stages") && svg.contains("multi-put"),
        "no chart of stages"
    );
    let report = execute(&timed).unwrap();
    let run = run_phase(&report);
    let of = |stage: Stage| run.stages.iter().filter(move |row| row.stage == stage);
    let samples: u64 = of(Stage::Log).map(|row| row.latency.count).sum();
    assert!(
        (400..1000).contains(&samples),
        "every fourth request asks: {report}"
    );
    for row in of(Stage::Server) {
        assert!((9.9..10.1).contains(&row.latency.p50_us), "{report}");
    }
    assert!(report.to_string().contains("read, by stage"), "{report}");
    let plain = configuration(&node, &["--operations", "500"]);
    assert!(run_phase(&execute(&plain).unwrap()).stages.is_empty());
}

#[test]
fn what_cannot_be_is_refused() {
    for (words, sentence) in [
        (
            &["--mix", "ttl=1,read=1", "--verify"] as &[&str],
            "no deletes and no expiry",
        ),
        (&["--mix", "add=1", "--history", "x"], "single records"),
        (&["--multi", "129"], "from 1 to 128"),
        (&["--ttl", "0s"], "is no time"),
        (&["--stages=0"], "0 is not in"),
        (
            &["--target", "redis", "--connect", "x:1", "--sessions"],
            "knows no sessions",
        ),
        (
            &["--target", "redis", "--connect", "x:1", "--mix", "mget=1"],
            "mget and mput",
        ),
        (
            &["--target", "redis", "--connect", "x:1", "--mix", "rscan=1"],
            "no order of keys",
        ),
    ] {
        let error = configuration_of(words).unwrap_err();
        assert!(error.contains(sentence), "{words:?}: {error}");
    }
}
