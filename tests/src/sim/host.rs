//! Hosts and processes: start, end, crash, pause.
//!
//! A host is a machine: a disk that survives crashes, clocks, an address, at most one process with its cores,
//! and a client core on which the harness runs tasks. A process ends in one of four ways: all its root tasks
//! return, it is killed, its machine loses power, or one of its tasks panics (which aborts it, as the release
//! build does).

use core::net::{IpAddr, Ipv4Addr};
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ostrakon::env::tasks::TaskFuture;
use ostrakon::env::{CoreId, Env, Priority};

use serde::{Deserialize, Serialize};

use super::clock::{HostClock, SimClock};
use super::counters::FaultKind;
use super::disk::SimDisk;
use super::disk::harness::HostDisk;
use super::disk::state::DiskState;
use super::executor::{SimTasks, drop_quietly};
use super::mesh::{MeshShared, SimMesh};
use super::network::SimNetwork;
use super::random::SimRandom;
use super::trace::TraceKind;
use super::world::World;

/// The directory that every new host has, durably: for the data of its process.
pub const DATA_DIRECTORY: &str = "/data";

/// A machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HostId(pub u16);

/// A process of a world; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProcessId(pub u64);

/// How a machine fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CrashStyle {
    /// The process ends at once; what the operating system holds of it (page cache, unsynced names) stays.
    ProcessKill,
    /// The machine loses its power: only what is durable stays for sure, of the rest the seed decides. It is up
    /// again at once, without a process.
    PowerLoss,
}

/// What became of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessStatus {
    /// It runs (or stands still in a pause).
    Running,
    /// All its root tasks have returned.
    Exited,
    /// It was killed, or its machine lost power.
    Crashed,
    /// One of its tasks panicked: see [`World::panics`].
    Panicked,
}

struct Process {
    id: ProcessId,
    /// By core: its place in the executor.
    cores: Vec<usize>,
    roots_left: usize,
}

pub(super) struct Host {
    pub(super) name: String,
    pub(super) address: IpAddr,
    pub(super) clock: HostClock,
    pub(super) disk: Rc<RefCell<DiskState>>,
    process: Option<Process>,
    client: Option<(ProcessId, usize)>,
    paused_until_ns: u64,
}

/// All hosts and processes of a world.
#[derive(Default)]
pub(super) struct Hosts {
    hosts: Vec<Host>,
    /// By process id.
    statuses: Vec<ProcessStatus>,
}

impl Hosts {
    pub(super) fn get(&self, host: HostId) -> &Host {
        &self.hosts[usize::from(host.0)]
    }

    fn get_mut(&mut self, host: HostId) -> &mut Host {
        &mut self.hosts[usize::from(host.0)]
    }

    pub(super) fn len(&self) -> usize {
        self.hosts.len()
    }

    /// The host with this address.
    pub(super) fn by_address(&self, address: IpAddr) -> Option<HostId> {
        let place = self.hosts.iter().position(|host| host.address == address);
        place.map(|place| HostId(place as u16))
    }

    fn new_process(&mut self) -> ProcessId {
        self.statuses.push(ProcessStatus::Running);
        ProcessId(self.statuses.len() as u64 - 1)
    }
}

impl World {
    /// Adds a machine with an empty disk (but for [`DATA_DIRECTORY`]).
    pub fn add_host(&self, name: &str) -> HostId {
        let mut hosts = self.0.hosts.borrow_mut();
        let host = HostId(hosts.hosts.len() as u16);
        let random = SimRandom::stream(self.0.seed, "boot", &[u64::from(host.0)]);
        let [high, low] = (host.0 + 1).to_be_bytes();
        hosts.hosts.push(Host {
            name: name.to_owned(),
            address: IpAddr::V4(Ipv4Addr::new(10, 0, high, low)),
            clock: HostClock::new(self.now_ns(), random.between(1_000_000_000, 3_000_000_000_000)),
            disk: Rc::new(RefCell::new(DiskState::new(
                self.0.seed,
                host,
                &self.0.config.disk,
            ))),
            process: None,
            client: None,
            paused_until_ns: 0,
        });
        drop(hosts);
        self.disk(host).make_directory(Path::new(DATA_DIRECTORY));
        host
    }

