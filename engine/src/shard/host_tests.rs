//! The shards of a core over a log and tables in memory, without a server: what is sealed, and what is forgotten, when
//! the file system has little space.

use core::time::Duration;
use std::cell::{OnceCell, RefCell};
use std::path::Path;
use std::rc::{Rc, Weak};

use ostrakon_core::hlc::{Hlc, Timestamp};
use ostrakon_core::lsm::Reason;
use ostrakon_core::raft::{EntryId, HardState, LogIndex, ReplicaId, Term};
use ostrakon_core::sessions::{Answer, Retry, Sequence, SessionId};
use ostrakon_wire::message::{Action, Condition, Kind};
use ostrakon_wire::routing::ShardId;

use super::command::{Change, Head};
use super::fetched::Fetched;
use super::host::{HostOptions, ShardHost, memtable_hash};
use super::replica::WriteOutcome;
use super::{Completions, Holder, KeyWrite, ReadId, Recovering, Refusal, Ticket, Write};
use crate::env::disk::BLOCK_BYTES;
use crate::env::testing::memory_disk::MemoryDisk;
use crate::env::testing::scheduler::Scheduler;
use crate::env::{CoreId, Disk, WallUs};
use crate::limits::{DISK_RESERVE_BYTES, RETENTION_US, RETRY_HORIZON_US, STORE_RESERVE_BYTES};
use crate::log::format::{BootNumber, LogId, OwnershipEpoch};
use crate::log::{DurableBatch, DurableSink, Log, LogConfig, LogError};
use crate::storage::store::files::{StoreEnv, StoreError, StoreOptions, make_directories};

const SHARDS: u32 = 3;
const SEGMENT_BYTES: u64 = 32 * BLOCK_BYTES as u64;
const AMPLE_BYTES: u64 = 1 << 40;
/// A file system with so many free bytes has none for puts, and some for deletes.
const SHORT_BYTES: u64 = DISK_RESERVE_BYTES;
/// Longer than the log waits before it looks at a full disk again.
const A_WHILE: Duration = Duration::from_millis(300);

const TICKET: Ticket = Ticket {
    gateway: CoreId(0),
    kind: Kind::Put,
    is_timed: false,
    holder: Holder::Client,
    connection: 0,
    request_id: 0,
    received_ns: 0,
    decoded_ns: 0,
    executed_ns: 0,
};

/// Hands durable batches to the shards.
#[derive(Default)]
struct Applies(OnceCell<Weak<RefCell<ShardHost>>>);

impl DurableSink for Applies {
    fn batch_durable(&self, batch: &DurableBatch<'_>) {
        let host = self.0.get().and_then(Weak::upgrade).expect("it is there");
        host.borrow_mut().batch_durable(batch, &mut Nobody);
    }

    fn log_failed(&self, error: &LogError) {
        panic!("{error}");
    }
}

/// Waits for nothing.
struct Nobody;

impl Completions for Nobody {
    fn decided(&mut self, _: Ticket, _: &Answer) {}
    fn refused(&mut self, _: Ticket, _: Refusal) {}
    fn read_ready(&mut self, _: ReadId) {}
}

fn put(value: &[u8]) -> Action<'_> {
    Action::Put { value, ttl_ms: 0 }
}

struct Bench {
    scheduler: Scheduler,
    disk: MemoryDisk,
    host: Rc<RefCell<ShardHost>>,
    wall_us: u64,
}

impl Bench {
    /// A core that serves, on a file system with ample space.
    fn new() -> Bench {
        Bench::with_memory(8 << 20)
    }

