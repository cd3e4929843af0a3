//! What each command line means, and the sentences of those that mean nothing.

use super::*;
use crate::arrival::Rate;

fn configure(words: &[&str]) -> Result<Configuration, String> {
    let words = std::iter::once("loadgen").chain(words.iter().copied());
    let arguments = Arguments::try_parse_from(words).map_err(|error| error.to_string())?;
    arguments.into_configuration(&CpuList(vec![0, 1, 2, 3]))
}

#[test]
fn no_arguments_load_run_and_check_an_embedded_node() {
    let configuration = configure(&[]).unwrap();
    assert_eq!(configuration.phases, [Phase::Load, Phase::Run, Phase::Check]);
    assert!(configuration.verify);
    assert_eq!(
        (configuration.records, configuration.value_size),
        (None, ValueSize::fixed(1000))
    );
    assert_eq!(
        (configuration.workload, configuration.open_loop),
        (Some(Workload::A), None)
    );
    assert_eq!(
        configuration.run_length,
        RunLength::Duration(Duration::from_secs(10))
    );
    assert_eq!(configuration.thread_cpus, [3, 2]);
    let directory = PathBuf::from("loadgen-data");
    assert_eq!(
        configuration.target,
        Target::Embedded {
            directory,
            cores: None,
            shards: None,
            cpus: None
        }
    );
}

#[test]
fn a_running_node_is_not_verified_unless_asked() {
    let configuration = configure(&["--connect", "localhost:5750"]).unwrap();
    assert!(!configuration.verify);
    assert_eq!(configuration.phases, [Phase::Load, Phase::Run]);
    let configuration = configure(&["--connect", "localhost:5750", "--verify"]).unwrap();
    assert_eq!(configuration.phases, [Phase::Load, Phase::Run, Phase::Check]);
    let configuration = configure(&[
        "--connect",
        "localhost:5750",
        "--register",
        "file",
        "--phase",
        "check",
    ])
    .unwrap();
    assert!(configuration.verify);
    assert_eq!(configuration.phases, [Phase::Check]);
    assert!(!configure(&["--verify=false"]).unwrap().verify);
    assert!(!configure(&["--phase", "run"]).unwrap().verify);
}

#[test]
fn phases_come_in_their_order() {
    let configuration = configure(&["--phase", "run,load", "--phase", "run"]).unwrap();
    assert_eq!(configuration.phases, [Phase::Load, Phase::Run]);
}

#[test]
fn an_embedded_node_keeps_off_the_cpus_of_the_load() {
    let configuration = configure(&["--cpus", "2-3"]).unwrap();
    assert_eq!(configuration.thread_cpus, [3, 2]);
    let Target::Embedded { cpus, .. } = configuration.target else {
        panic!("no embedded node")
    };
    assert_eq!(cpus, Some(CpuList(vec![0, 1])));
    let Target::Embedded { cpus, .. } = configure(&["--cpus", "0-3"]).unwrap().target else {
        panic!()
    };
    assert_eq!(cpus, None);
    assert_eq!(
        configure(&["--cpus", "2", "--threads", "3"]).unwrap().thread_cpus,
        [2, 2, 2]
    );
    assert_eq!(configure(&["--connections", "1"]).unwrap().thread_cpus, [3]);
}

#[test]
fn values_and_lengths_are_read() {
    for (words, low_bytes, high_bytes) in [
        (&["--value-size", "100"] as &[&str], 100, 100),
        (&["--value-size", "100-2000"], 100, 2000),
        (&["--fields", "4", "--field-bytes", "25"], 100, 100),
    ] {
        let expected = ValueSize {
            low_bytes,
            high_bytes,
        };
        assert_eq!(configure(words).unwrap().value_size, expected);
    }
    assert_eq!(
        configure(&["--operations", "7"]).unwrap().run_length,
        RunLength::Operations(7)
    );
    for (text, milliseconds) in [
        ("30s", 30_000),
        ("5", 5000),
        ("250ms", 250),
        ("1.5m", 90_000),
        ("1h", 3_600_000),
    ] {
        let expected = RunLength::Duration(Duration::from_millis(milliseconds));
        assert_eq!(
            configure(&["--duration", text]).unwrap().run_length,
            expected,
            "{text}"
        );
    }
}

