//! Several addresses, the map of shards, deletes, Redis, and the files that a run writes.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{configuration, configuration_of, run_phase};
use crate::fake_node::{FakeNode, Fault};
use loadgen::report::{Outcome, RunReport};
use loadgen::run::{execute, run};
use loadgen::statistics::Measure;

#[test]
fn connections_go_round_the_addresses() {
    let node = FakeNode::start(Fault::None);
    let second = node.second_address().to_string();
    let words = [
        "--connect",
        &second,
        "--operations",
        "2000",
        "--verify",
        "--connections",
        "8",
    ];
    let configuration = configuration(&node, &words);
    let report = execute(&configuration).unwrap();
    assert_eq!(report.outcome, Outcome::Ok, "{report}");
    assert_eq!(report.addresses.len(), 2);
    // For each phase one hello per address to learn of the cores; each address gets every core in turn.
    let asked = node.cores_asked();
    let expected = [
        None,
        None,
        Some(0),
        Some(0),
        Some(1),
        Some(1),
        Some(2),
        Some(2),
        Some(0),
        Some(0),
    ];
    assert_eq!(asked[..10], expected);
}

#[test]
fn nodes_of_two_clusters_are_refused() {
    let (one, other) = (
        FakeNode::start(Fault::None),
        FakeNode::start_in_cluster(Fault::None, 2),
    );
    let address = other.address.to_string();
    let configuration = configuration(&one, &["--connect", &address]);
    let report = execute(&configuration).unwrap();
    assert_eq!(report.outcome, Outcome::Failed);
    assert!(report.reason.unwrap().contains("Name nodes of one cluster"));
}

#[test]
fn with_the_map_of_shards_each_request_goes_to_the_core_of_its_key() {
    for pace in [
        &["--operations", "6000"] as &[&str],
        &["--rate", "1000", "--duration", "1s"],
    ] {
        let node = FakeNode::start(Fault::None);
        let words = [
            pace,
            &[
                "--route",
                "shard",
                "--connections",
                "6",
                "--threads",
                "2",
                "--pipeline",
                "4",
                "--verify",
            ],
        ]
        .concat();
        let sharded = configuration(&node, &words);
        let report = execute(&sharded).unwrap();
        assert_eq!(report.outcome, Outcome::Ok, "{report}");
        assert!(run_phase(&report).operations >= 999, "{report}");
        assert_eq!(node.misrouted(), 0, "{report}");
        execute(&configuration(&node, &["--operations", "500"])).unwrap();
        assert!(
            node.misrouted() > 100,
            "without the map, two reads of three come to another core"
        );
    }
    let node = FakeNode::start(Fault::None);
    let few = configuration(
        &node,
        &["--route", "shard", "--connections", "5", "--threads", "2"],
    );
    let report = execute(&few).unwrap();
    assert!(report.reason.unwrap().contains("--connections 6 or more"));
}

#[test]
fn deletes_are_carried_out() {
    let node = FakeNode::start(Fault::None);
    let words = [
        "--mix",
        "delete=1,read=1",
        "--distribution",
        "sequential",
        "--operations",
        "1000",
    ];
    let configuration = configuration(&node, &words);
    let report = execute(&configuration).unwrap();
    assert_eq!(report.outcome, Outcome::Ok, "{report}");
    let deleted = run_phase(&report)
        .requests
        .iter()
        .find(|row| row.operation == Measure::Delete);
    assert!(
        deleted.unwrap().latency.count > 300 && node.keys() < 300,
        "{report}"
    );
}

#[test]
fn wrong_scans_are_found_while_running() {
    let node = FakeNode::start(Fault::None);
    let register = tempfile::tempdir().unwrap();
    let register = register.path().join("register").display().to_string();
    let load = configuration(&node, &["--register", &register, "--phase", "load"]);
    assert_eq!(execute(&load).unwrap().outcome, Outcome::Ok);
    node.tamper(|data| data.values_mut().nth(250).unwrap().1[77] ^= 1);
    let words = [
        "--register",
        &register,
        "--phase",
        "run",
        "--workload",
        "e",
        "--operations",
        "2000",
    ];
    let configuration = configuration(&node, &words);
    let report = execute(&configuration).unwrap();
    assert_eq!(report.outcome, Outcome::Violation, "{report}");
    assert!(report.to_string().contains("first at byte 77"), "{report}");
}

