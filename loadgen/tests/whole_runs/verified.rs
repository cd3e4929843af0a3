//! Verified runs against a node that is right, or wrong in a chosen way.

use crate::common::configuration;
use crate::fake_node::{FakeNode, Fault};
use loadgen::register::ViolationKind;
use loadgen::report::{Outcome, RunReport};
use loadgen::run::execute;
use loadgen::statistics::Measure;

fn kinds(report: &RunReport<'_>) -> Vec<ViolationKind> {
    report.violations.iter().map(|violation| violation.kind).collect()
}

#[test]
fn a_right_node_passes_every_workload() {
    for (workload, kinds) in [
        ("a", &[Measure::Read, Measure::Update] as &[Measure]),
        ("b", &[Measure::Read, Measure::Update]),
        ("c", &[Measure::Read]),
        ("d", &[Measure::Insert, Measure::Read]),
        ("e", &[Measure::Insert, Measure::Scan]),
        ("f", &[Measure::Read, Measure::Update, Measure::ReadModifyWrite]),
    ] {
        let node = FakeNode::start(Fault::None);
        let words = [
            "--workload",
            workload,
            "--operations",
            "5000",
            "--pipeline",
            "8",
            "--verify",
            "--threads",
            "2",
        ];
        let configuration = configuration(&node, &words);
        let report = execute(&configuration).unwrap();
        assert_eq!((report.outcome, &report.reason), (Outcome::Ok, &None), "{report}");
        let [load, run] = report.phases.as_slice() else {
            panic!("{report}")
        };
        assert_eq!((load.operations, run.operations), (500, 5000));
        assert_eq!(
            (load.requests[0].operation, load.requests[0].latency.count),
            (Measure::Insert, 500)
        );
        let found: Vec<Measure> = run.requests.iter().map(|row| row.operation).collect();
        assert_eq!(found, kinds);
        if workload == "f" {
            // Every operation reads once, and the read-modify-writes write too.
            assert_eq!(run.requests[0].latency.count, 5000);
            assert_eq!(run.requests[1].latency.count, run.requests[2].latency.count);
        }
        let inserted: u64 = { run.requests.iter() }
            .filter(|row| row.operation == Measure::Insert)
            .map(|row| row.latency.count)
            .sum();
        assert_eq!(inserted > 0, ["d", "e"].contains(&workload));
        if workload == "e" {
            // On average 50 records a scan, as long as there are so many.
            assert!(
                run.scanned_records > 40 * run.requests[1].latency.count,
                "{report}"
            );
        }
        let summary = report.check.as_ref().unwrap().summary.unwrap();
        assert_eq!((summary.records, summary.unknown_applied), (500 + inserted, 0));
    }
}

#[test]
fn connections_go_round_the_cores() {
    let node = FakeNode::start(Fault::None);
    execute(&configuration(&node, &["--phase", "load"])).unwrap();
    assert_eq!(
        node.cores_asked(),
        [None, Some(0), Some(1), Some(2), Some(0), Some(1)]
    );
    let node = FakeNode::start(Fault::None);
    execute(&configuration(
        &node,
        &["--phase", "load", "--spread-cores=false"],
    ))
    .unwrap();
    assert_eq!(node.cores_asked(), [None; 5]);
}

#[test]
fn a_run_ends_after_its_time() {
    let node = FakeNode::start(Fault::None);
    let configuration = configuration(&node, &["--duration", "300ms", "--distribution", "uniform"]);
    let report = execute(&configuration).unwrap();
    assert_eq!(report.outcome, Outcome::Ok, "{report}");
    assert!((0.3..2.0).contains(&report.phases[1].seconds), "{report}");
}

#[test]
fn busy_operations_are_tried_again() {
    let node = FakeNode::start(Fault::BusyEvery(7));
    let words = ["--operations", "1000", "--pipeline", "4", "--verify"];
    let configuration = configuration(&node, &words);
    let report = execute(&configuration).unwrap();
    assert_eq!(report.outcome, Outcome::Ok, "{report}");
    assert!(report.phases[0].busy_retries >= 500 / 7, "{report}");
    assert_eq!(
        (report.phases[0].operations, report.phases[1].operations),
        (500, 1000)
    );
}

/// The history of a run against a node with a fault, and the report as text.
fn history_of(fault: Fault, words: &[&str]) -> (String, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("history.edn");
    let node = FakeNode::start(fault);
    let path_word = path.to_str().unwrap();
    let words = [
        words,
        &["--history", path_word, "--pipeline", "4", "--threads", "2"],
    ]
    .concat();
    let configuration = configuration(&node, &words);
    let report = execute(&configuration).unwrap().to_string();
    (std::fs::read_to_string(path).unwrap(), report)
}

