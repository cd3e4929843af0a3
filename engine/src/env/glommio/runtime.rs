//! Starts the executors of a node: one thread for each core, pinned, with its [`Env`] and its end of the
//! mesh.
//!
//! 1. In the calling thread: write the probe file, read the affinity mask, raise the limit of locked memory,
//!    register memory barriers.
//! 2. On each core's thread: make the executor, open the probe file before any other, report ready.
//! 3. When all cores are ready, each connects its end of the mesh and runs `main` to its end.
//! 4. A core whose `main` has ended goes on forwarding until all have ended: a running core never sees a
//!    peer disappear.
//!
//! From its first task to its last, each core has a [`pulse`](super::pulse).
//!
//! A panic in any task of a core ends that core alone; [`Cores::join`] returns it at once, without waiting
//! for the cores that go on. (Release builds abort on a panic.)

use core::any::Any;
use core::fmt;
use core::future::poll_fn;
use core::task::{Poll, Waker};
use core::time::Duration;
use std::fs;
use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use ::glommio::io::DmaFile;
use ::glommio::{LocalExecutor, PoolPlacement};

use super::clock::{SplitMix, SystemClock};
use super::disk::DmaDisk;
use super::executors;
use super::mesh::{self, MeshEnds};
use super::network::TcpNetwork;
use super::pulse::{Beating, Pulse};
use super::tasks::{GlommioTasks, spawn_into};
use super::{system, system_error};
use crate::env::disk::BLOCK_BYTES;
use crate::env::local::Notify;
use crate::env::{CoreId, Env};

/// Name of the probe file in the data directory.
const PROBE_FILE: &str = ".probe";

/// glommio refuses to start below this limit of locked memory.
const LOCKED_MEMORY_NEEDED_BYTES: u64 = 512 * 1024;

/// Each executor has three rings, and each ring locks the IO memory anew.
const RINGS_PER_CORE: u64 = 3;

/// The least IO memory that glommio works with.
const IO_MEMORY_LEAST_BYTES: usize = 64 * 1024;

/// What a node's executors are started with.
#[derive(Clone, Debug)]
pub struct RuntimeConfig {
    /// Number of cores, at least 1. More cores than CPUs are allowed; they share CPUs.
    pub cores: u16,
    /// The data directory, which must exist. The file `.probe` is written into it.
    pub data_dir: PathBuf,
    /// How long an idle core polls before it sleeps. `None` on machines that it shares with others.
    pub spin_before_park: Option<Duration>,
    /// Memory for direct IO that each core registers with its rings. It is cut to what the limit of locked
    /// memory leaves (`ulimit -l`); IO beyond it works too, from unregistered memory.
    pub io_memory_bytes: usize,
    /// The CPUs to use, core `i` on CPU `i % n`. `None` takes the affinity mask of the calling thread.
    pub cpus: Option<Vec<usize>>,
}

impl RuntimeConfig {
    /// The defaults: no spinning, 8 MiB of IO memory, the CPUs of the affinity mask.
    pub fn new(cores: u16, data_dir: impl Into<PathBuf>) -> RuntimeConfig {
        RuntimeConfig {
            cores,
            data_dir: data_dir.into(),
            spin_before_park: None,
            io_memory_bytes: 8 * 1024 * 1024,
            cpus: None,
        }
    }
}

/// Why the executors of a node can't start.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration makes no sense.
    Config(String),
    /// The data directory can't be used.
    DataDir {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The limit of locked memory is too low for `io_uring`.
    LockedMemory {
        /// The limit in bytes.
        limit_bytes: u64,
    },
    /// A call to the operating system failed.
    System {
        /// What it was for.
        purpose: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A core's executor failed.
    Core {
        /// The core.
        core: CoreId,
        /// What went wrong.
        message: String,
    },
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Config(message) => f.write_str(message),
            StartError::DataDir { path, source } => {
                write!(
                    f,
                    "can't write {}: {source}; the data directory must exist and be writable",
                    path.display()
                )
            }
            StartError::LockedMemory { limit_bytes } => write!(
                f,
                "only {limit_bytes} bytes of memory may be locked, io_uring needs \
                 {LOCKED_MEMORY_NEEDED_BYTES}: raise the hard limit with `ulimit -Hl 8192` or \
                 `LimitMEMLOCK=8M` in the service's unit"
            ),
            StartError::System { purpose, source } => write!(f, "can't {purpose}: {source}"),
            StartError::Core { core, message } => write!(
                f,
                "core {} can't start: {message}; `ostrakon doctor` tells what blocks io_uring here",
                core.0
            ),
        }
    }
}

