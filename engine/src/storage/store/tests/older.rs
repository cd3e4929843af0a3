//! Tombstones stay as long as an older version lies below them, whatever is flushed or merged meanwhile.

use ostrakon_core::lsm::{Place, Reason};

use super::*;
use crate::env::{Priority, Tasks};

/// The key whose tombstone is watched.
const HIDDEN: u32 = 500;

/// Flushes a run with these versions of the watched key, among other keys that keep a merge busy.
fn flush(
    rig: &Rig,
    shard: &Shard,
    model: &mut Model,
    hidden: Option<Content>,
    others: core::ops::Range<u32>,
) {
    let mut put = |number: u32, content: Content| {
        let timestamp = model.last() + 1;
        shard.insert(&key(number), timestamp, &content);
        model.put(&key(number), timestamp, content);
    };
    for number in others {
        put(number, (Some(noise(u64::from(number), 100)), None));
    }
    if let Some(content) = hidden {
        put(HIDDEN, content);
    }
    shard.seal(model.last(), Vec::new());
    // With nobody below, so that the flush itself drops nothing.
    rig.run(shard.flush(0)).expect("nothing fails here");
}

fn choice(shard: &Shard, inputs: impl IntoIterator<Item = TableNumber>, output: Place) -> Choice {
    let inputs: Vec<TableNumber> = inputs.into_iter().collect();
    let tables = shard.tables();
    assert!(inputs.iter().all(|number| tables.get(*number).is_some()));
    Choice {
        reason: Reason::Young,
        inputs,
        output,
        is_move: false,
    }
}

fn young(shard: &Shard, place: usize) -> Vec<TableNumber> {
    shard.tables().tree().young[place]
        .iter()
        .map(|info| info.number)
        .collect()
}

fn level(shard: &Shard, level: usize) -> Vec<TableNumber> {
    shard.tables().tree().levels[level - 1]
        .iter()
        .map(|info| info.number)
        .collect()
}

/// The versions of the watched key in all tables.
fn versions(rig: &Rig, shard: &Shard) -> Vec<Option<Vec<u8>>> {
    let walked = rig.run(walk(shard));
    let own = walked
        .0
        .into_iter()
        .filter(|((found, _), _)| *found == key(HIDDEN));
    own.map(|(_, (value, _))| value).collect()
}

/// Begins a merge, and flushes another run before it has ended.
fn merge_while_flushing(rig: &Rig, shard: &Rc<Shard>, model: &mut Model, choice: Choice) {
    let watermark = model.last();
    let is_done = Rc::new(Cell::new(false));
    let (merging, done) = (Rc::clone(shard), Rc::clone(&is_done));
    let merge = async move {
        let merged = merging.merge(&choice, watermark, &|| true).await;
        assert!(merged.expect("nothing fails here"), "it is wanted");
        done.set(true);
    };
    rig.scheduler.spawn(Priority::Background, Box::pin(merge));
    flush(rig, shard, model, None, 450..452);
    assert!(!is_done.get(), "the flush came first");
    rig.scheduler.settle();
    assert!(is_done.get());
    rig.run(shard.assert_is(model, watermark));
}

#[test]
fn levels_keep_a_tombstone_above_what_it_hides() {
    let rig = Rig::new(options(CompactionStrategy::Leveled));
    let shard = rig.open().expect("it is new");
    let mut model = Model::default();
    flush(
        &rig,
        &shard,
        &mut model,
        Some((Some(b"old".to_vec()), None)),
        400..420,
    );
    let down = choice(&shard, young(&shard, 0), Place::Level(6));
    rig.run(shard.merge(&down, model.last(), &|| true))
        .expect("nothing fails here");
    flush(&rig, &shard, &mut model, Some((None, None)), 300..400);
    // Into a level above, beside nothing that has the key.
    let down = choice(&shard, young(&shard, 0), Place::Level(5));
    merge_while_flushing(&rig, &shard, &mut model, down);
    assert_eq!(versions(&rig, &shard), [None, Some(b"old".to_vec())]);
    // What was flushed meanwhile goes between, and has no say.
    let down = choice(&shard, young(&shard, 0), Place::Level(4));
    rig.run(shard.merge(&down, model.last(), &|| true))
        .expect("nothing fails here");
    // Onto what it hides: both go.
    let down = choice(
        &shard,
        [level(&shard, 5), level(&shard, 6)].concat(),
        Place::Level(6),
    );
    merge_while_flushing(&rig, &shard, &mut model, down);
    assert!(versions(&rig, &shard).is_empty());
}

#[test]
fn young_runs_keep_a_tombstone_above_what_it_hides() {
    let rig = Rig::new(options(CompactionStrategy::Tiered));
    let shard = rig.open().expect("it is new");
    let mut model = Model::default();
    flush(
        &rig,
        &shard,
        &mut model,
        Some((Some(b"old".to_vec()), None)),
        400..420,
    );
    flush(&rig, &shard, &mut model, None, 200..300);
    flush(&rig, &shard, &mut model, Some((None, None)), 300..400);
    // The two newer ones; a newer one still comes meanwhile, so that all places shift.
    let newer = choice(
        &shard,
        [young(&shard, 0), young(&shard, 1)].concat(),
        Place::Young,
    );
    merge_while_flushing(&rig, &shard, &mut model, newer);
    assert_eq!(versions(&rig, &shard), [None, Some(b"old".to_vec())]);
    assert_eq!(
        shard.tables().tree().young.len(),
        3,
        "the one that came, the merged one, the oldest"
    );
    let all = choice(
        &shard,
        [young(&shard, 1), young(&shard, 2)].concat(),
        Place::Young,
    );
    merge_while_flushing(&rig, &shard, &mut model, all);
    assert!(versions(&rig, &shard).is_empty());
}

#[test]
fn a_flush_keeps_a_tombstone_above_what_it_hides_only() {
    let rig = Rig::new(options(CompactionStrategy::Tiered));
    let shard = rig.open().expect("it is new");
    let mut model = Model::default();
    flush(
        &rig,
        &shard,
        &mut model,
        Some((Some(b"old".to_vec()), None)),
        400..420,
    );
    for (number, kept) in [(HIDDEN, true), (HIDDEN + 1, false)] {
        let timestamp = model.last() + 1;
        shard.insert(&key(number), timestamp, &(None, None));
        model.put(&key(number), timestamp, (None, None));
        shard.seal(timestamp, Vec::new());
        let runs = shard.tables().tree().young.len();
        rig.run(shard.flush(timestamp)).expect("nothing fails here");
        assert_eq!(shard.tables().tree().young.len(), runs + usize::from(kept));
        assert_eq!(
            shard.flushed.get(),
            entry(timestamp),
            "even if nothing was written"
        );
        rig.run(shard.assert_is(&model, timestamp));
    }
    rig.assert_no_orphans(&shard);
    assert_eq!(
        rig.open().expect("the files are whole").flushed.get(),
        entry(model.last())
    );
}
