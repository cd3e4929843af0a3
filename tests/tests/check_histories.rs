//! The checkers against histories of each anomaly by name, and the text form there and back.

#![allow(
    clippy::disallowed_methods,
    reason = "the test reads the histories of the repository"
)]

use std::path::{Path, PathBuf};

use ostrakon_tests::check::generate::{Shape, Workload, generate};
use ostrakon_tests::check::history::{Action, Datum, Event, EventKind, History, HistoryWriter, Process};
use ostrakon_tests::check::{Verdict, answers, registers, transactions};
use ostrakon_tests::promises;
use transactions::{Level, Settings};

const LEVELS: [(&str, Level); 3] = [
    ("strict-serializable", Level::StrictSerializable),
    ("serializable", Level::Serializable),
    ("snapshot", Level::Snapshot),
];

/// A history of the repository, with what its head says of it.
struct Example {
    path: PathBuf,
    history: History,
    head: Vec<(String, String)>,
}

impl Example {
    fn entry(&self, name: &str) -> &str {
        let found = self.head.iter().find(|(own, _)| own == name);
        found.map_or("", |(_, value)| value)
    }
}

fn examples(folder: &str) -> Vec<Example> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("testdata/histories")
        .join(folder);
    let mut paths: Vec<PathBuf> = std::fs::read_dir(&root)
        .unwrap_or_else(|error| panic!("{}: {error}", root.display()))
        .map(|entry| entry.expect("a readable folder").path())
        .collect();
    paths.sort();
    let read = |path: PathBuf| {
        let text =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let head = text
            .lines()
            .filter_map(|line| line.strip_prefix("; ")?.split_once(": "));
        Example {
            head: head.map(|(name, value)| (name.into(), value.into())).collect(),
            history: History::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display())),
            path,
        }
    };
    paths.into_iter().map(read).collect()
}

/// The names of all violations, and the report.
fn judge(example: &Example, level: Level) -> (Vec<String>, String) {
    let path = example.path.display();
    match example.entry("checker") {
        "registers" => {
            let verdict = registers::check(&example.history, &registers::Settings::default())
                .unwrap_or_else(|error| panic!("{path}: {error}"));
            assert!(
                !matches!(verdict, Verdict::Undecided { .. }),
                "{}",
                example.path.display()
            );
            let names = verdict.violations().iter().map(|found| found.anomaly.to_string());
            (names.collect(), verdict.to_string())
        }
        "transactions" => {
            let verdict = transactions::check(&example.history, &Settings::new(level))
                .unwrap_or_else(|error| panic!("{path}: {error}"));
            assert!(
                !matches!(verdict, Verdict::Undecided { .. }),
                "{}",
                example.path.display()
            );
            let names = verdict.violations().iter().map(|found| found.anomaly.to_string());
            (names.collect(), verdict.to_string())
        }
        "answers" => {
            let verdict = answers::check(&example.history).unwrap_or_else(|error| panic!("{path}: {error}"));
            let names = verdict.violations().iter().map(|_| "changed answer".to_owned());
            (names.collect(), verdict.to_string())
        }
        // All checkers together; their words hold the name.
        "promises" => {
            let objections = promises::objections(&example.history);
            let expected = example.entry("anomaly");
            let is_named = |end: &str, objection: &String| objection.contains(&format!("{expected}{end}"));
            let named = |objection: &String| {
                !expected.is_empty() && (is_named(" at", objection) || is_named(":", objection))
            };
            let name = |objection: &String| {
                if named(objection) {
                    expected.to_owned()
                } else {
                    objection.clone()
                }
            };
            (objections.iter().map(name).collect(), objections.join("\n"))
        }
        other => panic!("{}: no checker is called {other:?}", example.path.display()),
    }
}