impl core::error::Error for StartError {}

/// A core ended by a panic.
#[derive(Debug)]
pub struct JoinError {
    /// The core.
    pub core: CoreId,
    /// The panic's message.
    pub message: String,
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "core {} panicked: {}", self.core.0, self.message)
    }
}

impl core::error::Error for JoinError {}

/// What a core's thread reports.
enum Event {
    Ready,
    Failed(CoreId, String),
    Ended,
    Panicked(CoreId, String),
}

/// The running cores of a node.
pub struct Cores {
    events: mpsc::Receiver<Event>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Cores {
    /// Waits until `main` has ended on every core.
    ///
    /// # Errors
    /// The first panic of a core, as soon as it happens. The other cores are left running: the process is
    /// expected to end.
    pub fn join(self) -> Result<(), JoinError> {
        for _ in 0..self.threads.len() {
            match self.events.recv() {
                Ok(Event::Ended) => {}
                Ok(Event::Panicked(core, message) | Event::Failed(core, message)) => {
                    return Err(JoinError { core, message });
                }
                Ok(Event::Ready) | Err(_) => unreachable!("a core's thread reports its end exactly once"),
            }
        }
        for thread in self.threads {
            thread.join().expect("a core's thread catches panics");
        }
        Ok(())
    }
}

/// Starts one pinned executor per core and runs `main` on each.
///
/// # Errors
/// See [`StartError`]. No core runs `main` then.
pub fn start<B, F, Fut>(config: RuntimeConfig, main: F) -> Result<Cores, StartError>
where
    B: Send + 'static,
    F: Fn(Env<B>) -> Fut + Send + Clone + 'static,
    Fut: Future<Output = ()> + 'static,
{
    if config.cores == 0 {
        return Err(StartError::Config("a node needs at least one core".to_owned()));
    }
    let probe = write_probe(&config.data_dir)?;
    let io_memory_bytes = fitting_io_memory(&config)?;
    let cpus = match config.cpus {
        Some(cpus) => cpus,
        None => system::allowed_cpus().map_err(|source| StartError::System {
            purpose: "read the CPU affinity mask",
            source,
        })?,
    };
    if cpus.is_empty() {
        return Err(StartError::Config("the list of CPUs is empty".to_owned()));
    }
    system::register_membarrier();

    let beatings = Pulse::start(config.cores).map_err(|source| StartError::System {
        purpose: "start the pulse thread",
        source,
    })?;
    let finish = Arc::new(Finish::new(config.cores));
    let (report, events) = mpsc::channel();
    let mut gates = Vec::new();
    let mut threads = Vec::new();
    for (index, (mesh, beating)) in mesh::build::<B>(config.cores)
        .into_iter()
        .zip(beatings)
        .enumerate()
    {
        let (gate, opened) = mpsc::channel();
        let seat = Seat {
            core: CoreId(index as u16),
            cores: config.cores,
            cpu: cpus[index % cpus.len()],
            spin_before_park: config.spin_before_park,
            io_memory_bytes,
            probe: probe.clone(),
            report: report.clone(),
            gate: opened,
            finish: Arc::clone(&finish),
            mesh,
        };
        let main = main.clone();
        let thread = thread::Builder::new()
            .name(format!("core-{index}"))
            .spawn(move || seat.run(main, &beating));
        threads.push(thread.map_err(|source| StartError::System {
            purpose: "start a core's thread",
            source,
        })?);
        gates.push(gate);
    }
    for _ in 0..config.cores {
        match events.recv() {
            Ok(Event::Ready) => {}
            // Dropping the gates ends the cores that are ready.
            Ok(Event::Failed(core, message) | Event::Panicked(core, message)) => {
                return Err(StartError::Core { core, message });
            }
            Ok(Event::Ended) | Err(_) => unreachable!("no core ends before its gate opens"),
        }
    }
    for gate in gates {
        gate.send(()).expect("a core that is ready waits at its gate");
    }
    Ok(Cores { events, threads })
}

/// Writes the file whose first block tells glommio whether the device supports polled IO.
///
/// glommio finds out by reading the start of the first file that an executor opens. An empty file, and
/// blocks that aren't written yet, are answered without the device: the probe passes and every later read
/// fails with `EOPNOTSUPP`. So the file has a written, synced block.
fn write_probe(data_dir: &Path) -> Result<PathBuf, StartError> {
    let path = data_dir.join(PROBE_FILE);
    let write = || {
        let mut file = fs::File::create(&path)?;
        file.write_all(&[0; BLOCK_BYTES])?;
        file.sync_all()
    };
    match write() {
        Ok(()) => Ok(path),
        Err(source) => Err(StartError::DataDir { path, source }),
    }
}

/// The IO memory per core, cut so that three quarters of the limit of locked memory hold all cores' rings.
///
/// If another process of the same user has locked the rest, registration fails in glommio, which then goes
/// on with the same memory unregistered: slower by a page lookup per IO, otherwise equal.
fn fitting_io_memory(config: &RuntimeConfig) -> Result<usize, StartError> {
    let limit = system::raise_locked_memory_limit().map_err(|source| StartError::System {
        purpose: "read the limit of locked memory",
        source,
    })?;
    let Some(limit_bytes) = limit else {
        return Ok(config.io_memory_bytes);
    };
    if limit_bytes < LOCKED_MEMORY_NEEDED_BYTES {
        return Err(StartError::LockedMemory { limit_bytes });
    }
    if system::may_lock_without_limit() {
        return Ok(config.io_memory_bytes);
    }
    let fitting_bytes = fitting_bytes(limit_bytes, config.cores);
    if fitting_bytes < config.io_memory_bytes {
        tracing::warn!(
            wanted_bytes = config.io_memory_bytes,
            fitting_bytes,
            limit_bytes,
            "IO memory per core is cut to the limit of locked memory; raise `ulimit -l` for more"
        );
    }
    Ok(config.io_memory_bytes.min(fitting_bytes))
}

fn fitting_bytes(limit_bytes: u64, cores: u16) -> usize {
    let share = (limit_bytes / 4 * 3 / (RINGS_PER_CORE * u64::from(cores))) as usize;
    (share / BLOCK_BYTES * BLOCK_BYTES).max(IO_MEMORY_LEAST_BYTES)
}

/// Counts the cores whose `main` still runs.
struct Finish(Mutex<Running>);

struct Running {
    cores: u16,
    waiting: Vec<Waker>,
}

impl Finish {
    fn new(cores: u16) -> Finish {
        Finish(Mutex::new(Running {
            cores,
            waiting: Vec::new(),
        }))
    }

