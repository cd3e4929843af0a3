//! Counts the system calls of a running process with strace, from attaching to detaching.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::process::{self, Process};
use crate::workspace::Workspace;

/// How long strace may take to attach.
const ATTACH_WITHIN: Duration = Duration::from_secs(20);

/// How often each system call was made, by name.
pub type Calls = BTreeMap<String, u64>;

/// A strace that counts.
#[derive(Debug)]
pub struct Strace {
    process: Process,
    summary: PathBuf,
}

impl Strace {
    /// Attaches to all threads of a process.
    ///
    /// # Errors
    /// A sentence, if strace is not there or may not attach.
    pub fn attach(pid: u32, workspace: &Workspace) -> Result<Self, String> {
        let (summary, said) = (workspace.join("strace.summary"), workspace.join("strace.stderr"));
        let said_file =
            File::create(&said).map_err(|error| format!("cannot make {}: {error}", said.display()))?;
        let mut command = Command::new("strace");
        command
            .args(["-c", "-f", "-p", &pid.to_string(), "-o"])
            .arg(&summary);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said_file);
        let mut process = Process::start("strace", &mut command, libc::SIGINT)?;
        process::wait_for("strace to attach", ATTACH_WITHIN, || {
            let text = std::fs::read_to_string(&said).unwrap_or_default();
            match process.ended() {
                Some(status) => Err(format!("strace ended ({status}): {}", text.trim())),
                None => Ok(text.contains("attached").then_some(())),
            }
        })?;
        Ok(Self { process, summary })
    }

    /// Detaches and returns the counts.
    ///
    /// # Errors
    /// A sentence, if strace does not end or its summary is in no form that we know.
    pub fn detach(mut self) -> Result<Calls, String> {
        self.process.stop()?;
        let text = std::fs::read_to_string(&self.summary)
            .map_err(|error| format!("cannot read strace's summary: {error}"))?;
        parse(&text)
    }
}

/// Reads the table that `strace -c` writes. A row has share, seconds, time per call, calls, errors if there
/// were any, name.
fn parse(text: &str) -> Result<Calls, String> {
    let mut calls = Calls::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let is_row = words.first().is_some_and(|word| word.parse::<f64>().is_ok());
        let (Some(&count), Some(&name)) = (words.get(3), words.last()) else {
            continue;
        };
        if !is_row || name == "total" {
            continue;
        }
        let count: u64 = count
            .parse()
            .map_err(|_| format!("no row of strace's summary: {line}"))?;
        *calls.entry(name.to_owned()).or_default() += count;
    }
    if calls.is_empty() {
        return Err(format!("strace has counted nothing; it wrote: {text}"));
    }
    Ok(calls)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUMMARY: &str = "\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 71.30    0.012345          12      1000           io_uring_enter
 28.70    0.004968           2      2001         7 recvfrom
------ ----------- ----------- --------- --------- ----------------
100.00    0.017313           5      3001         7 total
";

    #[test]
    fn a_summary_is_read() {
        let calls = parse(SUMMARY).unwrap();
        assert_eq!(calls.len(), 2);
        assert_eq!((calls["io_uring_enter"], calls["recvfrom"]), (1000, 2001));
    }

    #[test]
    fn an_empty_summary_is_an_error() {
        assert!(parse("").is_err());
        assert!(parse("strace: attach: ptrace(PTRACE_SEIZE, 1): Operation not permitted").is_err());
    }
}
