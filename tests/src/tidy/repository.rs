//! Reads the repository: its texts from the disk, its crates from `cargo metadata`.
//!
//! The only part of tidy that touches the disk or starts a process. It never uses the network for tidy itself;
//! [`linked_packages`] does so only when cargo has not downloaded a manifest yet.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::Source;

/// Endings of the files that tidy reads.
const EXTENSIONS: [&str; 9] = ["rs", "md", "toml", "txt", "sh", "fbs", "yml", "supp", "py"];
/// Files without such an ending that tidy reads too.
const NAMES: [&str; 4] = ["run", "LICENSE", ".gitignore", ".gitattributes"];

/// The repository's root: the folder above this crate's.
pub fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().map_or_else(|| own.to_path_buf(), Path::to_path_buf)
}

/// All texts below `root`, in order of their paths, without what `.gitignore` names at the root.
///
/// # Errors
/// A file or folder that cannot be read, with its path.
pub fn sources(root: &Path) -> io::Result<Vec<Source>> {
    let ignored = fs::read_to_string(root.join(".gitignore")).unwrap_or_default();
    let skipped: Vec<&str> = ignored
        .lines()
        .filter_map(|line| line.strip_prefix('/'))
        .map(|name| name.trim_end_matches('/'))
        .collect();
    let mut found = Vec::new();
    let mut waiting = vec![String::new()];
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(root.join(&folder))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = if folder.is_empty() {
                name.clone()
            } else {
                format!("{folder}/{name}")
            };
            if name == ".git" || skipped.contains(&path.as_str()) {
                continue;
            }
            if entry.file_type()?.is_dir() {
                waiting.push(path);
            } else if is_read(&name) {
                let text = fs::read_to_string(entry.path())
                    .map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))?;
                found.push(Source { path, text });
            }
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(found)
}

fn is_read(name: &str) -> bool {
    NAMES.contains(&name)
        || name
            .rsplit_once('.')
            .is_some_and(|(_, extension)| EXTENSIONS.contains(&extension))
}

/// The workspace's own packages, without their dependencies and without the network.
///
/// # Errors
/// What cargo said, when it failed.
pub fn own_packages(root: &Path) -> Result<Value, String> {
    metadata(root, &["--no-deps", "--offline"])
}

/// All packages that a Linux build of the workspace uses, tests and benchmarks included, as `Cargo.lock` has
/// them. Asks the network only when some manifest was never downloaded.
///
/// # Errors
/// What cargo said, when it failed both without and with the network.
pub fn linked_packages(root: &Path) -> Result<Value, String> {
    let platform = "--filter-platform=x86_64-unknown-linux-gnu";
    metadata(root, &["--locked", "--offline", platform]).or_else(|offline| {
        metadata(root, &["--locked", platform]).map_err(|online| {
            format!("offline: {offline}\nonline: {online}\nrun `cargo fetch --locked` once")
        })
    })
}

fn metadata(root: &Path, arguments: &[&str]) -> Result<Value, String> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1"])
        .args(arguments)
        .current_dir(root)
        .output()
        .map_err(|error| format!("cannot start {}: {error}", env!("CARGO")))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    serde_json::from_slice(&output.stdout).map_err(|error| format!("cargo metadata is not JSON: {error}"))
}