#[test]
fn a_register_goes_on_with_what_was_inserted() {
    let node = FakeNode::start(Fault::None);
    let register = tempfile::tempdir().unwrap();
    let register = register.path().join("register").display().to_string();
    let words = [
        "--connect",
        &node.address.to_string(),
        "--register",
        &register,
        "--value-size",
        "100-300",
        "--workload",
        "d",
    ];
    let words = |more: &[&'static str]| {
        [&words[..], more]
            .concat()
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    let execute_words = |words: Vec<String>| {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let configuration = configuration_of(&words).unwrap();
        let report = execute(&configuration).unwrap();
        assert_eq!(report.outcome, Outcome::Ok, "{report}");
        let inserted = report.phases.last().map_or(0, |phase| {
            let rows = phase
                .requests
                .iter()
                .filter(|row| row.operation == Measure::Insert);
            rows.map(|row| row.latency.count).sum()
        });
        (report.records, inserted, report.check.map(|check| check.entries))
    };
    let (_, inserted, _) = execute_words(words(&[
        "--records",
        "300",
        "--phase",
        "load,run",
        "--operations",
        "2000",
    ]));
    assert!(inserted > 50, "{inserted}");
    let (records, more, _) = execute_words(words(&["--phase", "run", "--operations", "2000"]));
    assert_eq!(records, 300 + inserted);
    let (_, _, entries) = execute_words(words(&["--phase", "check"]));
    assert_eq!(entries, Some(300 + inserted + more));
}

#[test]
fn a_run_writes_its_files() {
    let node = FakeNode::start(Fault::None);
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).display().to_string();
    let (plot, hgrm, json) = (at("out.svg"), at("out.hgrm"), at("out.json"));
    let words = [
        "--rate",
        "1000",
        "--duration",
        "1s",
        "--plot",
        &plot,
        "--hgrm",
        &hgrm,
        "--json-out",
        &json,
        "--series",
    ];
    let configuration = configuration(&node, &words);
    assert_eq!(run(&configuration).unwrap(), Outcome::Ok);
    let read = |path: &str| std::fs::read_to_string(path).unwrap();
    assert!(read(&plot).starts_with("<svg") && read(&plot).contains("YCSB-A on 127.0.0.1"));
    for name in ["out.hgrm", "out.read.hgrm", "out.update.hgrm", "out.service.hgrm"] {
        assert!(read(&at(name)).contains("1/(1-Percentile)"), "{name}");
    }
    let document: serde_json::Value = serde_json::from_str(&read(&json)).unwrap();
    let run = &document["phases"][1];
    assert_eq!(run["series"][0]["second"], 0);
    assert!((run["open_loop"]["offered_per_second"].as_f64().unwrap() - 1000.0).abs() < 1e-6);
    assert_eq!(run["latency"]["count"], run["operations"]);
    assert_eq!(
        document["configuration"]["open_loop"]["rate"]["to_per_second"],
        1000.0
    );
}

/// A Redis on a free loopback port, without persistence, and killed at the end.
struct Redis {
    process: Child,
    address: String,
}

impl Redis {
    /// None where it is not installed, which is said.
    fn start() -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let spawned = Command::new("redis-server")
            .args([
                "--bind",
                "127.0.0.1",
                "--port",
                &port.to_string(),
                "--save",
                "",
                "--appendonly",
                "no",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        let Ok(process) = spawned else {
            println!("skipped: there is no redis-server; install the package redis-server");
            return None;
        };
        let address = format!("127.0.0.1:{port}");
        let redis = Self { process, address };
        let begun = Instant::now();
        while TcpStream::connect(&redis.address).is_err() {
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "redis-server does not listen"
            );
            std::thread::yield_now();
        }
        Some(redis)
    }

