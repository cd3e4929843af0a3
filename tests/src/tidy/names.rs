//! Rules on what code above `env` and in the protocol core may name.
//!
//! Above `env` nothing reaches the operating system, the clock, threads or random numbers except through
//! `env`'s traits; what does cannot run in the simulator. Tests inside those files count too. Exempt by rule:
//! `engine/src/env`, `engine/src/process` and the binary's `main.rs`.
//!
//! The lints of `clippy.toml` guard the same border, and hold for what else runs in the simulator or is it.

use super::lexer::{Spot, lex};
use super::paths::{PathUse, paths};
use super::text::attributes;
use super::{Source, Violation};

/// Beginnings of paths that reach past the seam.
const PATHS: [&[&str]; 15] = [
    &["std", "time"],
    &["std", "fs"],
    &["std", "net"],
    &["std", "thread"],
    &["std", "os"],
    &["std", "*"],
    &["std", "sync", "Mutex"],
    &["std", "sync", "RwLock"],
    &["std", "sync", "Condvar"],
    &["std", "sync", "Barrier"],
    &["std", "sync", "mpsc"],
    &["std", "sync", "*"],
    &["std", "collections", "HashMap"],
    &["std", "collections", "HashSet"],
    &["std", "collections", "*"],
];

/// Single names that reach past the seam, wherever they stand in a path.
const WORDS: [&str; 9] = [
    "glommio",
    "io_uring",
    "libc",
    "tokio",
    "SystemTime",
    "Instant",
    "RandomState",
    "thread_rng",
    "ThreadRng",
];

/// Lints that guard the same border in clippy.toml.
const GUARD_LINTS: [&str; 2] = ["disallowed_methods", "disallowed_types"];

/// Folders whose code runs in the simulator or is it, beside the engine above env.
const DETERMINISTIC: [&str; 4] = [
    "wire/src/",
    "wire/client/src/",
    "tests/src/scenario/",
    "tests/src/sim/",
];

/// What lies in [`DETERMINISTIC`] and may lift the lints: the client's drivers with sockets, the threads that each run
/// worlds of their own, and two places with a lock because a type asks for `Sync`.
const LIFTING: [&str; 5] = [
    "wire/client/src/asynchronous/",
    "wire/client/src/blocking/",
    "tests/src/scenario/campaign.rs",
    "tests/src/scenario/node.rs",
    "tests/src/sim/wake.rs",
];

/// Roots of [`DETERMINISTIC`] in a crate that lifts the lints as a whole.
const DENYING: [&str; 2] = ["tests/src/scenario/mod.rs", "tests/src/sim/mod.rs"];

/// All rules of this module.
pub fn check(source: &Source) -> Vec<Violation> {
    let core = source.path.starts_with("engine/core/src/");
    let above_env = is_above_env(&source.path);
    let guarded = above_env || is_deterministic(&source.path);
    if !core && !guarded {
        return Vec::new();
    }
    let tokens = lex(&source.text).tokens;
    let mut found = default_hashers(source, &tokens);
    if above_env {
        found.extend(forbidden_names(source, &tokens));
    }
    if guarded {
        found.extend(lifted_guards(source, &tokens));
    }
    if DENYING.contains(&source.path.as_str()) {
        found.extend(missing_guards(source, &tokens));
    }
    if source.path == "engine/core/src/lib.rs" {
        found.extend(core_without_std(source, &tokens));
    }
    found
}

/// True for the engine's files that may reach the outside through `env` only.
pub fn is_above_env(path: &str) -> bool {
    path.strip_prefix("engine/src/").is_some_and(|rest| {
        rest != "main.rs"
            && !["env/", "process/", "bin/"]
                .iter()
                .any(|folder| rest.starts_with(folder))
    })
}

/// True for other files where the lints hold that guard the border.
fn is_deterministic(path: &str) -> bool {
    let lies_in = |folders: &[&str]| folders.iter().any(|folder| path.starts_with(folder));
    lies_in(&DETERMINISTIC) && !lies_in(&LIFTING)
}

/// Rule `forbidden-name`.
fn forbidden_names(source: &Source, tokens: &[Spot]) -> Vec<Violation> {
    let mut found = Vec::new();
    for path in paths(tokens) {
        let forbidden = PATHS.iter().any(|prefix| path.starts_with(prefix)) || names_forbidden_word(&path);
        if forbidden {
            let message = format!(
                "`{}` above env: go through env's traits, or a map in fixed order",
                path.joined()
            );
            found.push(Violation::new(&source.path, path.line, "forbidden-name", message));
        }
    }
    found
}

fn names_forbidden_word(path: &PathUse) -> bool {
    path.segments
        .iter()
        .any(|segment| WORDS.contains(&segment.as_str()))
}