    fn with_memory(memtable_bytes: usize) -> Bench {
        let (scheduler, data) = (Scheduler::default(), Path::new("/data"));
        let disk = MemoryDisk::new(data);
        let env = StoreEnv::in_memory(&disk, &scheduler, 16 << 10, StoreOptions::default());
        let opened = scheduler.run(async {
            for directory in ["/data/log", "/data/log/0000"].map(Path::new) {
                disk.create_dir(directory).await.expect("nothing fails here");
            }
            let shards = (0..SHARDS).map(ShardId);
            let made = make_directories(&disk, data, shards.clone()).await;
            made.expect("nothing fails here");
            let config = LogConfig {
                data: data.to_path_buf(),
                log: LogId(0),
                boot: BootNumber(1),
                cluster: (1, 2),
                node: 3,
                shards: SHARDS,
                segment_bytes: SEGMENT_BYTES,
                logs: 1,
            };
            let tasks = Rc::new(scheduler.clone());
            let log = Log::open(
                config,
                (Rc::new(disk.clone()), Rc::clone(&tasks) as _, tasks),
                None,
            );
            let log = log.await.expect("nothing fails here");
            let mut hlc = Hlc::default();
            let mut replicas = Vec::new();
            for shard in shards {
                let recovering = Recovering::open(&env, data, shard, EntryId::default()).await;
                let recovering = recovering.expect("an empty directory is a shard");
                let epoch = OwnershipEpoch(1);
                let (replica, state) = recovering.finish(ReplicaId(3), epoch, HardState::default(), &mut hlc);
                log.set_shard_state(shard, epoch, state);
                replicas.push(Some(replica));
            }
            log.allow_freeing();
            (log, replicas, hlc)
        });
        let (log, replicas, hlc) = opened.expect("it ends");
        let options = HostOptions {
            memtable_bytes,
            cache_bytes: 16 << 10,
            recovery_bytes: 64 << 20,
            retention_us: RETENTION_US,
        };
        let host = ShardHost::new(replicas, log.clone(), hlc, Rc::clone(&env.cache), options);
        let host = Rc::new(RefCell::new(host));
        let sink = Rc::new(Applies::default());
        sink.0.set(Rc::downgrade(&host)).expect("it is empty");
        log.start(sink);
        let mut bench = Bench {
            scheduler,
            disk,
            host,
            wall_us: 1_800_000_000_000_000,
        };
        bench.drain();
        bench.host.borrow_mut().hard_states_durable();
        bench.drain();
        assert!(bench.host.borrow().may_serve());
        bench.note_free(AMPLE_BYTES);
        bench
    }

    fn log(&self) -> Log {
        self.host.borrow().log().clone()
    }

    /// Lets everything that was appended become durable and applied.
    fn drain(&mut self) {
        let log = self.log();
        self.scheduler.run(log.drained()).expect("the log goes on");
        self.scheduler.settle();
    }

    /// The node has looked how much is free.
    fn note_free(&mut self, free_bytes: u64) {
        let need = self.host.borrow().log_need();
        self.host.borrow_mut().note_free_bytes(free_bytes, (1, 0), need);
        self.scheduler.advance(A_WHILE);
    }

    fn write(&mut self, shard: u32, action: Action<'_>, retry: Option<Retry>) -> Result<(), Refusal> {
        let written = self.propose(shard, action, retry);
        self.drain();
        written
    }

    /// As [`Bench::write`], while the log's tasks stand still.
    fn propose(&mut self, shard: u32, action: Action<'_>, retry: Option<Retry>) -> Result<(), Refusal> {
        let keys = [KeyWrite {
            hash: memtable_hash(b"key"),
            key: b"key",
            action,
            condition: Condition::None,
        }];
        let write = Write {
            keys: &keys,
            retry,
            ticket: TICKET,
        };
        self.host.borrow_mut().begin_turn(WallUs(self.wall_us));
        let mut host = self.host.borrow_mut();
        let proposed = host.write(ShardId(shard), &write, &Fetched::default());
        proposed.map(|outcome| assert!(matches!(outcome, WriteOutcome::Pending)))
    }

    fn put(&mut self, shard: u32, value_bytes: usize) -> Result<(), Refusal> {
        self.write(shard, put(&vec![7; value_bytes]), None)
    }

    /// Deletes in a session that the shard remembers from then on.
    fn delete_in_session(&mut self, shard: u32) {
        let retry = Retry {
            session: SessionId(9),
            sequence: Sequence(1),
            answered_below: Sequence(1),
            first_sent: Timestamp::from_micros(self.wall_us),
        };
        let deleted = self.write(shard, Action::Delete, Some(retry));
        assert_eq!((deleted, self.sessions()), (Ok(()), 1));
    }

    fn sessions(&self) -> usize {
        self.host.borrow().statistics().sessions
    }

    fn tend(&mut self) -> usize {
        self.host.borrow_mut().begin_turn(WallUs(self.wall_us));
        self.host.borrow_mut().tend();
        self.drain();
        self.host.borrow().storage_statistics().sealed_memtables
    }

