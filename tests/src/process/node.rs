//! A node as a process of its own: `ostrakon serve`, waited for until its greeting, stopped by a signal.
//!
//! The port is chosen by the system and read from the greeting, so nodes never race for one. Dropping a
//! [`Node`] kills it.

use std::ffi::OsString;
use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ostrakon_client::{Client, Error, Options};

/// A node that has not greeted after this long hangs. Replaying several GiB of log takes less.
const START_TIMEOUT: Duration = Duration::from_mins(2);
/// A node that was asked to end and has not after this long hangs.
const END_TIMEOUT: Duration = Duration::from_mins(2);
/// Last line of the greeting, as it begins.
const GREETING_END: &str = "Ctrl-C";

/// How to start a node.
#[derive(Clone, Debug)]
pub struct NodeCommand {
    /// The binary `ostrakon`.
    pub binary: PathBuf,
    /// `--data`.
    pub data: PathBuf,
    /// `--cores`.
    pub cores: u16,
    /// `--shards`, if given.
    pub shards: Option<u32>,
    /// Further arguments of `serve`.
    pub arguments: Vec<OsString>,
}

/// What a node said when it was ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// Where clients connect.
    pub address: String,
    /// Where metrics and health are told, if they are.
    pub http: Option<String>,
    /// Cluster id, 32 hexadecimal digits.
    pub cluster: String,
    /// Entries that were replayed from the logs.
    pub recovered_entries: u64,
    /// The node's own measure of its start, in milliseconds.
    pub recovery_ms: u64,
}

/// A node that runs.
#[derive(Debug)]
pub struct Node {
    child: Child,
    stderr: Output,
    greeting: Greeting,
    start_ms: f64,
    /// Kept open, so that the node could print more.
    _stdout: BufReader<ChildStdout>,
}

/// How a node ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Exit code or signal.
    pub status: ExitStatus,
    /// All that it wrote on standard error.
    pub stderr: String,
}

/// A node that ended, or hung, before it was ready.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Exit code or signal; `None`: it could not be started, or it hung and was killed.
    pub status: Option<ExitStatus>,
    /// What it wrote on standard error, or why it could not be started.
    pub stderr: String,
}

/// What became of a start that was to be cut short.
#[derive(Clone, Debug)]
pub enum CutStart {
    /// Killed before it was ready.
    Cut,
    /// Ready before that, then killed.
    Ready,
    /// It ended by itself.
    Ended(Refusal),
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            Some(status) => write!(
                formatter,
                "the node did not start ({status}): {}",
                self.stderr.trim()
            ),
            None => write!(formatter, "the node did not start: {}", self.stderr.trim()),
        }
    }
}

impl NodeCommand {
    /// A node of the binary under test.
    pub fn new(binary: &Path, data: &Path, cores: u16) -> NodeCommand {
        NodeCommand {
            binary: binary.to_owned(),
            data: data.to_owned(),
            cores,
            shards: None,
            arguments: Vec::new(),
        }
    }

    /// The same with this many shards.
    #[must_use]
    pub fn shards(mut self, shards: u32) -> NodeCommand {
        self.shards = Some(shards);
        self
    }

    /// The same with another number of cores.
    #[must_use]
    pub fn cores(mut self, cores: u16) -> NodeCommand {
        self.cores = cores;
        self
    }

    /// The same with one more argument.
    #[must_use]
    pub fn argument(mut self, argument: impl Into<OsString>) -> NodeCommand {
        self.arguments.push(argument.into());
        self
    }

    /// Starts the node and waits until it is ready.
    ///
    /// # Errors
    /// When it ends before that, or hangs.
    pub fn start(&self) -> Result<Node, Refusal> {
        let started = Instant::now();
        let mut child = self.command().spawn().map_err(|error| Refusal {
            status: None,
            stderr: format!("could not run {}: {error}", self.binary.display()),
        })?;
        let stdout = child.stdout.take().expect("standard output is a pipe");
        let mut stderr = Output::collect(child.stderr.take().expect("standard error is a pipe"));
        let (sender, greeted) = mpsc::channel();
        let reader = std::thread::spawn(move || {
            let mut stdout = BufReader::new(stdout);
            // The receiver only goes away after the timeout.
            let _late = sender.send(read_greeting(&mut stdout).map(|greeting| (greeting, started.elapsed())));
            stdout
        });
        match greeted.recv_timeout(START_TIMEOUT) {
            Ok(Some((greeting, elapsed))) => Ok(Node {
                child,
                stderr,
                greeting,
                start_ms: elapsed.as_secs_f64() * 1000.0,
                _stdout: reader.join().expect("the reader has sent its result"),
            }),
            Ok(None) => {
                let status = child.wait().ok();
                Err(Refusal {
                    status,
                    stderr: stderr.all(),
                })
            }
            Err(_) => {
                let _ended = child.kill().and_then(|()| child.wait());
                let stderr = format!("not ready after {START_TIMEOUT:?}, killed\n{}", stderr.all());
                Err(Refusal { status: None, stderr })
            }
        }
    }

