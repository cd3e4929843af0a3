//! A shard whose machine or program dies at each operation of the disk, and what is there afterwards.

use super::*;
use crate::env::Disk;
use crate::env::testing::memory_disk::Fate;

/// How the shard ends.
#[derive(Clone, Copy, Debug)]
enum Death {
    /// The program; the machine goes on.
    Kill,
    /// The power fails; do names survive that were not synced?
    PowerLoss { names_survive: bool },
}

/// What a death leaves of a record of the manifest that is being written.
#[derive(Clone, Copy, Debug)]
enum Record {
    Lost,
    Whole,
    /// Seen, but lost at the next power loss.
    Cached,
    /// The first sector only.
    Torn,
}

impl Record {
    fn fate(self) -> Fate {
        match self {
            Record::Lost => Fate::Lost,
            Record::Whole => Fate::Whole,
            Record::Cached => Fate::Cached,
            Record::Torn => Fate::Sectors(Box::new(|sector| sector == 0)),
        }
    }
}

/// What was written, and how far it got.
#[derive(Default)]
struct Written {
    model: RefCell<Model>,
    own: RefCell<BTreeMap<u64, Own>>,
    /// Through where each flush went, in order, from the moment at which it began.
    flushes: RefCell<Vec<EntryId>>,
    /// So many of them have ended.
    noted: Cell<usize>,
    watermark: Cell<u64>,
    /// Numbers of all tables that readers ever had.
    numbers: RefCell<BTreeSet<TableNumber>>,
}

impl Written {
    fn new() -> Written {
        let written = Written::default();
        written.own.borrow_mut().insert(0, Own::new());
        written
    }

    /// Writes, flushes and merges: several tables, in several levels, with versions that go.
    async fn work(&self, shard: &Shard, rounds: u64) -> Result<(), StoreError> {
        for round in 0..rounds {
            for number in 0..12 {
                self.put(shard, number);
            }
            let index = self.model.borrow().last();
            let record = vec![round as u8; 20];
            let mut own = self
                .own
                .borrow()
                .last_key_value()
                .expect("there is a first")
                .1
                .clone();
            own.insert(vec![OWN, b'S'], record.clone());
            self.own.borrow_mut().insert(index, own);
            shard.seal(index, vec![(vec![OWN, b'S'], Some(record))]);
            self.flushes.borrow_mut().push(entry(index));
            shard.flush(self.watermark.get()).await?;
            self.noted.set(self.flushes.borrow().len());
            self.note_numbers(shard);
            self.watermark.set(index - 6);
            while let Some(choice) = shard.pick(self.watermark.get()) {
                shard.merge(&choice, self.watermark.get(), &|| true).await?;
                self.note_numbers(shard);
            }
            shard.files.remove_obsolete().await?;
        }
        Ok(())
    }

    fn put(&self, shard: &Shard, number: u32) {
        let mut model = self.model.borrow_mut();
        let timestamp = model.last() + 1;
        let is_deleted = timestamp.is_multiple_of(5);
        let content = ((!is_deleted).then(|| noise(timestamp, 200)), None);
        shard.insert(&key(number), timestamp, &content);
        model.put(&key(number), timestamp, content);
    }

    fn note_numbers(&self, shard: &Shard) {
        let tables = shard.tables();
        let numbers = tables.tree().tables().map(|info| info.number);
        self.numbers.borrow_mut().extend(numbers);
    }

    /// The shard has what was written up to a flush: the last one that ended, or the one under way.
    fn assert_recovered(&self, rig: &Rig, shard: &Shard, context: &str) {
        rig.assert_no_orphans(shard);
        let found = shard.flushed.get();
        let flushes = self.flushes.borrow();
        let noted = self
            .noted
            .get()
            .checked_sub(1)
            .map_or(entry(0), |place| flushes[place]);
        let is_noted = found.index == noted.index || flushes.get(self.noted.get()) == Some(&found);
        assert!(is_noted, "{context}: through {found:?}, expected {noted:?}");
        let model = self.model.borrow().through(found.index.0);
        rig.run(shard.assert_is(&model, self.watermark.get()));
        assert_eq!(
            rig.run(shard.own()),
            self.own.borrow()[&found.index.0],
            "{context}"
        );
    }

    /// Forgets what did not last.
    fn forget(&self, flushed: EntryId) {
        let kept = self.model.borrow().through(flushed.index.0);
        *self.model.borrow_mut() = kept;
        self.own.borrow_mut().retain(|index, _| *index <= flushed.index.0);
        self.flushes
            .borrow_mut()
            .retain(|through| through.index <= flushed.index);
        self.noted.set(self.flushes.borrow().len());
    }
}

