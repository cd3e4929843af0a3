//! Processes that a benchmark starts, and never leaves behind.
//!
//! A child gets a process group of its own, so that Ctrl-C reaches only the benchmark, which then stops it
//! in order; and the kernel kills it if the benchmark dies without doing so.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use crate::machine;

/// Pause between two looks at something that has no way to wake us.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A running child, stopped when this is dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    /// Signal that asks it to end.
    stop_signal: libc::c_int,
    /// How long it may take to obey, before it is killed.
    stop_within: Duration,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts a child.
    ///
    /// # Errors
    /// A sentence, if there is no such program.
    pub fn start(name: &str, command: &mut Command, stop_signal: libc::c_int) -> Result<Self, String> {
        die_with_parent(command);
        let child = command.spawn().map_err(|error| {
            format!(
                "cannot start {name} ({}): {error}",
                command.get_program().to_string_lossy()
            )
        })?;
        Ok(Self {
            name: name.to_owned(),
            child,
            stop_signal,
            stop_within: Duration::from_secs(20),
            status: None,
        })
    }

    /// Grants more time to end after the stop signal.
    pub fn stop_within(&mut self, time: Duration) {
        self.stop_within = time;
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The child, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Has it ended?
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().ok().flatten();
        }
        self.status
    }

    /// Asks it to end and waits until it has; kills it if that takes too long.
    ///
    /// # Errors
    /// A sentence, if it had to be killed.
    pub fn stop(&mut self) -> Result<ExitStatus, String> {
        if let Some(status) = self.ended() {
            return Ok(status);
        }
        // SAFETY: a plain system call; the process is our child and not yet waited for, so the id is still
        // its own.
        unsafe { libc::kill(self.child.id() as libc::pid_t, self.stop_signal) };
        let deadline = Instant::now() + self.stop_within;
        while Instant::now() < deadline {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        self.kill();
        let seconds = self.stop_within.as_secs();
        Err(format!(
            "{} did not end within {seconds} s of being asked to, and was killed",
            self.name
        ))
    }

    /// Ends it at once, and waits until it has ended.
    pub fn kill(&mut self) {
        if self.ended().is_none() {
            let killed = self.child.kill().and_then(|()| self.child.wait());
            self.status = killed.ok();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(sentence) = self.stop() {
            eprintln!("ostrakon-bench: {sentence}");
        }
    }
}

/// Runs a short command to its end and returns what it printed.
///
/// # Errors
/// A sentence with what it said on stderr, if it fails or is not there.
pub fn output_of(command: &mut Command) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    die_with_parent(command);
    let output = command
        .output()
        .map_err(|error| format!("cannot run {program}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program} failed ({}): {}", output.status, said.trim()))
}

/// Looks again and again until there is something.
///
/// # Errors
/// What `look` says, a signal, or a sentence when the time is over.
pub fn wait_for<T>(
    what: &str,
    within: Duration,
    mut look: impl FnMut() -> Result<Option<T>, String>,
) -> Result<T, String> {
    let deadline = Instant::now() + within;
    loop {
        machine::check_signals()?;
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            return Err(format!("waited {} s in vain for {what}", within.as_secs()));
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

fn die_with_parent(command: &mut Command) {
    command.process_group(0);
    // SAFETY: between fork and exec this makes one system call, which is allowed there.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
}

/// Pins a command, and with it all threads that it will start, to one CPU.
pub fn pin_command(command: &mut Command, cpu: usize) {
    // SAFETY: between fork and exec this makes one system call and, if that fails, returns the error
    // number; nothing is allocated on the way that succeeds.
    unsafe {
        command.pre_exec(move || machine::pin_thread(cpu).map_err(|_| std::io::Error::last_os_error()));
    }
}

/// Lets a command join the control group with this file of processes before it runs.
///
/// # Errors
/// A sentence, if this can't be the name of a file.
pub fn join_group(command: &mut Command, processes: &Path) -> Result<(), String> {
    let path = CString::new(processes.as_os_str().as_bytes())
        .map_err(|_| format!("{} holds a zero byte", processes.display()))?;
    // SAFETY: between fork and exec this makes three system calls on a string that was made before; nothing is
    // allocated on the way that succeeds.
    unsafe {
        command.pre_exec(move || {
            let file = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
            // 0 stands for whoever writes it.
            if file < 0 || libc::write(file, c"0".as_ptr().cast(), 1) != 1 {
                return Err(std::io::Error::last_os_error());
            }
            libc::close(file);
            Ok(())
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_joins_by_writing_itself() {
        let file = std::env::current_dir()
            .unwrap()
            .join(format!("group-test-{}", std::process::id()));
        std::fs::write(&file, "").unwrap();
        let mut command = Command::new("true");
        join_group(&mut command, &file).unwrap();
        assert!(command.status().unwrap().success());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "0");
        std::fs::remove_file(&file).unwrap();
        join_group(&mut command, &file).unwrap();
        assert!(command.status().is_err());
    }

    #[test]
    fn a_child_is_stopped_and_reaped() {
        let mut sleeper = Process::start("sleep", Command::new("sleep").arg("600"), libc::SIGTERM).unwrap();
        assert!(sleeper.ended().is_none());
        assert!(!sleeper.stop().unwrap().success());
        assert!(sleeper.ended().is_some());
    }

    #[test]
    fn a_deaf_child_is_killed() {
        let mut command = Command::new("sleep");
        command.arg("600");
        // Signal 0 asks nothing of anybody.
        let mut deaf = Process::start("sleep", &mut command, 0).unwrap();
        deaf.stop_within(Duration::from_millis(30));
        assert!(deaf.stop().unwrap_err().contains("was killed"));
        assert!(deaf.ended().is_some());
    }

    #[test]
    fn what_is_not_there_is_told() {
        let error = output_of(&mut Command::new("/no/such/program")).unwrap_err();
        assert!(error.contains("/no/such/program"), "{error}");
        let error = output_of(Command::new("ls").arg("/no/such/file")).unwrap_err();
        assert!(error.contains("No such file"), "{error}");
    }
}