    /// Seals all memtables.
    fn seal(&mut self) {
        let mut host = self.host.borrow_mut();
        let now = host.clock();
        host.seal_at(now).expect("nothing fails here");
    }

    /// Flushes what is sealed.
    fn flush(&mut self) {
        loop {
            let job = self.host.borrow_mut().next_flush();
            let Some(job) = job else { break };
            let host = Rc::clone(&self.host);
            let flushed = self.scheduler.run(async {
                let made = job.run().await?;
                job.note(&made, |made| host.borrow_mut().install_flush(&job, made))
                    .await
            });
            let flushed = flushed.expect("it ends");
            self.host.borrow_mut().flush_ended(&job, &flushed);
            flushed.expect("nothing fails here");
        }
    }
}

#[test]
fn where_space_is_short_what_pins_the_log_is_sealed_if_that_gives_space_back() {
    let mut bench = Bench::new();
    bench.put(0, 1000).unwrap();
    bench.put(1, 1000).unwrap();
    bench.note_free(SHORT_BYTES);
    assert_eq!(bench.tend(), 0, "the log has taken little");
    bench.note_free(AMPLE_BYTES);
    (0..4).for_each(|_| bench.put(0, 10_000).unwrap());
    assert_eq!(bench.tend(), 0, "there is space");
    bench.note_free(SHORT_BYTES);
    assert_eq!(bench.tend(), 3, "each has an entry in the segment in use");
    assert_eq!(bench.tend(), 3, "those are on their way");
    assert_eq!(bench.log().statistics().segments, 1);
    bench.flush();
    bench.note_free(SHORT_BYTES);
    assert_eq!(bench.log().statistics().segments, 2, "the first ended early");
    bench.drain();
    bench.note_free(SHORT_BYTES);
    assert_eq!(bench.log().statistics().segments_live, 1);
    assert_eq!(bench.tend(), 0);
}

/// Longer than a session is remembered.
const LONG_US: u64 = RETRY_HORIZON_US + 2_000_000;

#[test]
fn sessions_that_keep_deletes_out_are_forgotten() {
    let mut bench = Bench::new();
    bench.delete_in_session(0);
    bench.wall_us += LONG_US;
    // Not even what the session takes could be flushed.
    bench.note_free(0);
    assert_eq!(bench.write(0, Action::Delete, None), Err(Refusal::DiskFull));
    assert_eq!(bench.sessions(), 0);
}

#[test]
fn puts_that_a_full_log_refuses_leave_its_room_to_deletes() {
    let mut bench = Bench::new();
    bench.delete_in_session(0);
    bench.wall_us += LONG_US;
    bench.disk.set_capacity_bytes(STORE_RESERVE_BYTES);
    bench.note_free(SHORT_BYTES);
    // Only the log has none any more.
    bench.note_free(AMPLE_BYTES);
    assert!(bench.log().is_disk_full());
    let records = bench.log().statistics().records;
    for _ in 0..10 {
        assert_eq!(bench.put(0, 10), Err(Refusal::DiskFull));
        bench.wall_us += 1_000_000;
    }
    assert_eq!((bench.log().statistics().records, bench.sessions()), (records, 1));
    assert_eq!(bench.write(0, Action::Delete, None), Ok(()));
}

#[test]
fn writes_under_way_that_take_all_the_memory_are_waited_for() {
    let mut bench = Bench::with_memory(32 << 10);
    let value = [7; 2000];
    let refused = (0..20).find_map(|_| bench.propose(0, put(&value), None).err());
    assert_eq!(refused, Some(Refusal::Busy), "they will be applied, and flushed");
    assert_eq!(bench.host.borrow().storage_statistics().stalled_writes, 1);
    bench.drain();
    assert!(bench.host.borrow().storage_statistics().sealed_memtables > 0);
    bench.flush();
    assert_eq!(bench.put(0, 500), Ok(()));
}

/// As if less were free than a table may need.
fn no_room() -> Result<(), StoreError> {
    Err(StoreError::NoRoom {
        path: "/data".into(),
        needed_bytes: 2,
        free_bytes: 1,
    })
}