/// Dies at this operation, counted from the opening; false if the work ends before.
fn die_at(operation: u64, strategy: CompactionStrategy, death: Death, record: Record) -> bool {
    let context = format!("{strategy:?}, operation {operation}, {death:?}, {record:?}");
    let rig = Rig::new(options(strategy));
    let written = Written::new();
    rig.memory.freeze_at(rig.memory.operations() + operation);
    let ended = rig.scheduler.run(async {
        let opened = ShardFiles::open(&rig.env(), Rig::data(), SHARD).await;
        let shard = Shard::of(opened.expect("nothing fails here"));
        written.work(&shard, 4).await.expect("nothing fails here");
        written.watermark.set(written.model.borrow().last());
        shard
            .merge_all(written.watermark.get())
            .await
            .expect("nothing fails here");
        shard
            .files
            .close(&shard.tables())
            .await
            .expect("nothing fails here");
    });
    if ended.is_some() {
        return false;
    }
    rig.memory.freeze_at(u64::MAX);
    match death {
        Death::Kill => {}
        Death::PowerLoss { names_survive } => rig.memory.power_loss(names_survive, |_| record.fate()),
    }
    let shard = rig.open().unwrap_or_else(|error| panic!("{context}: {error}"));
    written.assert_recovered(&rig, &shard, &context);
    // It goes on from there, with numbers that no table had, and then the power fails.
    written.forget(shard.flushed.get());
    let before = written.numbers.borrow().clone();
    let own: BTreeSet<TableNumber> = shard.tables().tree().tables().map(|info| info.number).collect();
    written.numbers.borrow_mut().clear();
    rig.run(written.work(&shard, 1)).expect("nothing fails here");
    let is_new =
        |number: &TableNumber| own.contains(number) || before.last().is_none_or(|last| number > last);
    assert!(
        written.numbers.borrow().iter().all(is_new),
        "{context}: a number is used again"
    );
    rig.memory.power_loss(false, |_| Fate::Lost);
    let shard = rig
        .open()
        .unwrap_or_else(|error| panic!("{context}, again: {error}"));
    written.assert_recovered(&rig, &shard, &format!("{context}, again"));
    true
}

fn die_everywhere(strategy: CompactionStrategy) {
    let records = [Record::Lost, Record::Whole, Record::Cached, Record::Torn];
    let mut deaths = vec![(Death::Kill, Record::Lost)];
    for names_survive in [false, true] {
        deaths.extend(records.map(|record| (Death::PowerLoss { names_survive }, record)));
    }
    for (death, record) in deaths {
        let mut operation = 0;
        while die_at(operation, strategy, death, record) {
            operation += 1;
        }
        assert!(operation > 100, "{operation} operations");
    }
}

#[test]
fn a_leveled_shard_dies_at_each_operation_and_keeps_what_was_flushed() {
    die_everywhere(CompactionStrategy::Leveled);
}

#[test]
fn a_tiered_shard_dies_at_each_operation_and_keeps_what_was_flushed() {
    die_everywhere(CompactionStrategy::Tiered);
}

#[test]
fn numbers_are_not_used_again_when_the_last_tables_are_gone() {
    let rig = Rig::new(options(CompactionStrategy::Leveled));
    let shard = rig.open().expect("it is new");
    let flush = |shard: &Shard, timestamp: u64, value: Option<Vec<u8>>| {
        shard.insert(&key(1), timestamp, &(value, None));
        shard.seal(timestamp, Vec::new());
        rig.run(shard.flush(0)).expect("nothing fails here");
        let tables = shard.tables();
        tables.tree().young[0][0].number
    };
    flush(&shard, 1, Some(b"value".to_vec()));
    let last = flush(&shard, 2, None);
    rig.run(shard.merge_all(2)).expect("nothing fails here");
    assert!(shard.tables().runs().is_empty(), "a tombstone and what it hid");
    rig.assert_no_orphans(&shard);
    rig.memory.power_loss(true, |_| Fate::Lost);
    let shard = rig.open().expect("the files are whole");
    assert!(flush(&shard, 3, Some(b"value".to_vec())) > last);
}

#[test]
fn directories_last_even_if_who_made_them_died() {
    let shards = || [ShardId(0), ShardId(5)].into_iter();
    for operation in 0.. {
        let memory = MemoryDisk::new(Rig::data());
        let scheduler = Scheduler::default();
        memory.freeze_at(operation);
        if scheduler
            .run(make_directories(&memory, Rig::data(), shards()))
            .is_some()
        {
            assert!(operation > 3);
            break;
        }
        memory.freeze_at(u64::MAX);
        let made = scheduler.run(make_directories(&memory, Rig::data(), shards()));
        made.expect("it ends").expect("nothing fails here");
        memory.power_loss(false, |_| Fate::Lost);
        for shard in shards() {
            let directory = shard_directory(Rig::data(), shard);
            let listed = scheduler.run(memory.list(&directory)).expect("it ends");
            listed.unwrap_or_else(|error| panic!("operation {operation}, {shard:?}: {error}"));
        }
    }
}
