//! Tells the binary what it was built from: the git commit and the cargo features, for `ostrakon --version`.
//!
//! Without git (a source archive) the commit is `unknown`, unless the packager names it in the variable
//! `OSTRAKON_COMMIT`. A working tree with changes is marked `+changes`.

#![allow(clippy::disallowed_methods, reason = "a build script runs on the outside")]

use std::path::Path;
use std::process::Command;

/// Length of the abbreviated commit.
const COMMIT_CHARACTERS: &str = "--short=12";

/// What, besides git's own files, makes the marker `+changes` appear or vanish.
const SOURCES: [&str; 5] = ["src", "core/src", "../wire", "Cargo.toml", "../Cargo.lock"];

fn main() {
    println!("cargo::rerun-if-env-changed=OSTRAKON_COMMIT");
    println!("cargo::rustc-env=OSTRAKON_COMMIT={}", commit());
    println!("cargo::rustc-env=OSTRAKON_FEATURES={}", features());
    let git_files = ["HEAD", "logs/HEAD", "index"]
        .iter()
        .filter_map(|name| git(&["rev-parse", "--git-path", name]));
    for path in git_files.chain(SOURCES.map(String::from)) {
        // Cargo runs the script at every build when a named file is missing.
        if Path::new(&path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
}

fn commit() -> String {
    if let Ok(named) = std::env::var("OSTRAKON_COMMIT") {
        return named;
    }
    let Some(commit) = git(&["rev-parse", COMMIT_CHARACTERS, "HEAD"]) else {
        return "unknown".to_owned();
    };
    match git(&["status", "--porcelain", "--untracked-files=no"]) {
        Some(_changes) => format!("{commit}+changes"),
        None => commit,
    }
}

/// The features of this build, sorted, or `none`. Cargo names them in upper case with underscores.
fn features() -> String {
    let mut features: Vec<String> = std::env::vars()
        .filter_map(|(name, _)| {
            Some(
                name.strip_prefix("CARGO_FEATURE_")?
                    .to_lowercase()
                    .replace('_', "-"),
            )
        })
        .filter(|name| name != "default")
        .collect();
    features.sort();
    if features.is_empty() {
        "none".to_owned()
    } else {
        features.join(" ")
    }
}

/// What git printed, trimmed; none if it is not there, fails, or prints nothing.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}