#[test]
fn wrong_command_lines_are_refused_with_what_to_do() {
    for (words, sentence) in [
        (&["--records", "0"] as &[&str], "give a number from 1 to"),
        (&["--pipeline", "0"], "give a number from 1 to"),
        (&["--connections", "0"], "give a number from 1 to"),
        (&["--operations", "0"], "give a number from 1 to"),
        (&["--threads", "9", "--connections", "8"], "see --connections"),
        (&["--value-size", "39"], "must be from 40"),
        (&["--value-size", "39-100"], "must be from 40"),
        (&["--value-size", "100-50"], "such as 1000 or 100-1000"),
        (&["--scan-length", "0"], "give a number from 1 to"),
        (&["--rate", "0"], "such as 20000 or 20k"),
        (&["--rate", "fast"], "such as 20000 or 20k"),
        (&["--rate", "5k", "--ramp", "5s"], "such as --rate 1k-50k"),
        (&["--rate", "1k-5k", "--operations", "9"], "add --ramp"),
        (&["--ramp", "5s"], "--rate"),
        (&["--arrivals", "poisson"], "add --rate or --find-max"),
        (&["--find-max"], "such as --p99 5ms"),
        (
            &["--find-max", "--p99", "5ms", "--rate", "1k-5k"],
            "give --rate one number",
        ),
        (&["--find-max", "--p99", "5ms", "--phase", "load"], "add `run`"),
        (&["--p99", "5ms"], "--find-max"),
        (&["--theta", "1"], "such as 0.99"),
        (&["--hot-records", "20"], "such as 0.2"),
        (&["--workload", "a", "--mix", "read=1"], "cannot be used with"),
        (&["--mix", "read=1,sacn=2"], "no operation is called"),
        (
            &["--mix", "delete=1", "--verify"],
            "the register knows no deletes",
        ),
        (&["--workload", "e", "--history", "h"], "a workload without scans"),
        (&["--target", "redis"], "add --connect"),
        (
            &["--target", "redis", "--connect", "a:1", "--workload", "e"],
            "without scans",
        ),
        (
            &["--target", "redis", "--connect", "a:1", "--verify"],
            "leave --verify",
        ),
        (
            &["--target", "redis", "--connect", "a:1", "--route", "shard"],
            "leave it out",
        ),
        (&["--value-size", "9000000"], "must be from 40"),
        (
            &["--mix", "mput=1", "--multi", "9", "--value-size", "100-1000000"],
            "give --multi 8 or less",
        ),
        (
            &["--fields", "3", "--field-bytes", "10"],
            "--fields × --field-bytes must be",
        ),
        (&["--cpus", "9"], "it may use 0,1,2,3"),
        (&["--cpus", "3-1"], "such as 0,2-5"),
        (&["--duration", "soon"], "such as 30s"),
        (&["--duration", "0s"], "such as 30s"),
        (&["--phase", "run", "--verify"], "--register FILE"),
        (&["--phase", "check"], "--register FILE"),
        (&["--phase", "check", "--verify=false"], "leave one of them out"),
        (&["--register", "file", "--verify=false"], "leave one of them out"),
        (&["--operations", "5", "--duration", "5s"], "cannot be used with"),
        (&["--value-size", "100", "--fields", "5"], "cannot be used with"),
        (&["--connect", "a:1", "--data", "b"], "cannot be used with"),
        (&["--workload", "g"], "possible values"),
    ] {
        let error = configure(words).unwrap_err();
        assert!(error.contains(sentence), "{words:?}: {error}");
    }
}

#[test]
fn workloads_bring_their_distribution() {
    for (words, expected) in [
        (&["--workload", "d"] as &[&str], Distribution::Latest),
        (&["--workload", "E"], Distribution::Zipfian),
        (&["--mix", "read=1"], Distribution::Zipfian),
        (
            &["--workload", "d", "--distribution", "uniform"],
            Distribution::Uniform,
        ),
    ] {
        assert_eq!(
            configure(words).unwrap().choice.distribution,
            expected,
            "{words:?}"
        );
    }
    // What the register cannot follow is not verified, unless that is asked for.
    assert!(configure(&["--workload", "e"]).unwrap().verify);
    assert!(!configure(&["--mix", "read=1,delete=1"]).unwrap().verify);
}

#[test]
fn rates_and_ramps_are_read() {
    let rate = |words: &[&str]| configure(words).unwrap().open_loop.unwrap().rate;
    assert_eq!(rate(&["--rate", "20k"]), Rate::fixed(20_000.0));
    let ramp = Rate {
        from_per_second: 500.0,
        to_per_second: 1_500_000.0,
        ramp_seconds: 10.0,
    };
    assert_eq!(rate(&["--rate", "500-1.5M"]), ramp);
    let short = Rate {
        ramp_seconds: 3.0,
        ..ramp
    };
    assert_eq!(rate(&["--rate", "500-1.5M", "--ramp", "3s"]), short);
}

#[test]
fn a_search_has_a_first_rate_goals_and_short_steps() {
    let configuration = configure(&["--find-max", "--p99", "5ms", "--p999", "20ms"]).unwrap();
    assert_eq!(configuration.open_loop.unwrap().rate, Rate::fixed(1000.0));
    let goals = configuration.goals.unwrap().0;
    let goals: Vec<_> = goals.iter().map(|goal| (goal.name, goal.most_us)).collect();
    assert_eq!(goals, [("p99", 5000), ("p99.9", 20_000)]);
    assert_eq!(
        (configuration.run_length, configuration.warm_up),
        (RunLength::Duration(STEP_DEFAULT), STEP_WARM_UP_DEFAULT)
    );
}

#[test]
fn several_addresses_are_read() {
    let expected = Target::Connect(vec!["a:1".to_owned(), "b:2".to_owned(), "c:3".to_owned()]);
    assert_eq!(
        configure(&["--connect", "a:1,b:2", "--connect", "c:3"])
            .unwrap()
            .target,
        expected
    );
}

#[test]
fn cpu_lists_are_read_as_the_kernel_writes_them() {
    assert_eq!(parse_cpus("0-1,4,6-7\n").unwrap(), CpuList(vec![0, 1, 4, 6, 7]));
    assert_eq!(parse_cpus("2,2,1").unwrap(), CpuList(vec![1, 2]));
    assert!(parse_cpus("").is_err() && parse_cpus("1,").is_err() && parse_cpus("-1").is_err());
}

#[test]
fn a_history_needs_the_register_and_the_load() {
    let configuration = configure(&["--connect", "localhost:5750", "--history", "h.edn"]).unwrap();
    assert!(configuration.verify);
    assert_eq!(configuration.phases, [Phase::Load, Phase::Run, Phase::Check]);
    let refused = configure(&["--history", "h.edn", "--verify=false"]).unwrap_err();
    assert!(refused.contains("--history"), "{refused}");
    let refused = configure(&["--history", "h.edn", "--phase", "run", "--register", "r"]).unwrap_err();
    assert!(refused.contains("add `load`"), "{refused}");
}