#[test]
fn a_flush_that_finds_no_room_lets_smaller_ones_go_first() {
    let mut bench = Bench::new();
    bench.put(0, 10_000).unwrap();
    bench.put(1, 1_000).unwrap();
    bench.seal();
    let next = |bench: &Bench| {
        let mut host = bench.host.borrow_mut();
        let job = host.next_flush().expect("some are sealed");
        host.flush_ended(&job, &no_room());
        job.shard.0
    };
    let order: [_; 4] = core::array::from_fn(|_| next(&bench));
    assert_eq!(order, [0, 2, 1, 0], "the largest, then the smallest");
    bench.note_free(AMPLE_BYTES);
    assert_eq!(next(&bench), 2, "the one that was not tried for the longest time");
    // Another one has found room.
    bench.host.borrow_mut().note_store_full(false);
    assert_eq!(bench.put(2, 10), Err(Refusal::DiskFull));
    bench.note_free(SHORT_BYTES);
    bench.note_free(AMPLE_BYTES);
    bench.host.borrow_mut().note_store_full(false);
    assert_eq!(bench.put(2, 10), Ok(()));
    let first = bench.host.borrow_mut().next_flush().expect("some are sealed");
    assert_eq!(first.shard, ShardId(0));
}

#[test]
fn a_merge_that_finds_no_room_lets_others_go_first_and_then_what_gives_space_back() {
    let mut bench = Bench::new();
    for _ in 0..4 {
        for _ in 0..4 {
            bench.put(0, 5_000).unwrap();
        }
        bench.put(1, 1_000).unwrap();
        bench.seal();
        bench.flush();
    }
    bench.wall_us += 2 * RETENTION_US;
    bench.tend();
    let next = |bench: &Bench, outcome| {
        let mut host = bench.host.borrow_mut();
        let job = host.next_merge().expect("there is something to merge");
        host.merge_ended(&job, &outcome);
        (job.shard.0, job.reason())
    };
    // Shard 0 has the larger debt. Shard 1 has nothing to give back.
    let order: [_; 5] = core::array::from_fn(|_| {
        bench.note_free(AMPLE_BYTES);
        next(&bench, no_room())
    });
    let (young, droppable) = (Reason::Young, Reason::Droppable);
    assert_eq!(
        order,
        [(0, young), (1, young), (0, droppable), (1, young), (0, young)]
    );
    bench.note_free(SHORT_BYTES);
    bench.note_free(AMPLE_BYTES);
    let order: [_; 2] = core::array::from_fn(|_| next(&bench, Ok(())));
    assert_eq!(order, [(0, young), (0, young)], "as if none had failed");
}

#[test]
fn what_was_replayed_and_found_no_room_is_flushed_first_when_there_is_some() {
    let bench = Bench::new();
    let replay = |recovering: &mut Recovering, index: u64| {
        let change = Change::Delete;
        let head = Head::of_write(Timestamp(index), None, b"key", &change);
        let entry = EntryId {
            term: Term(1),
            index: LogIndex(index),
        };
        let payload = [head.as_bytes(), b"key"].concat();
        recovering
            .replay(entry, &payload)
            .expect("it follows the one before");
    };
    let data = Path::new("/other");
    let disk = MemoryDisk::new(data);
    let env = StoreEnv::in_memory(&disk, &bench.scheduler, 16 << 10, StoreOptions::default());
    let run = bench.scheduler.run(async {
        let shard = ShardId(0);
        let made = make_directories(&disk, data, core::iter::once(shard)).await;
        made.expect("nothing fails here");
        let mut recovering = Recovering::open(&env, data, shard, EntryId::default())
            .await
            .unwrap();
        replay(&mut recovering, 1);
        disk.set_free_bytes(0);
        assert_eq!(recovering.flush().await, Ok(false));
        replay(&mut recovering, 2);
        assert_eq!(recovering.flush().await, Ok(false));
        disk.set_free_bytes(AMPLE_BYTES);
        assert_eq!(recovering.flush().await, Ok(true));
        assert!(!recovering.is_flushed(), "the second came later");
        assert_eq!(recovering.flush().await, Ok(true));
        assert_eq!(
            (recovering.is_flushed(), recovering.flush().await),
            (true, Ok(false))
        );
    });
    run.expect("it ends");
}