/// Rule `default-hasher`: hashbrown's maps iterate in an order that differs from run to run unless their
/// hasher is fixed, so its type must be written out.
fn default_hashers(source: &Source, tokens: &[Spot]) -> Vec<Violation> {
    let mut found = Vec::new();
    for (at, spot) in tokens.iter().enumerate() {
        let wanted = match spot.word() {
            Some("HashMap") => 3,
            Some("HashSet") => 2,
            _ => continue,
        };
        let after = at + 1;
        let generics = after + usize::from(tokens.get(after).is_some_and(|next| !next.is_punct('<')));
        let written = tokens.get(generics).is_some_and(|next| next.is_punct('<'));
        let constructor = tokens.get(after + 1).and_then(Spot::word).unwrap_or_default();
        let random = if written && (generics == after || tokens[after].word().is_none()) {
            generic_arguments(&tokens[generics..]) < wanted
        } else {
            matches!(constructor, "new" | "with_capacity")
        };
        if random {
            let name = spot.word().unwrap_or_default();
            let message = format!("`{name}` without a fixed hasher type: its order is random");
            found.push(Violation::new(&source.path, spot.line, "default-hasher", message));
        }
    }
    found
}

/// Number of arguments in the `<...>` that `tokens` begins with.
fn generic_arguments(tokens: &[Spot]) -> usize {
    let (mut depth, mut arguments, mut empty) = (0_usize, 0_usize, true);
    for (index, spot) in tokens.iter().enumerate() {
        let arrow = index > 0 && tokens[index - 1].is_punct('-');
        if spot.is_punct('<') || spot.is_punct('(') || spot.is_punct('[') {
            depth += 1;
        } else if (spot.is_punct('>') && !arrow) || spot.is_punct(')') || spot.is_punct(']') {
            depth -= 1;
            if depth == 0 {
                break;
            }
        } else if depth == 1 && spot.is_punct(',') {
            arguments += usize::from(!empty);
            empty = true;
            continue;
        }
        empty = empty && index == 0;
    }
    arguments + usize::from(!empty)
}

/// Rule `guard-lifted`: nobody switches off the lints that guard the seam where they are needed.
fn lifted_guards(source: &Source, tokens: &[Spot]) -> Vec<Violation> {
    let lifted = attributes(tokens)
        .into_iter()
        .filter(|attribute| attribute.lifts_a_lint() && GUARD_LINTS.iter().any(|lint| attribute.names(lint)));
    let message = "the lints that guard the seam may be lifted only where names.rs says so: this code runs in the \
                   simulator, or is it";
    lifted
        .map(|attribute| Violation::new(&source.path, attribute.line, "guard-lifted", message))
        .collect()
}

/// Rule `guard-missing`: the simulator denies the lints, which its crate lifts.
fn missing_guards(source: &Source, tokens: &[Spot]) -> Vec<Violation> {
    let attributes = attributes(tokens);
    let denies = |lint: &str| {
        attributes.iter().any(|attribute| {
            let denies = attribute
                .tokens
                .first()
                .is_some_and(|first| first.is_word("deny"));
            attribute.inner && denies && attribute.names(lint)
        })
    };
    let missing = GUARD_LINTS.into_iter().filter(|lint| !denies(lint));
    missing
        .map(|lint| {
            let message = format!("`#![deny(clippy::{lint})]` is missing: the crate lifts it as a whole");
            Violation::new(&source.path, 1, "guard-missing", message)
        })
        .collect()
}