fn lines_with(history: &str, words: &str) -> usize {
    history.lines().filter(|line| line.contains(words)).count()
}

#[test]
fn the_history_has_every_request_and_its_answer_once() {
    let (history, report) = history_of(Fault::BusyEvery(7), &["--operations", "1000", "--workload", "f"]);
    let busy = lines_with(&history, ":type :fail, ");
    assert!(busy > 100, "{report}");
    assert_eq!(lines_with(&history, ":error \"Busy\"}"), busy);
    assert_eq!(lines_with(&history, ":type :info"), 0);
    assert_eq!(
        lines_with(&history, ":type :ok, ") + busy,
        lines_with(&history, ":type :invoke, ")
    );
    assert_eq!(
        lines_with(&history, ":f :txn, "),
        2,
        "the check is one transaction"
    );
    let index_of_last = format!("{{:index {}, ", history.lines().count() - 1);
    assert!(history.lines().last().unwrap().starts_with(&index_of_last));
}

#[test]
fn the_history_has_what_a_wrong_node_said() {
    let words = ["--workload", "c", "--operations", "1000"];
    let (history, report) = history_of(Fault::FlipRead(100), &words);
    assert_eq!(
        lines_with(&history, "a damaged value: it claims write 1 of record"),
        1,
        "{report}"
    );
    let (history, report) = history_of(Fault::WrongRead(100), &words);
    assert_eq!(lines_with(&history, " \"write 1 of record "), 1, "{report}");
}

#[test]
fn the_history_of_a_lost_node_ends_with_unknown_outcomes() {
    let (history, report) = history_of(Fault::DieAtWrite(200), &["--operations", "1000"]);
    let unknown = lines_with(&history, ":error \"the connection was lost before the answer\"}");
    assert!(
        (1..=20).contains(&unknown),
        "5 connections of 4 requests: {report}"
    );
    let answers = lines_with(&history, ":type :ok, ") + unknown;
    assert_eq!(answers, lines_with(&history, ":type :invoke, "));
}

#[test]
fn a_history_does_not_continue_an_earlier_run() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let node = FakeNode::start(Fault::None);
    let (register, history) = (at("register"), at("history.edn"));
    let words = ["--phase", "load", "--register", &register, "--history", &history];
    execute(&configuration(&node, &words)).unwrap();
    let refused = execute(&configuration(&node, &words)).map(drop).unwrap_err();
    assert!(
        refused.contains("name a register file that is not there yet"),
        "{refused}"
    );
}

#[test]
fn errors_are_counted_and_fail_the_run() {
    let node = FakeNode::start(Fault::MemoryFullEvery(10));
    let configuration = configuration(&node, &["--operations", "200", "--verify"]);
    let report = execute(&configuration).unwrap();
    assert_eq!(report.outcome, Outcome::Failed, "{report}");
    let load = &report.phases[0];
    assert_eq!(
        (
            load.operations,
            load.requests[0].latency.count,
            load.requests[0].errors
        ),
        (500, 450, 50)
    );
    assert_eq!((load.errors[0].code, load.errors[0].count), (Some(6), 50));
    assert!(
        report.check.as_ref().unwrap().summary.is_some(),
        "refused writes are no violation: {report}"
    );
}

#[test]
fn a_lost_write_is_found() {
    let node = FakeNode::start(Fault::LoseWrite(300));
    let configuration = configuration(&node, &["--phase", "load,check"]);
    let report = execute(&configuration).unwrap();
    assert_eq!(
        (report.outcome, kinds(&report)),
        (Outcome::Violation, vec![ViolationKind::MissingKey])
    );
}

#[test]
fn wrong_reads_are_found_while_running() {
    for (fault, kind) in [
        (Fault::WrongRead(100), ViolationKind::ForeignValue),
        (Fault::FlipRead(100), ViolationKind::CorruptValue),
    ] {
        let node = FakeNode::start(fault);
        let configuration = configuration(&node, &["--workload", "c", "--operations", "1000", "--verify"]);
        let report = execute(&configuration).unwrap();
        assert_eq!(
            (report.outcome, kinds(&report)),
            (Outcome::Violation, vec![kind]),
            "{report}"
        );
        assert!(
            report.phases[1].operations < 200,
            "the phase stops at the first violation: {report}"
        );
        assert!(report.check.is_none());
    }
}