    /// All hosts.
    pub fn hosts(&self) -> Vec<HostId> {
        (0..self.0.hosts.borrow().len())
            .map(|host| HostId(host as u16))
            .collect()
    }

    /// The name given to a host.
    pub fn host_name(&self, host: HostId) -> String {
        self.with_host(host, |host| host.name.clone())
    }

    /// Its address in the simulated network.
    pub fn address(&self, host: HostId) -> IpAddr {
        self.with_host(host, |host| host.address)
    }

    /// Its data directory.
    pub fn data_directory(&self) -> PathBuf {
        PathBuf::from(DATA_DIRECTORY)
    }

    /// The harness's handle of its disk.
    pub fn disk(&self, host: HostId) -> HostDisk {
        HostDisk {
            world: self.clone(),
            host,
        }
    }

    /// Starts a process: `main` is called for each core and gives its root task. The process ends when all root
    /// tasks have returned.
    ///
    /// # Panics
    /// When a process runs on this host.
    pub fn start_process<B: 'static>(
        &self,
        host: HostId,
        cores: u16,
        main: impl Fn(CoreId, Env<B>) -> TaskFuture,
    ) -> ProcessId {
        assert!(cores > 0, "a process has at least one core");
        let (id, slots) = {
            let mut hosts = self.0.hosts.borrow_mut();
            assert!(
                hosts.get(host).process.is_none(),
                "host {} runs a process already",
                host.0
            );
            let id = hosts.new_process();
            let mut executor = self.0.executor.borrow_mut();
            let slots: Vec<usize> = (0..cores).map(|_| executor.add_core(host, id)).collect();
            let machine = hosts.get_mut(host);
            machine.paused_until_ns = 0;
            machine.process = Some(Process {
                id,
                cores: slots.clone(),
                roots_left: usize::from(cores),
            });
            (id, slots)
        };
        self.trace(
            host,
            TraceKind::Process(format!("{} starts with {cores} cores", id.0)),
        );
        let mesh = MeshShared::new(cores, &self.0.config.mesh, self.stream("mesh", id, 0));
        for (core, slot) in slots.into_iter().enumerate() {
            let core = CoreId(core as u16);
            let env = self.core_env((host, id, slot), core, cores, &mesh);
            self.spawn_task(slot, Priority::Foreground, true, main(core, env));
        }
        id
    }

    /// An `env` for tasks of the harness on a host's client core. It has one core, so its mesh leads nowhere.
    /// To connect, see [`World::connect`].
    pub fn client_env(&self, host: HostId) -> Env<()> {
        let (process, slot) = self.client_core(host);
        let mesh = MeshShared::new(1, &self.0.config.mesh, self.stream("mesh", process, 0));
        self.core_env((host, process, slot), CoreId(0), 1, &mesh)
    }

    /// Runs a task of the harness on a host's client core. It lives until it ends, panics, or the host loses
    /// power; a kill of the host's process leaves it alone.
    pub fn spawn(&self, host: HostId, task: impl Future<Output = ()> + 'static) {
        let (_, slot) = self.client_core(host);
        self.spawn_task(slot, Priority::Foreground, false, Box::pin(task));
    }

    /// The process that runs on a host.
    pub fn running_process(&self, host: HostId) -> Option<ProcessId> {
        self.with_host(host, |host| host.process.as_ref().map(|process| process.id))
    }

    /// Cores of the process that runs on a host; 0 when none does.
    pub(super) fn cores_running(&self, host: HostId) -> u16 {
        self.with_host(host, |host| {
            host.process
                .as_ref()
                .map_or(0, |process| process.cores.len() as u16)
        })
    }

    /// What a host's wall clock shows, in microseconds since 1970.
    pub fn wall_us(&self, host: HostId) -> u64 {
        self.with_host(host, |host| host.clock.wall_us(self.now_ns()))
    }

    /// What became of a process.
    pub fn process_status(&self, process: ProcessId) -> ProcessStatus {
        self.0.hosts.borrow().statuses[process.0 as usize]
    }

    /// Fails a host. Without a process, a kill does nothing, and a power loss still concerns disk, clocks and
    /// client tasks.
    pub fn crash(&self, host: HostId, style: CrashStyle) {
        self.trace(host, TraceKind::Process(format!("{style:?}")));
        let (process, client) = {
            let mut hosts = self.0.hosts.borrow_mut();
            let machine = hosts.get_mut(host);
            let process = machine.process.take().map(|process| process.id);
            let client = match style {
                CrashStyle::PowerLoss => machine.client.take().map(|(id, _)| id),
                CrashStyle::ProcessKill => None,
            };
            machine.paused_until_ns = 0;
            (process, client)
        };
        if style == CrashStyle::ProcessKill && process.is_none() {
            return;
        }
        self.count(match style {
            CrashStyle::ProcessKill => FaultKind::ProcessKill,
            CrashStyle::PowerLoss => FaultKind::PowerLoss,
        });
        self.crash_disk(host, style);
        self.0.crash_wanted.borrow_mut().retain(|wanted| *wanted != host);
        for process in process.into_iter().chain(client) {
            self.end_process(process, ProcessStatus::Crashed, Some(style));
        }
        if style == CrashStyle::PowerLoss {
            let random = SimRandom::stream(self.0.seed, "boot", &[u64::from(host.0), self.now_ns()]);
            let uptime_ns = random.between(1_000_000, 1_000_000_000);
            self.with_host(host, |machine| machine.clock.reboot(self.now_ns(), uptime_ns));
        }
    }

    /// Lets the process on a host stand still. Its disk and network connections go on without it. False when there
    /// is none.
    pub fn pause(&self, host: HostId, duration_ns: u64) -> bool {
        let mut hosts = self.0.hosts.borrow_mut();
        let machine = hosts.get_mut(host);
        let runs = machine.process.is_some();
        if runs {
            machine.paused_until_ns = machine.paused_until_ns.max(self.now_ns() + duration_ns);
            self.count(FaultKind::ProcessPause);
        }
        runs
    }

    /// Lets the core stand still that is so many further than the one that runs now, round; false when none runs.
    pub(super) fn stall_near(&self, host: HostId, further: u16, duration_ns: u64) -> bool {
        let running = self.0.running_core.get();
        let core = self.with_host(host, |host| {
            let cores = &host.process.as_ref()?.cores;
            let own = cores.iter().position(|slot| Some(*slot) == running)?;
            Some((own + usize::from(further)) % cores.len())
        });
        core.is_some_and(|core| self.stall_core(host, core as u16, duration_ns))
    }

    /// Lets one core of the process on a host stand still; false when there is no such core.
    pub fn stall_core(&self, host: HostId, core: u16, duration_ns: u64) -> bool {
        let slot = self.with_host(host, |host| {
            host.process
                .as_ref()
                .and_then(|process| process.cores.get(usize::from(core)).copied())
        });
        if let Some(slot) = slot {
            self.0
                .executor
                .borrow_mut()
                .stall(slot, self.now_ns() + duration_ns);
            self.count(FaultKind::CoreStall);
        }
        slot.is_some()
    }

    /// Ends all pauses.
    pub(super) fn end_pauses(&self) {
        self.0
            .hosts
            .borrow_mut()
            .hosts
            .iter_mut()
            .for_each(|host| host.paused_until_ns = 0);
    }

    pub(super) fn paused_until_ns(&self, host: HostId, process: ProcessId) -> u64 {
        self.with_host(host, |host| match &host.process {
            Some(running) if running.id == process => host.paused_until_ns,
            _ => 0,
        })
    }

    /// A root task has returned.
    pub(super) fn root_ended(&self, process: ProcessId) {
        let ended = {
            let mut hosts = self.0.hosts.borrow_mut();
            let host = hosts
                .hosts
                .iter_mut()
                .position(|host| host.process.as_ref().is_some_and(|running| running.id == process));
            let Some(host) = host else { return };
            let running = hosts.hosts[host].process.as_mut().expect("looked up above");
            running.roots_left -= 1;
            if running.roots_left > 0 {
                return;
            }
            hosts.hosts[host].process = None;
            HostId(host as u16)
        };
        self.trace(ended, TraceKind::Process(format!("{} exits", process.0)));
        self.crash_disk(ended, CrashStyle::ProcessKill);
        self.end_process(process, ProcessStatus::Exited, None);
    }

    /// A task of this process panicked.
    pub(super) fn abort_process(&self, host: HostId, process: ProcessId) {
        let is_main = {
            let mut hosts = self.0.hosts.borrow_mut();
            let machine = hosts.get_mut(host);
            if machine.client.is_some_and(|(client, _)| client == process) {
                machine.client = None;
            }
            machine.process.take_if(|running| running.id == process).is_some()
        };
        if is_main {
            self.crash_disk(host, CrashStyle::ProcessKill);
        }
        self.end_process(process, ProcessStatus::Panicked, Some(CrashStyle::ProcessKill));
    }

    /// Drops the tasks of all processes.
    pub(super) fn drop_all_tasks(&self) {
        let ids: Vec<ProcessId> = (0..self.0.hosts.borrow().statuses.len() as u64)
            .map(ProcessId)
            .collect();
        for process in ids {
            let futures = self.0.executor.borrow_mut().end_process(process);
            futures.into_iter().for_each(drop_quietly);
        }
    }

    fn end_process(&self, process: ProcessId, status: ProcessStatus, style: Option<CrashStyle>) {
        self.0.hosts.borrow_mut().statuses[process.0 as usize] = status;
        self.end_connections(process, style);
        let futures = self.0.executor.borrow_mut().end_process(process);
        futures.into_iter().for_each(drop_quietly);
    }

    fn client_core(&self, host: HostId) -> (ProcessId, usize) {
        let mut hosts = self.0.hosts.borrow_mut();
        if let Some(client) = hosts.get(host).client {
            return client;
        }
        let id = hosts.new_process();
        let client = (id, self.0.executor.borrow_mut().add_core(host, id));
        hosts.get_mut(host).client = Some(client);
        client
    }

    /// The process to which connections made by the harness on a host belong.
    pub(super) fn client_process(&self, host: HostId) -> ProcessId {
        self.client_core(host).0
    }

    fn stream(&self, name: &str, process: ProcessId, core: u16) -> SimRandom {
        SimRandom::stream(self.0.seed, name, &[process.0, u64::from(core)])
    }

    fn core_env<B: 'static>(
        &self,
        (host, process, slot): (HostId, ProcessId, usize),
        core: CoreId,
        cores: u16,
        mesh: &Rc<MeshShared<B>>,
    ) -> Env<B> {
        let world = || self.clone();
        Env {
            core,
            cores,
            clock: Rc::new(SimClock { world: world(), host }),
            disk: Rc::new(SimDisk::new(self, host, process)),
            network: Rc::new(SimNetwork {
                world: world(),
                host,
                process,
            }),
            mesh: Rc::new(SimMesh {
                world: world(),
                core,
                shared: Rc::clone(mesh),
            }),
            tasks: Rc::new(SimTasks {
                world: world(),
                host,
                core: slot,
                random: self.stream("tasks", process, core.0),
            }),
            random: Rc::new(self.stream("random", process, core.0)),
        }
    }
}
