//! Settings from three sources: which one wins, what is refused and how, and that what is printed reads as the same.

use super::settings::{SETTINGS, Shape};
use super::*;

/// What a made-up process was started with.
#[derive(Clone, Default)]
struct Given {
    flags: Vec<(&'static str, &'static str)>,
    variables: Vec<(&'static str, &'static str)>,
    file: Option<String>,
}

impl Given {
    fn read(&self) -> Result<Configuration, String> {
        let flags = self
            .flags
            .iter()
            .map(|(name, value)| (*name, OsString::from(value)));
        let variable = |wanted: &str| {
            let found = self.variables.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, value)| OsString::from(value))
        };
        let directory = tempfile::tempdir().unwrap();
        let path = self.file.as_ref().map(|text| {
            let path = directory.path().join("node.toml");
            std::fs::write(&path, text).unwrap();
            path
        });
        Configuration::read(flags.collect(), path, &variable)
    }

    #[track_caller]
    fn assert_refused(&self, words: &[&str]) {
        let sentence = self.read().expect_err("nonsense");
        for word in words {
            assert!(sentence.contains(word), "no '{word}' in: {sentence}");
        }
    }
}

fn flags(flags: &[(&'static str, &'static str)]) -> Given {
    Given {
        flags: flags.to_vec(),
        ..Given::default()
    }
}

/// What the tests' machine comes to.
fn effective(configuration: &Configuration) -> Effective {
    Effective {
        cores: configuration.cores.unwrap_or(2),
        cpus: configuration.cpus.clone().unwrap_or(vec![0, 1]),
        memory_bytes: configuration.memory_bytes.unwrap_or(3 << 30),
        connections_max: configuration.connections_max.unwrap_or(900),
        connections_per_address_max: configuration.connections_per_address_max.unwrap_or(450).min(900),
    }
}

#[test]
fn without_sources_everything_has_its_default() {
    let found = Given::default().read().unwrap();
    assert_eq!(found.data, PathBuf::from("./ostrakon-data"));
    assert_eq!(found.listen.to_string(), "127.0.0.1:5750");
    assert_eq!(found.http.unwrap().to_string(), "127.0.0.1:5752");
    assert_eq!((found.hello_timeout_ms, found.idle_timeout_ms), (10_000, 0));
    assert_eq!(found.log, "info");
    assert!(!found.spin && !found.insecure && !found.cut_corrupt_log);
    assert!(found.cores.is_none() && found.connections_max.is_none());
}

#[test]
fn a_flag_goes_before_a_variable_and_a_variable_before_the_file() {
    let mut given = Given {
        flags: vec![("cores", "1")],
        variables: vec![
            ("OSTRAKON_CORES", "2"),
            ("OSTRAKON_SHARDS", "16"),
            ("OSTRAKON_SPIN", ""),
        ],
        file: Some("cores = 3\nshards = 32\nspin = true\nmemory = \"1GiB\"\n".to_owned()),
    };
    let found = given.read().unwrap();
    assert_eq!((found.cores, found.shards), (Some(1), Some(16)));
    assert_eq!(found.memory_bytes, Some(1 << 30));
    assert!(found.spin, "an empty variable is none");
    given.flags.push(("spin", "false"));
    assert!(
        !given.read().unwrap().spin,
        "a flag can switch off what the file switches on"
    );
    given.flags.clear();
    assert_eq!(given.read().unwrap().cores, Some(2));
    given.variables.clear();
    assert_eq!(given.read().unwrap().cores, Some(3));
}

#[test]
fn the_log_filter_has_two_variables() {
    let mut given = Given {
        variables: vec![("RUST_LOG", "debug"), ("OSTRAKON_LOG", "warn")],
        ..Given::default()
    };
    assert_eq!(given.read().unwrap().log, "warn");
    given.variables.pop();
    assert_eq!(given.read().unwrap().log, "debug");
}

#[test]
fn nonsense_is_refused_in_the_same_words_from_every_source() {
    let words = "invalid value '12' for ";
    let sentence = "the number of shards is a power of two";
    flags(&[("shards", "12")]).assert_refused(&[words, "--shards", sentence]);
    let given = Given {
        variables: vec![("OSTRAKON_SHARDS", "12")],
        ..Given::default()
    };
    given.assert_refused(&[words, "OSTRAKON_SHARDS", sentence]);
    let given = Given {
        file: Some("\nshards = 12".to_owned()),
        ..Given::default()
    };
    given.assert_refused(&[words, "shards in ", "node.toml, line 2", sentence]);
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let variable = |name: &str| (name == FILE_VARIABLE).then(|| "not/there.toml".into());
    let sentence = Configuration::read(Flags::new(), None, &variable).unwrap_err();
    assert!(sentence.contains("not/there.toml can't be read"), "{sentence}");
}

