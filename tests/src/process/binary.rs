//! Finds the built binaries `ostrakon` and `loadgen`, and builds them once when they are not there.
//!
//! In order: the environment variable `OSTRAKON_BINARY` (`LOADGEN_BINARY`); the binary next to the running
//! test or program (`target/PROFILE/`). A test builds both first, so that it never runs an older binary than
//! the sources: cargo does nothing when they are fresh, as they are in `cargo test --workspace`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Names a node's binary to use instead of building one.
pub const VARIABLE: &str = "OSTRAKON_BINARY";
/// Names a load generator's binary to use instead of building one.
pub const LOADGEN_VARIABLE: &str = "LOADGEN_BINARY";

/// The binary for tests: as fresh as the sources, unless the environment names one.
///
/// # Panics
/// With the sentence, when it can't be built.
pub fn for_tests() -> &'static Path {
    static NODE: OnceLock<PathBuf> = OnceLock::new();
    NODE.get_or_init(|| named_or_built(VARIABLE, "ostrakon"))
}

/// The load generator for tests: as fresh as the sources, unless the environment names one.
///
/// # Panics
/// With the sentence, when it can't be built.
pub fn loadgen_for_tests() -> &'static Path {
    static LOADGEN: OnceLock<PathBuf> = OnceLock::new();
    LOADGEN.get_or_init(|| named_or_built(LOADGEN_VARIABLE, "loadgen"))
}

fn named_or_built(variable: &str, name: &str) -> PathBuf {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let path = match std::env::var_os(variable) {
        Some(path) => named(variable, Path::new(&path)),
        None => BUILT
            .get_or_init(build)
            .clone()
            .map(|directory| directory.join(name)),
    };
    path.unwrap_or_else(|sentence| panic!("{sentence}"))
}

/// The binary `name` next to the running program, for programs of this crate.
///
/// # Errors
/// A sentence that says how to come by one.
pub fn next_to_this_program(name: &str) -> Result<PathBuf, String> {
    let path = profile_directory()?.join(name);
    if path.is_file() {
        return Ok(path);
    }
    let path = path.display();
    Err(format!(
        "there is no {path}; build it with `cargo build -p {name}`, or name another binary"
    ))
}

fn named(variable: &str, path: &Path) -> Result<PathBuf, String> {
    if path.is_file() {
        return std::path::absolute(path).map_err(|error| format!("{}: {error}", path.display()));
    }
    Err(format!("{variable} names {}, which is no file", path.display()))
}

/// `target/PROFILE`, where the running program or the tests' `deps` directory lies.
fn profile_directory() -> Result<PathBuf, String> {
    let program = std::env::current_exe().map_err(|error| format!("this program has no path: {error}"))?;
    let directory = program.parent().ok_or("this program lies in no directory")?;
    Ok(if directory.file_name().is_some_and(|name| name == "deps") {
        directory.parent().unwrap_or(directory).to_owned()
    } else {
        directory.to_owned()
    })
}

/// Builds both binaries, and returns their directory.
fn build() -> Result<PathBuf, String> {
    let profile_directory = profile_directory()?;
    // Cargo calls the directory of the profiles `dev` and `test` `debug`.
    let profile = match profile_directory.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    let target = profile_directory
        .parent()
        .ok_or("the build directory has no parent")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--locked", "--quiet", "--workspace"])
        .args(["--bin", "ostrakon", "--bin", "loadgen"])
        // With a test among what is wanted, the dependencies of tests count: their features are those of
        // `cargo test --workspace`, and what that has built is fresh.
        .args(["--test", "cli_basics", "--profile", profile])
        .arg("--target-dir")
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .map_err(|error| format!("could not run cargo to build the binaries: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("the binaries do not build ({}):\n{said}", output.status));
    }
    Ok(profile_directory)
}