    /// Starts a node that has to refuse.
    ///
    /// # Panics
    /// If it starts.
    pub fn refusal(&self) -> Refusal {
        match self.start() {
            Ok(node) => panic!("the node started and said {:?}", node.greeting()),
            Err(refusal) => refusal,
        }
    }

    /// Starts the node and kills it when it is ready, or `after` that time if it is not. `power_off` is called
    /// before it is killed.
    ///
    /// # Errors
    /// When it can't be started or killed, or when `power_off` fails.
    pub fn start_and_kill(
        &self,
        after: Duration,
        power_off: impl FnOnce() -> Result<(), String>,
    ) -> Result<CutStart, String> {
        let mut child = self
            .command()
            .spawn()
            .map_err(|error| format!("could not run {}: {error}", self.binary.display()))?;
        let stdout = child.stdout.take().expect("standard output is a pipe");
        let mut stderr = Output::collect(child.stderr.take().expect("standard error is a pipe"));
        let (sender, greeted) = mpsc::channel();
        let reader = std::thread::spawn(move || {
            // The receiver goes away when the time is over.
            let _late = sender.send(read_greeting(&mut BufReader::new(stdout)).is_some());
        });
        let greeted = greeted.recv_timeout(after);
        let powered_off = power_off();
        let ended = child.kill().and_then(|()| child.wait());
        reader.join().expect("reading does not panic");
        powered_off?;
        let status = ended.map_err(|error| format!("the node could not be killed: {error}"))?;
        Ok(match greeted {
            Ok(true) => CutStart::Ready,
            Ok(false) => CutStart::Ended(Refusal {
                status: Some(status),
                stderr: stderr.all(),
            }),
            Err(_) => CutStart::Cut,
        })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--cores",
                &self.cores.to_string(),
            ])
            .arg("--data")
            .arg(&self.data)
            .args(
                self.shards
                    .iter()
                    .flat_map(|shards| ["--shards".to_owned(), shards.to_string()]),
            )
            .args(&self.arguments)
            .env_remove("RUST_LOG")
            // Tests run side by side, and the default address is one. A test that wants HTTP gives the flag.
            .env("OSTRAKON_HTTP", "off")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
}

impl Node {
    /// What it said when it was ready.
    pub fn greeting(&self) -> &Greeting {
        &self.greeting
    }

    /// Where clients connect.
    pub fn address(&self) -> &str {
        &self.greeting.address
    }

    /// From the start of the process until the end of the greeting, in milliseconds.
    pub fn start_ms(&self) -> f64 {
        self.start_ms
    }

    /// The process.
    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// What it has written on standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.so_far()
    }

    /// A client of this node that sends nothing twice.
    ///
    /// # Errors
    /// As of [`Client::connect`].
    pub fn client(&self, core: Option<u16>) -> Result<Client, Error> {
        Client::connect(
            self.address(),
            Options {
                core,
                // What the node answers is what a test sees.
                retry: false,
                ..Options::default()
            },
        )
    }

    /// SIGKILL, and waits for the end.
    ///
    /// # Panics
    /// If the process can't be killed or waited for.
    pub fn kill(mut self) -> Ended {
        self.child.kill().expect("a child can be killed");
        self.wait_for_end()
    }

    /// SIGTERM, and waits for the end of the draining.
    ///
    /// # Panics
    /// If the process can't be signalled or waited for, or hangs.
    pub fn terminate(mut self) -> Ended {
        self.drain();
        self.wait_for_end()
    }

    /// SIGTERM: the node begins to drain.
    ///
    /// # Panics
    /// If the process can't be signalled.
    pub fn drain(&self) {
        self.signal(libc::SIGTERM);
    }

    /// Waits for the end of a node that was asked to end.
    ///
    /// # Panics
    /// If the process can't be waited for, or hangs.
    pub fn ended(mut self) -> Ended {
        self.wait_for_end()
    }

    /// SIGSTOP: no instruction is executed any more, until [`Node::resume`].
    ///
    /// # Panics
    /// If the process can't be signalled.
    pub fn pause(&self) {
        self.signal(libc::SIGSTOP);
        // A thread may run on for a moment until the signal comes to it.
        while !self.is_stopped() {
            std::thread::yield_now();
        }
    }

    /// Does every thread stand still?
    fn is_stopped(&self) -> bool {
        let tasks = format!("/proc/{}/task", self.child.id());
        let tasks = std::fs::read_dir(tasks).expect("the process is not waited for yet");
        tasks.flatten().all(|task| {
            let status = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            // The state comes behind the name, which is in parentheses.
            status
                .rsplit_once(") ")
                .is_none_or(|(_, rest)| rest.starts_with(['T', 'Z', 'X']))
        })
    }

    /// SIGCONT.
    ///
    /// # Panics
    /// If the process can't be signalled.
    pub fn resume(&self) {
        self.signal(libc::SIGCONT);
    }

    fn signal(&self, signal: libc::c_int) {
        let process_id = libc::pid_t::try_from(self.child.id()).expect("a process id fits its type");
        // SAFETY: a signal to our own child, which nobody has waited for yet, so the id is still its own.
        let result = unsafe { libc::kill(process_id, signal) };
        assert_eq!(result, 0, "a child can be signalled");
    }

    fn wait_for_end(&mut self) -> Ended {
        assert!(
            self.stderr.ends_within(END_TIMEOUT),
            "the node was asked to end and still ran after {END_TIMEOUT:?}; it said:\n{}",
            self.stderr()
        );
        let status = self.child.wait().expect("a child can be waited for");
        Ended {
            status,
            stderr: self.stderr.all(),
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Both fail if it has ended and was waited for, which is what is wanted.
        let _ended = self.child.kill().and_then(|()| self.child.wait());
    }
}