#[test]
fn bad_histories_are_refused_by_name_at_each_level_that_forbids_them() {
    let mut wrong = Vec::new();
    let all = examples("bad");
    assert!(all.len() >= 50, "{} bad histories", all.len());
    for example in &all {
        let allowed_at: Vec<&str> = example.entry("allowed at").split(", ").collect();
        for (name, level) in LEVELS {
            let (found, report) = judge(example, level);
            let expected = example.entry("anomaly");
            let as_expected = if allowed_at.contains(&name) {
                found.is_empty()
            } else {
                found.iter().any(|found| found == expected)
            };
            if !as_expected {
                let path = example.path.display();
                wrong.push(format!(
                    "{path} at {name}: expected {expected:?}, found {found:?}\n{report}"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn good_histories_are_allowed_at_each_level() {
    let all = examples("good");
    assert!(all.len() >= 8, "{} good histories", all.len());
    for example in &all {
        for (name, level) in LEVELS {
            let (found, report) = judge(example, level);
            assert!(
                found.is_empty(),
                "{} at {name}:\n{report}",
                example.path.display()
            );
        }
    }
}

#[test]
fn an_explanation_names_the_transactions_and_the_reason() {
    let all = examples("bad");
    let skew = all
        .iter()
        .find(|example| example.path.ends_with("transactions-write-skew.edn"))
        .expect("the example");
    let (_, report) = judge(skew, Level::Serializable);
    assert!(
        report.contains("T2 -> T3: T2 read key 2 (0) and did not see what T3 wrote (1)"),
        "{report}"
    );
    assert!(
        report.contains("T3 -> T2: T3 read key 1 (0) and did not see what T2 wrote (1)"),
        "{report}"
    );
    assert!(
        !report.contains("T0"),
        "only what is in the cycle is shown: {report}"
    );
}

#[test]
fn text_there_and_back_is_the_same_history() {
    for example in examples("bad").iter().chain(&examples("good")) {
        let text = example.history.to_edn();
        assert_eq!(
            History::parse(&text).as_ref(),
            Ok(&example.history),
            "{}",
            example.path.display()
        );
    }
    for workload in [Workload::Registers, Workload::ListAppend, Workload::ReadWrite] {
        let history = generate(&shape(workload), 7);
        let mut writer = HistoryWriter::new(Vec::new());
        for event in &history.events {
            writer.write(event).expect("memory takes everything");
        }
        let text = writer.finish().expect("memory takes everything");
        assert_eq!(String::from_utf8_lossy(&text), history.to_edn());
        assert_eq!(History::parse(&history.to_edn()).as_ref(), Ok(&history));
        let vector = format!("[{}]", history.to_edn());
        assert_eq!(History::parse(&vector).as_ref(), Ok(&history));
    }
}

#[test]
fn the_form_is_fixed_to_the_byte() {
    let key = Datum::from(&b"\x00\xff"[..]);
    let value = Some(Datum::from("a \"quote\"\n\\"));
    let event = Event::new(12, EventKind::Ok, Process(3), Action::Read { key, value });
    let text = History::new(vec![event]).to_edn();
    let expected =
        r#"{:index 0, :time 12, :type :ok, :process 3, :f :read, :value ["0x00ff" "a \"quote\"\n\\"]}"#;
    assert_eq!(text.trim_end(), expected);
    for odd in ["0x", "0x00", "\u{7}", "é", ""] {
        let event = Event::new(
            0,
            EventKind::Invoke,
            Process(0),
            Action::Delete { key: odd.into() },
        );
        let history = History::new(vec![event]);
        assert_eq!(History::parse(&history.to_edn()), Ok(history), "{odd:?}");
    }
}

#[test]
fn errors_name_the_line_and_what_was_expected() {
    let good = "{:index 0, :time 1, :type :invoke, :process 0, :f :read, :value [1 nil]}\n";
    for (bad, line, part) in [
        (
            "{:index 1, :time 1, :type :done, :process 0, :f :read, :value [1 nil]}",
            2,
            ":type of :invoke",
        ),
        (
            "\n{:index 1, :time -1, :type :ok, :process 0, :f :read, :value [1 nil]}",
            3,
            ":time",
        ),
        (
            "{:index 1, :time 1, :type :ok, :process 0, :f :read, :value 1}",
            2,
            "`[key value]`",
        ),
        (
            "{:index 1, :time 1, :type :ok, :process 0, :f :txn, :value [[:x 1 2]]}",
            2,
            "[:append key element]",
        ),
        (
            "{:index 1, :time 1, :type :ok, :process 0, :f :txn, :value [], :versions [1]}",
            2,
            ":versions",
        ),
        ("{:index 1", 2, "EDN"),
        ("7", 2, "expected an event"),
    ] {
        let error = History::parse(&format!("{good}{bad}")).expect_err(bad);
        assert_eq!(error.line, line, "{bad}: {error}");
        assert!(error.reason.contains(part), "{bad}: {error}");
    }
}

#[test]
fn what_no_client_can_cause_is_refused() {
    let line = |index: u64, time: u64, kind: &str, process: u64, value: &str| {
        format!(
            "{{:index {index}, :time {time}, :type :{kind}, :process {process}, :f :write, :value {value}}}\n"
        )
    };
    let call = line(0, 5, "invoke", 0, "[1 1]");
    for (text, part) in [
        (line(0, 5, "ok", 0, "[1 1]"), "an answer without a call"),
        (call.clone() + &line(1, 6, "invoke", 0, "[1 2]"), "has no answer"),
        (
            call.clone() + &line(1, 6, "info", 0, "[1 1]") + &line(2, 7, "invoke", 0, "[1 2]"),
            "new process number",
        ),
        (call.clone() + &line(1, 4, "ok", 0, "[1 1]"), "time goes back"),
        (
            call.clone() + &line(0, 6, "ok", 0, "[1 1]"),
            "expected a higher one",
        ),
        (
            call.clone() + &line(1, 6, "ok", 0, "[2 1]"),
            "something other than its call",
        ),
    ] {
        let history = History::parse(&text).expect("well-formed text");
        let error = history.operations().expect_err(part);
        assert!(error.to_string().contains(part), "{error}");
    }
    let nemesis = "{:index 1, :time 5, :type :info, :process :nemesis, :f :kill, :value nil}\n";
    let history = History::parse(&(call + nemesis)).expect("nemesis events are skipped");
    assert_eq!(history.events.len(), 1);
}

#[test]
fn a_search_without_budget_is_undecided() {
    let history = generate(&shape(Workload::Registers), 3);
    let settings = registers::Settings { budget_steps: 10 };
    let verdict = registers::check(&history, &settings).expect("a history");
    assert!(matches!(verdict, Verdict::Undecided { .. }), "{verdict}");
    let history = generate(&shape(Workload::ListAppend), 3);
    let mut settings = Settings::new(Level::StrictSerializable);
    settings.budget_edges = 10;
    let verdict = transactions::check(&history, &settings).expect("a history");
    assert!(matches!(verdict, Verdict::Undecided { .. }), "{verdict}");
}

fn shape(workload: Workload) -> Shape {
    Shape {
        workload,
        operations: 300,
        processes: 5,
        keys: 4,
        keys_last: 0,
        versions: workload != Workload::ListAppend,
        unknown_permille: 20,
    }
}
