//! Runs a tool of the system to its end and keeps what it said; never through a shell.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where tools of the system lie that are not always in a user's `PATH`.
const SYSTEM_DIRECTORIES: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// Runs `name` with `arguments` and returns its standard output without white space at its ends.
///
/// # Errors
/// A sentence with the command and what it said, when it can't be run or fails.
pub(super) fn run(name: &str, arguments: &[&OsStr]) -> Result<String, String> {
    let line = || {
        let words = arguments.iter().map(|word| word.to_string_lossy());
        std::iter::once(name.into())
            .chain(words)
            .collect::<Vec<_>>()
            .join(" ")
    };
    let program = find(name).unwrap_or_else(|| name.into());
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("could not run `{}`: {error}", line()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!(
        "`{}` failed ({}): {}",
        line(),
        output.status,
        said.trim()
    ))
}

/// The path of a tool, if it is installed.
pub(super) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain(SYSTEM_DIRECTORIES.iter().map(PathBuf::from));
    directories
        .map(|directory| directory.join(name))
        .find(|candidate| is_program(candidate))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path)
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}