#[test]
fn a_database_with_other_data_is_refused() {
    let node = FakeNode::start(Fault::None);
    node.tamper(|data| drop(data.insert(b"user1".to_vec(), (1, vec![1; 50]))));
    let configuration = configuration(&node, &["--phase", "load,check"]);
    let report = execute(&configuration).unwrap();
    assert_eq!(
        (report.outcome, kinds(&report)),
        (Outcome::Violation, vec![ViolationKind::CorruptValue])
    );
}

#[test]
fn reads_without_records_fail_the_run() {
    let node = FakeNode::start(Fault::None);
    let configuration = configuration(&node, &["--phase", "run", "--operations", "100"]);
    let report = execute(&configuration).unwrap();
    assert_eq!(report.outcome, Outcome::Failed);
    assert!(report.reason.unwrap().contains("--phase load"));
}

#[test]
fn a_pipeline_beyond_the_nodes_is_refused() {
    let node = FakeNode::start(Fault::None);
    let configuration = configuration(&node, &["--pipeline", "65"]);
    let report = execute(&configuration).unwrap();
    assert_eq!(report.outcome, Outcome::Failed);
    assert!(report.reason.unwrap().contains("give --pipeline 64 or less"));
}

#[test]
fn the_register_carries_over_kills() {
    let directory = tempfile::tempdir().unwrap();
    let register = directory.path().join("register").display().to_string();
    let words = |phases| {
        let fixed = [
            "--register",
            &register,
            "--on-disconnect",
            "stop",
            "--pipeline",
            "8",
            "--operations",
            "20000",
        ];
        [&fixed as &[_], &["--phase", phases]].concat()
    };
    let node = FakeNode::start(Fault::DieAtWrite(200));
    let mut unanswered = 0;
    for (round, phases) in ["load", "load,run", "run", "run"].into_iter().enumerate() {
        let configuration = configuration(&node, &words(phases));
        let report = execute(&configuration).unwrap();
        assert_eq!(report.outcome, Outcome::NodeLost, "round {round}: {report}");
        unanswered += report.phases.last().unwrap().unanswered;
        node.revive(Fault::None);
        let configuration = self::configuration(&node, &words("check"));
        let report = execute(&configuration).unwrap();
        assert_eq!(report.outcome, Outcome::Ok, "round {round}: {report}");
        node.revive(Fault::DieAtWrite(900 + 100 * round as u64));
    }
    assert!(unanswered > 0, "the kills met nothing in flight");

    // The register would see it if the node came back with less.
    node.tamper(|data| drop(data.pop_first()));
    node.revive(Fault::None);
    let configuration = self::configuration(&node, &words("check"));
    let report = execute(&configuration).unwrap();
    assert_eq!(
        (report.outcome, kinds(&report)),
        (Outcome::Violation, vec![ViolationKind::MissingKey])
    );
}

#[test]
fn a_lost_node_is_a_failure_unless_expected() {
    let node = FakeNode::start(Fault::DieAtWrite(100));
    let configuration = configuration(&node, &["--phase", "load"]);
    let report = execute(&configuration).unwrap();
    assert_eq!(report.outcome, Outcome::Failed);
    assert!(report.reason.unwrap().contains("node lost"));
}

#[test]
fn register_mistakes_are_sentences() {
    let directory = tempfile::tempdir().unwrap();
    let register = directory.path().join("register").display().to_string();
    let node = FakeNode::start(Fault::None);
    let check = configuration(&node, &["--register", &register, "--phase", "check"]);
    assert!(execute(&check).unwrap_err().contains("add `load`"));
    execute(&configuration(
        &node,
        &["--register", &register, "--phase", "load"],
    ))
    .unwrap();
    assert_eq!(execute(&check).unwrap().outcome, Outcome::Ok);
    let mut other = check.clone();
    other.records = Some(501);
    assert!(execute(&other).unwrap_err().contains("leave --records out"));
}

#[test]
fn the_json_document_says_what_the_table_says() {
    let node = FakeNode::start(Fault::None);
    let configuration = configuration(&node, &["--operations", "100", "--verify", "--json"]);
    let report = execute(&configuration).unwrap();
    let document = serde_json::to_value(&report).unwrap();
    assert_eq!(document["outcome"], "ok");
    assert_eq!(document["configuration"]["workload"], "a");
    assert_eq!(document["configuration"]["run_length"]["operations"], 100);
    assert_eq!(document["phases"][1]["operations"], 100);
    assert!(document["phases"][1]["requests"][0]["p999_us"].as_f64().unwrap() > 0.0);
    assert_eq!(document["check"]["summary"]["records"], 500);
}