    /// What it answers to a command without arguments.
    fn ask(&self, command: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.write_all(format!("{command}\r\n").as_bytes()).unwrap();
        let mut answer = [0; 256];
        let count = stream.read(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[..count]).into_owned()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _gone_already = self.process.kill();
        let _status = self.process.wait();
    }
}

fn redis_words<'a>(connect: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let fixed = [
        "--target",
        "redis",
        "--connect",
        connect,
        "--records",
        "500",
        "--value-size",
        "100-200",
    ];
    [&fixed, more].concat()
}

fn counts(report: &RunReport<'_>) -> Vec<(Measure, u64)> {
    let rows = run_phase(report).requests.iter();
    rows.map(|row| (row.operation, row.latency.count)).collect()
}

#[test]
fn redis_gets_exactly_the_operations_that_a_node_gets() {
    let Some(redis) = Redis::start() else {
        return;
    };
    let node = FakeNode::start(Fault::None);
    for workload in ["a", "b", "c", "d", "f"] {
        assert!(redis.ask("FLUSHALL").starts_with("+OK"));
        let words = [
            "--workload",
            workload,
            "--operations",
            "4000",
            "--pipeline",
            "8",
            "--threads",
            "1",
            "--connections",
            "5",
        ];
        let configuration_of_redis = configuration_of(&redis_words(&redis.address, &words)).unwrap();
        let of_redis = execute(&configuration_of_redis).unwrap();
        assert_eq!(of_redis.outcome, Outcome::Ok, "{of_redis}");
        let configuration_of_node = configuration(&node, &words);
        let of_node = execute(&configuration_of_node).unwrap();
        assert_eq!(counts(&of_redis), counts(&of_node));
        let inserted: u64 = { counts(&of_redis).into_iter() }
            .filter(|(measure, _)| *measure == Measure::Insert)
            .map(|(_, count)| count)
            .sum();
        assert_eq!(redis.ask("DBSIZE"), format!(":{}\r\n", 500 + inserted));
    }
}

#[test]
fn two_redis_servers_share_the_keys() {
    let (Some(first), Some(second)) = (Redis::start(), Redis::start()) else {
        return;
    };
    let connect = format!("{},{}", first.address, second.address);
    let words = redis_words(
        &connect,
        &[
            "--operations",
            "3000",
            "--threads",
            "2",
            "--connections",
            "6",
            "--rate",
            "3000",
        ],
    );
    let configuration = configuration_of(&words).unwrap();
    let report = execute(&configuration).unwrap();
    assert_eq!(report.outcome, Outcome::Ok, "{report}");
    let keys = |redis: &Redis| {
        redis
            .ask("DBSIZE")
            .trim_matches([':', '\r', '\n'])
            .parse::<u64>()
            .unwrap()
    };
    let (of_first, of_second) = (keys(&first), keys(&second));
    assert_eq!(of_first + of_second, 500);
    assert!(of_first > 150 && of_second > 150, "{of_first} and {of_second}");
}

#[test]
fn errors_of_redis_are_counted_by_their_word() {
    let Some(redis) = Redis::start() else {
        return;
    };
    assert!(redis.ask("CONFIG SET maxmemory 1").starts_with("+OK"));
    let configuration = configuration_of(&redis_words(&redis.address, &["--phase", "load"])).unwrap();
    let report = execute(&configuration).unwrap();
    assert_eq!(report.outcome, Outcome::Failed, "{report}");
    let errors = &report.phases[0].errors;
    assert_eq!(
        (errors[0].code, errors[0].name.as_str(), errors[0].count),
        (None, "OOM", 500),
        "{report}"
    );
}

#[test]
fn what_is_no_redis_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
    });
    let configuration = configuration_of(&redis_words(&address, &[])).unwrap();
    let report = execute(&configuration).unwrap();
    assert_eq!(report.outcome, Outcome::Failed, "{report}");
    assert!(report.reason.unwrap().contains("is a Redis listening there?"));
}