/// Rule `core-no-std`: the protocol core is `no_std` outside its tests.
fn core_without_std(source: &Source, tokens: &[Spot]) -> Option<Violation> {
    let no_std = attributes(tokens).iter().any(|attribute| {
        let words: Vec<_> = attribute.tokens.iter().filter_map(Spot::word).collect();
        attribute.inner && (words == ["no_std"] || words == ["cfg_attr", "not", "test", "no_std"])
    });
    let links_std = tokens.windows(3).enumerate().any(|(at, spots)| {
        let test_only = || {
            attributes(&tokens[..at]).last().is_some_and(|last| {
                let words: Vec<_> = last.tokens.iter().filter_map(Spot::word).collect();
                last.end == at && words == ["cfg", "test"]
            })
        };
        spots[0].is_word("extern") && spots[1].is_word("crate") && spots[2].is_word("std") && !test_only()
    });
    let message = "ostrakon-core must be `#![no_std]`, and may link std under `#[cfg(test)]` only";
    (!no_std || links_std).then(|| Violation::new(&source.path, 1, "core-no-std", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(path: &str, text: &str) -> Vec<&'static str> {
        check(&Source::new(path, text))
            .iter()
            .map(|violation| violation.rule)
            .collect()
    }

    #[test]
    fn names_that_reach_past_the_seam_are_found() {
        for text in [
            "use std::time::Duration;",
            "use std::{fs, io};",
            "use std::net::SocketAddr;",
            "fn f() { std::thread::sleep(d) }",
            "use std::os::fd::RawFd;",
            "use glommio::LocalExecutor;",
            "use io_uring::IoUring;",
            "fn f() { libc::getpid() }",
            "fn f(now: Instant) {}",
            "fn f(now: SystemTime) {}",
            "use std::collections::{BTreeMap, HashMap};",
            "use std::collections::*;",
            "use std::hash::RandomState;",
            "fn f() { rand::thread_rng() }",
            "use std::sync::Mutex;",
            "#[cfg(test)] mod tests { use std::fs::File; }",
        ] {
            assert_eq!(rules("engine/src/log/x.rs", text), ["forbidden-name"], "{text}");
            assert!(rules("engine/src/env/glommio/x.rs", text).is_empty(), "{text}");
            assert!(rules("engine/src/process/x.rs", text).is_empty(), "{text}");
            assert!(rules("loadgen/src/x.rs", text).is_empty(), "{text}");
        }
    }

    #[test]
    fn what_stays_inside_the_seam_passes() {
        let text =
            "//! Unlike glommio.\nuse core::time::Duration;\nuse std::{io, path::Path, rc::Rc};\nx.thread();";
        assert!(rules("engine/src/log/x.rs", text).is_empty());
    }

    #[test]
    fn maps_with_a_random_order_are_found() {
        for text in [
            "type A = HashMap<u8, Vec<(u8, u8)>>;",
            "fn f() { HashMap::new() }",
            "fn f() { HashMap::<u8, u8>::default() }",
            "fn f() { HashSet::with_capacity(1) }",
            "struct A { a: HashSet<fn(u8) -> u8> }",
        ] {
            assert_eq!(rules("engine/core/src/x.rs", text), ["default-hasher"], "{text}");
        }
        let fixed =
            "use hashbrown::HashMap; type A<V> = HashMap<u8, V, Fixed>; fn f() { HashMap::with_hasher(h) }";
        assert!(rules("engine/core/src/x.rs", fixed).is_empty());
        assert!(rules("engine/core/src/x.rs", "type A = HashSet<(u8, u8), Fixed<u8>>;").is_empty());
    }

    #[test]
    fn lifting_the_guards_is_found() {
        let text = "#![allow(clippy::disallowed_methods, reason = \"why\")]";
        assert_eq!(rules("engine/src/shard/x.rs", text), ["guard-lifted"]);
        assert_eq!(rules("engine/src/lib.rs", text), ["guard-lifted"]);
        assert!(rules("engine/src/process/mod.rs", text).is_empty());
        for path in [
            "wire/src/frame.rs",
            "wire/client/src/protocol/mod.rs",
            "tests/src/scenario/run.rs",
            "tests/src/sim/disk/mod.rs",
        ] {
            assert_eq!(rules(path, text), ["guard-lifted"], "{path}");
        }
        for path in [
            "wire/client/src/blocking/mod.rs",
            "tests/src/scenario/campaign.rs",
            "tests/src/sim/wake.rs",
            "tests/src/lib.rs",
            "loadgen/src/lib.rs",
        ] {
            assert!(rules(path, text).is_empty(), "{path}");
        }
    }

    #[test]
    fn a_simulator_that_does_not_deny_the_lints_is_found() {
        let both = "#![deny(clippy::disallowed_methods, clippy::disallowed_types)]";
        let one = "#![deny(clippy::disallowed_methods)]";
        for path in DENYING {
            assert!(rules(path, both).is_empty(), "{path}");
            assert_eq!(rules(path, one), ["guard-missing"], "{path}");
            assert_eq!(rules(path, ""), ["guard-missing", "guard-missing"], "{path}");
            assert_eq!(rules(path, &format!("// {both}")).len(), 2, "{path}");
        }
        assert!(rules("tests/src/crash/mod.rs", "").is_empty());
    }

    #[test]
    fn a_core_with_std_is_found() {
        let path = "engine/core/src/lib.rs";
        assert_eq!(rules(path, "extern crate alloc;"), ["core-no-std"]);
        assert_eq!(rules(path, "#![no_std]\nextern crate std;"), ["core-no-std"]);
        assert!(rules(path, "#![no_std]\n#[cfg(test)]\nextern crate std;").is_empty());
        assert!(rules(path, "#![cfg_attr(not(test), no_std)]\nextern crate alloc;").is_empty());
    }
}
