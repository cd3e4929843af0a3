//! Rules on the arrows between the engine's layers: they only ever point down.
//!
//! From the top: `main.rs`, `process`, `server`, `cluster`, `shard`, then side by side `replication`, `storage`
//! and `log`, then `env`, then `limits`. A file names `crate::<layer>` of its own layer or of a lower one.
//! `lib.rs` declares the layers and re-exports nothing but items of the top one, which no file names by `crate::`, else
//! a name could travel around an arrow.

use super::lexer::lex;
use super::paths::{PathUse, paths};
use super::{Source, Violation};

/// The layer whose items `lib.rs` may re-export: nothing lies above it, and lower layers may not name what it has.
const TOP: &str = "process";

/// Layers with their heights; equal heights do not see each other.
const LAYERS: [(&str, u32); 9] = [
    (TOP, 7),
    ("server", 6),
    ("cluster", 5),
    ("shard", 4),
    ("replication", 3),
    ("storage", 3),
    ("log", 3),
    ("env", 2),
    ("limits", 1),
];

/// Rules `layer` (an arrow that points up or sideways, or a file outside all layers) and `layer-re-export`.
pub fn check(source: &Source) -> Vec<Violation> {
    let Some(inside) = source.path.strip_prefix("engine/src/") else {
        return Vec::new();
    };
    let module = module_path(inside);
    let all = paths(&lex(&source.text).tokens);
    let Some(&layer) = module.first().filter(|&&first| first != "bin") else {
        return if inside == "lib.rs" {
            re_exports(source, &all)
        } else {
            Vec::new()
        };
    };
    let Some(own) = height(layer) else {
        let message =
            format!("`{layer}` is no layer: move the file into one, or extend the table in layers.rs");
        return vec![Violation::new(&source.path, 0, "layer", message)];
    };
    arrows(source, layer, own, module.len(), &all)
}

fn height(layer: &str) -> Option<u32> {
    LAYERS
        .iter()
        .find(|(name, _)| *name == layer)
        .map(|&(_, height)| height)
}

/// Module path of a file below `src`: `shard/mesh.rs` is `[shard, mesh]`, `lib.rs` and `main.rs` are `[]`.
fn module_path(inside: &str) -> Vec<&str> {
    let mut parts: Vec<_> = inside.trim_end_matches(".rs").split('/').collect();
    if matches!(parts.as_slice(), [.., "mod"] | ["lib" | "main"]) {
        parts.pop();
    }
    parts
}

fn arrows(source: &Source, layer: &str, own: u32, depth: usize, all: &[PathUse]) -> Vec<Violation> {
    let mut found = Vec::new();
    for path in all {
        let Some(target) = target_from_root(path, depth) else {
            continue;
        };
        let up = target != layer && height(target).is_none_or(|height| height >= own);
        if up || target == "*" {
            let message = format!("`{layer}` names `{}`; arrows point down only", path.joined());
            found.push(Violation::new(&source.path, path.line, "layer", message));
        }
    }
    found
}

/// The crate-level name that a path reaches by `crate::` or by enough `super::`, if it does.
fn target_from_root(path: &PathUse, depth: usize) -> Option<&str> {
    let segments: Vec<_> = path.segments.iter().map(String::as_str).collect();
    let rest = match segments.as_slice() {
        ["crate", rest @ ..] => rest,
        ["self", rest @ ..] | rest => above(rest, depth + path.inline_depth)?,
    };
    rest.first().copied()
}

fn above<'a, 'b>(segments: &'a [&'b str], depth: usize) -> Option<&'a [&'b str]> {
    let supers = segments.iter().take_while(|&&segment| segment == "super").count();
    (supers > 0 && supers == depth).then(|| &segments[supers..])
}

fn re_exports(source: &Source, all: &[PathUse]) -> Vec<Violation> {
    let mut found = Vec::new();
    for path in all.iter().filter(|path| path.segments.len() > 1) {
        let first = path
            .segments
            .iter()
            .find(|segment| !matches!(segment.as_str(), "crate" | "self"));
        if first.is_some_and(|first| height(first).is_some() && first != TOP) {
            let message = format!(
                "lib.rs names `{}`: it declares layers and re-exports nothing",
                path.joined()
            );
            found.push(Violation::new(
                &source.path,
                path.line,
                "layer-re-export",
                message,
            ));
        }
    }
    found
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
    fn arrows_up_and_sideways_are_found() {
        for (path, text) in [
            ("engine/src/env/disk.rs", "use crate::log::Segment;"),
            ("engine/src/log/mod.rs", "use crate::{env::Disk, shard::Shard};"),
            ("engine/src/log/mod.rs", "fn f() { crate::storage::memtable() }"),
            ("engine/src/storage/mod.rs", "use super::log;"),
            (
                "engine/src/log/write/mod.rs",
                "use super::super::server::Session;",
            ),
            (
                "engine/src/shard/mesh.rs",
                "mod tests { use super::super::super::server::Session; }",
            ),
            ("engine/src/limits.rs", "use crate::env::Disk;"),
            ("engine/src/server/mod.rs", "use crate::process::doctor;"),
            ("engine/src/server/mod.rs", "use crate::*;"),
        ] {
            assert_eq!(rules(path, text), ["layer"], "{path}: {text}");
        }
    }

    #[test]
    fn arrows_down_pass() {
        for (path, text) in [
            (
                "engine/src/process/mod.rs",
                "use crate::{env, log, server::Server, limits};",
            ),
            (
                "engine/src/server/mod.rs",
                "use crate::cluster::Map; use crate::log::Log;",
            ),
            (
                "engine/src/log/write.rs",
                "use super::read; use crate::env::Disk; use crate::limits::MAX;",
            ),
            (
                "engine/src/shard/mesh.rs",
                "mod tests { use super::super::Shard; }",
            ),
            ("engine/src/main.rs", "use ostrakon::process;"),
            ("loadgen/src/x.rs", "use crate::server::X;"),
        ] {
            assert!(rules(path, text).is_empty(), "{path}: {text}");
        }
    }

    #[test]
    fn files_outside_all_layers_are_found() {
        assert_eq!(rules("engine/src/misc.rs", ""), ["layer"]);
        assert_eq!(rules("engine/src/util/mod.rs", ""), ["layer"]);
    }

    #[test]
    fn re_exports_in_the_root_are_found() {
        assert_eq!(
            rules("engine/src/lib.rs", "pub mod log; pub use log::Log;"),
            ["layer-re-export"]
        );
        assert_eq!(
            rules("engine/src/lib.rs", "pub use crate::shard::Shard;"),
            ["layer-re-export"]
        );
        assert!(rules("engine/src/lib.rs", "pub mod env; pub mod log; mod limits;").is_empty());
    }
}