/// Standard error, read by a thread so that the node never waits for a reader.
#[derive(Debug)]
struct Output {
    text: Arc<Mutex<String>>,
    /// Disconnected when all was read. The mutex is for threads that share a node.
    end: Mutex<mpsc::Receiver<()>>,
    reader: Option<JoinHandle<()>>,
}

impl Output {
    fn collect(mut stderr: ChildStderr) -> Output {
        let text = Arc::new(Mutex::new(String::new()));
        let shared = Arc::clone(&text);
        let (at_end, end) = mpsc::channel();
        let reader = std::thread::spawn(move || {
            let _at_end: mpsc::Sender<()> = at_end;
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = stderr.read(&mut buffer) {
                let read = String::from_utf8_lossy(&buffer[..count]);
                shared
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push_str(&read);
            }
        });
        Output {
            text,
            end: Mutex::new(end),
            reader: Some(reader),
        }
    }

    fn so_far(&self) -> String {
        self.text.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the process closes it within this time.
    fn ends_within(&mut self, time: Duration) -> bool {
        let end = self.end.get_mut().unwrap_or_else(PoisonError::into_inner);
        end.recv_timeout(time) == Err(mpsc::RecvTimeoutError::Disconnected)
    }

    /// Everything; waits until the process has closed it.
    fn all(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("reading does not panic");
        }
        self.so_far()
    }
}

/// Reads lines up to the end of the greeting; `None` at the end of the output.
fn read_greeting(stdout: &mut impl BufRead) -> Option<Greeting> {
    let mut text = String::new();
    loop {
        let start = text.len();
        if stdout.read_line(&mut text).ok()? == 0 {
            return None;
        }
        if text[start..].starts_with(GREETING_END) {
            return parse_greeting(&text);
        }
    }
}

fn parse_greeting(text: &str) -> Option<Greeting> {
    let field = |name: &str| {
        text.lines().find_map(|line| {
            let (found, value) = line.trim().split_once(char::is_whitespace)?;
            (found == name).then(|| value.trim().to_owned())
        })
    };
    let recovered = field("recovered")?;
    let mut numbers = recovered.split_whitespace().filter_map(|word| word.parse().ok());
    Some(Greeting {
        address: field("address")?,
        http: field("http")?
            .strip_prefix("http://")
            .and_then(|url| url.strip_suffix("/metrics"))
            .map(str::to_owned),
        cluster: field("cluster")?,
        recovered_entries: numbers.next()?,
        recovery_ms: numbers.next()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greeting_is_read_to_its_end() {
        let text = "ostrakon 0.1.0 is ready\n\n  address    127.0.0.1:4711\n  \
                    http       http://127.0.0.1:4712/metrics\n  data       /somewhere\n  \
                    cluster    00ff\n  cores      2\n  shards     64\n  recovered  12 log entries in 34 ms\n\n\
                    In another terminal:\n\nCtrl-C or SIGTERM stops it.\n";
        let greeting = Greeting {
            address: "127.0.0.1:4711".to_owned(),
            http: Some("127.0.0.1:4712".to_owned()),
            cluster: "00ff".to_owned(),
            recovered_entries: 12,
            recovery_ms: 34,
        };
        assert_eq!(read_greeting(&mut text.as_bytes()), Some(greeting));
        assert_eq!(read_greeting(&mut &text.as_bytes()[..text.len() - 30]), None);
    }
}