    /// Reports this core's end and waits for the others'. A core that panicked never reports.
    async fn wait(&self) {
        {
            let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            running.cores -= 1;
            if running.cores == 0 {
                running.waiting.drain(..).for_each(Waker::wake);
            }
        }
        poll_fn(|cx| {
            let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if running.cores == 0 {
                return Poll::Ready(());
            }
            running.waiting.push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// Everything that a core's thread starts with.
struct Seat<B: Send> {
    core: CoreId,
    cores: u16,
    cpu: usize,
    spin_before_park: Option<Duration>,
    io_memory_bytes: usize,
    probe: PathBuf,
    report: mpsc::Sender<Event>,
    gate: mpsc::Receiver<()>,
    finish: Arc<Finish>,
    mesh: MeshEnds<B>,
}

fn panic_message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

impl<B: Send + 'static> Seat<B> {
    fn make_executor(&self) -> Result<LocalExecutor, String> {
        let mut builder = executors::builder(self.cpu, "core")
            .io_memory(self.io_memory_bytes)
            // The helper thread goes wherever the affinity mask lets it: on the core's own CPU it would wait
            // for a busy core.
            .blocking_thread_pool_placement(PoolPlacement::Unbound(1));
        if let Some(spin) = self.spin_before_park {
            builder = builder.spin_before_park(spin);
        }
        builder
            .make()
            .map_err(|error| format!("CPU {}: {}", self.cpu, system_error(error)))
    }

    /// The body of a core's thread.
    fn run<F, Fut>(self, main: F, beating: &Beating)
    where
        F: Fn(Env<B>) -> Fut,
        Fut: Future<Output = ()> + 'static,
    {
        let core = self.core;
        let report = self.report.clone();
        let made = panic::catch_unwind(AssertUnwindSafe(|| self.make_executor()));
        let executor = match made {
            Ok(Ok(executor)) => executor,
            Ok(Err(message)) => return tell(&report, Event::Failed(core, message)),
            Err(payload) => return tell(&report, Event::Failed(core, panic_message(&*payload))),
        };
        match panic::catch_unwind(AssertUnwindSafe(|| executor.run(self.live(main, beating.task())))) {
            Ok(()) => {
                drop(executor);
                tell(&report, Event::Ended);
            }
            Err(payload) => {
                // Its tasks stopped halfway; running their destructors would trust what they left.
                core::mem::forget(executor);
                tell(&report, Event::Panicked(core, panic_message(&*payload)));
            }
        }
    }

    /// The first task of the executor, which ends with it.
    async fn live<F, Fut>(self, main: F, pulse: impl Future<Output = ()> + 'static)
    where
        F: Fn(Env<B>) -> Fut,
        Fut: Future<Output = ()> + 'static,
    {
        let tasks = GlommioTasks::on_this_executor();
        let foreground = tasks.foreground();
        spawn_into(foreground, pulse);
        let random = match open_probe(&self.probe)
            .await
            .and_then(|()| SplitMix::from_kernel())
        {
            Ok(random) => random,
            Err(error) => return tell(&self.report, Event::Failed(self.core, error.to_string())),
        };
        tell(&self.report, Event::Ready);
        // No task but the pulse runs on this executor yet, so the thread may block.
        if self.gate.recv().is_err() {
            return;
        }
        let env = Env {
            core: self.core,
            cores: self.cores,
            clock: Rc::new(SystemClock),
            disk: Rc::new(DmaDisk),
            network: Rc::new(TcpNetwork::new(foreground)),
            mesh: Rc::new(self.mesh.connect(foreground).await),
            tasks: Rc::new(tasks),
            random: Rc::new(random),
        };
        let ended = Rc::new(Notify::default());
        let end = Rc::clone(&ended);
        let main = main(env);
        spawn_into(foreground, async move {
            main.await;
            end.notify();
        });
        ended.notified().await;
        self.finish.wait().await;
    }
}

/// Nobody listens once `start` or `join` has returned an error.
fn tell(report: &mpsc::Sender<Event>, event: Event) {
    drop(report.send(event));
}

/// Opens the probe file as the executor's first one; see [`write_probe`].
async fn open_probe(path: &Path) -> io::Result<()> {
    let file = DmaFile::open(path).await.map_err(system_error)?;
    file.close().await.map_err(system_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_memory_of_all_rings_stays_below_the_limit() {
        for cores in [1, 2, 4, 64] {
            let locked = fitting_bytes(8 << 20, cores) as u64 * RINGS_PER_CORE * u64::from(cores);
            let floor = IO_MEMORY_LEAST_BYTES as u64 * RINGS_PER_CORE * u64::from(cores);
            assert!(
                locked <= (8 << 20) || locked == floor,
                "{cores} cores lock {locked} bytes"
            );
        }
        assert_eq!(fitting_bytes(8 << 20, 4), 512 * 1024);
        assert_eq!(fitting_bytes(512 * 1024, 64), IO_MEMORY_LEAST_BYTES);
    }
}