#[test]
fn only_loopback_without_insecure() {
    for (address, loopback) in [
        ("127.0.0.1:5750", true),
        ("127.9.9.9:1", true),
        ("[::1]:5750", true),
        ("[::ffff:127.0.0.1]:5750", true),
        ("0.0.0.0:5750", false),
        ("[::]:5750", false),
        ("192.168.1.7:5750", false),
    ] {
        for name in ["listen", "http"] {
            let found = flags(&[(name, address)]).read();
            assert_eq!(found.is_ok(), loopback, "{name} {address}");
            assert!(flags(&[(name, address), ("insecure", "true")]).read().is_ok());
        }
    }
    flags(&[("http", "0.0.0.0:1")]).assert_refused(&[
        "refusing",
        "0.0.0.0:1",
        "--insecure",
        "127.0.0.1:5752",
    ]);
}

#[test]
fn one_address_can_not_have_more_connections_than_there_are() {
    assert!(
        flags(&[("max-connections", "10"), ("max-connections-per-address", "10")])
            .read()
            .is_ok()
    );
    flags(&[("max-connections", "10"), ("max-connections-per-address", "11")])
        .assert_refused(&["--max-connections-per-address is 11", "10 connections"]);
    flags(&[("max-connections-per-address", "20001")]).assert_refused(&["20000 connections"]);
}

#[test]
fn what_is_printed_reads_as_the_same() {
    let all = [
        ("data", "/some \"where\""),
        ("listen", "[::1]:1"),
        ("http", "off"),
        ("insecure", "true"),
        ("cores", "3"),
        ("cpus", "0-2,5"),
        ("shards", "64"),
        ("memory", "1025B"),
        ("segment-size", "1MiB"),
        ("compaction", "tiered"),
        ("compression", "none"),
        ("last-compression", "zstd"),
        ("max-connections", "77"),
        ("max-connections-per-address", "7"),
        ("hello-timeout", "1500ms"),
        ("idle-timeout", "90s"),
        ("scrub-rate", "3MiB"),
        ("spin", "true"),
        ("cut-corrupt-log", "true"),
        ("log", "warn,ostrakon::log=trace"),
    ];
    assert_eq!(all.map(|(name, _)| name), SETTINGS.map(|setting| setting.name));
    for given in [flags(&all), Given::default()] {
        let first = given.read().unwrap();
        let printed = first.to_toml(&effective(&first)).unwrap();
        let again = Given {
            file: Some(printed.clone()),
            ..Given::default()
        };
        let second = again.read().unwrap();
        let values = |text: &str| -> Vec<String> {
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            lines
                .map(|line| line.split(" # ").next().unwrap().to_owned())
                .collect()
        };
        let reprinted = second.to_toml(&effective(&second)).unwrap();
        assert_eq!(values(&reprinted), values(&printed));
        let settings: Vec<&str> = printed.lines().skip(1).collect();
        assert_eq!(settings.len(), SETTINGS.len());
        for (line, setting) in settings.iter().zip(&SETTINGS) {
            assert!(
                line.trim_start_matches("# ")
                    .starts_with(&format!("{} = ", setting.name)),
                "{line}"
            );
            assert!(
                line.rsplit_once(" # ")
                    .is_some_and(|(_, comment)| !comment.is_empty()),
                "{line}"
            );
        }
        let file = Configuration {
            origins: BTreeMap::new(),
            ..second.clone()
        };
        if !given.flags.is_empty() {
            assert_eq!(
                file,
                Configuration {
                    origins: BTreeMap::new(),
                    ..first
                }
            );
        }
    }
}

#[test]
fn every_value_is_printed_with_its_source() {
    let given = Given {
        flags: vec![("cores", "1")],
        variables: vec![("OSTRAKON_SPIN", "true")],
        file: Some("\nidle-timeout = \"10m\"".to_owned()),
    };
    let found = given.read().unwrap();
    let printed = found.to_toml(&effective(&found)).unwrap();
    let line = |start: &str| {
        printed
            .lines()
            .find(|line| line.starts_with(start))
            .unwrap_or(&printed)
    };
    assert_eq!(line("cores"), "cores = 1 # from its flag");
    assert_eq!(line("spin"), "spin = true # from the variable OSTRAKON_SPIN");
    assert!(line("idle-timeout").starts_with("idle-timeout = \"10m\" # from "));
    assert!(line("idle-timeout").ends_with("node.toml, line 2"));
    assert_eq!(line("listen"), "listen = \"127.0.0.1:5750\" # default");
    assert!(line("# shards").contains("# default: what the data directory has"));
}

#[test]
fn every_setting_has_a_variable_of_its_own() {
    let names: std::collections::BTreeSet<String> = SETTINGS.iter().map(Setting::variable).collect();
    assert_eq!(names.len(), SETTINGS.len());
    assert!(names.contains("OSTRAKON_MAX_CONNECTIONS_PER_ADDRESS"));
    assert!(SETTINGS.iter().any(|setting| setting.shape == Shape::Switch));
}
