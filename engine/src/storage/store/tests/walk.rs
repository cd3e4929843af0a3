//! Walks over all versions, in memory and in tables.

use super::*;

/// All versions of users' keys and all range tombstones, found by walks over each source; versions of a key must be
/// newer the newer the source.
pub(super) async fn walk(shard: &Shard) -> Model {
    let mut sources = memory_sources(&shard.store.borrow());
    let mut ranges = memory_ranges(&shard.store.borrow());
    for run in shard.tables().runs() {
        let (mut source, mut deleted) = (Vec::new(), Vec::new());
        for open in run {
            source.extend(walk_table(&open.table).await);
            for tombstone in open.table.ranges().iter() {
                let is_within = *open.info.smallest <= *tombstone.start
                    && !open.info.extent().ends_before(&tombstone.start)
                    && tombstone.end.as_deref() <= Some(&*open.info.largest);
                assert!(is_within, "{tombstone:?} of {:?}", open.info);
                deleted.push(users_range(tombstone));
            }
        }
        source.retain(|(key, _)| key[0] != OWN);
        for (key, _) in &mut source {
            *key = users_key(key).expect("a user's").to_vec();
        }
        sources.push(source);
        ranges.push(deleted);
    }
    let mut walked = Model::default();
    let mut oldest = BTreeMap::new();
    let keys: BTreeSet<Vec<u8>> = sources.iter().flatten().map(|(key, _)| key.clone()).collect();
    for (source, ranges) in sources.into_iter().zip(ranges) {
        let place = |(key, (timestamp, _)): &(Vec<u8>, (u64, Content))| (key.clone(), Reverse(*timestamp));
        assert!(
            source.is_sorted_by(|one, other| place(one) < place(other)),
            "in order"
        );
        let here = Model(BTreeMap::new(), ranges);
        let mut all: Vec<(Vec<u8>, u64)> = source.iter().map(|(key, (at, _))| (key.clone(), *at)).collect();
        all.extend(
            keys.iter()
                .flat_map(|key| here.deleted(key).map(|timestamp| (key.clone(), timestamp))),
        );
        let above = oldest.clone();
        for (key, timestamp) in all {
            let is_older = above.get(&key).is_none_or(|above| timestamp < *above);
            assert!(is_older, "{key:?}: {timestamp} lies below {:?}", above.get(&key));
            let lowest = oldest.entry(key).or_insert(timestamp);
            *lowest = timestamp.min(*lowest);
        }
        for (key, (timestamp, content)) in source {
            walked.put(&key, timestamp, content);
        }
        walked.1.extend(here.1);
    }
    walked
}

/// Of each memtable, from the newest to the oldest.
fn memory_ranges(store: &Store) -> Vec<Vec<RangeDelete>> {
    let sets = store.memtables().map(Memtable::ranges);
    sets.map(|set| set.iter().map(range).collect()).collect()
}

fn range(tombstone: &RangeTombstone) -> RangeDelete {
    let end = tombstone.end.as_deref().map(<[u8]>::to_vec);
    (tombstone.start.to_vec(), end, tombstone.timestamp.0)
}

/// A range tombstone of a table, in users' keys.
fn users_range(tombstone: &RangeTombstone) -> RangeDelete {
    let (start, end, timestamp) = range(tombstone);
    let users = |key: Vec<u8>| users_key(&key).map(<[u8]>::to_vec);
    (users(start).expect("a user's"), end.and_then(users), timestamp)
}

/// A source of versions, in order.
pub(super) type Source = Vec<(Vec<u8>, (u64, Content))>;

pub(super) fn memory_sources(store: &Store) -> Vec<Source> {
    let forwards = store.cursors(&[]).map(|mut cursor| {
        let mut source = Source::new();
        while let Some(key) = cursor.key() {
            source.extend(cursor.versions().map(|version| (key.to_vec(), owned(&version))));
            cursor.advance();
        }
        source
    });
    let backwards = store.cursors_below(None).map(|mut cursor| {
        let mut keys = Vec::new();
        while let Some(key) = cursor.key() {
            keys.insert(0, key.to_vec());
            cursor.retreat();
        }
        keys
    });
    let sources: Vec<Source> = forwards.collect();
    for (source, keys) in sources.iter().zip(backwards) {
        let mut own: Vec<Vec<u8>> = source.iter().map(|(key, _)| key.clone()).collect();
        own.dedup();
        assert_eq!(own, keys);
    }
    sources
}

/// All versions of a table, forwards past the cache, and backwards through it.
pub(super) async fn walk_table(table: &Rc<Table>) -> Source {
    let mut forwards = Source::new();
    let mut cursor = TableCursor::new(Rc::clone(table), Access::Bypass);
    cursor.seek_to_first().expect("the table is whole");
    cursor.settle().await.expect("the table is whole");
    while cursor.is_valid() {
        forwards.push((cursor.key().to_vec(), owned(&cursor.version())));
        cursor.next().expect("the table is whole");
        cursor.settle().await.expect("the table is whole");
    }
    let mut backwards = Source::new();
    let mut cursor = TableCursor::new(Rc::clone(table), Access::Cached);
    cursor.seek_to_last().expect("the table is whole");
    cursor.settle().await.expect("the table is whole");
    while cursor.is_valid() {
        backwards.push((cursor.key().to_vec(), owned(&cursor.version())));
        cursor.previous().expect("the table is whole");
        cursor.settle().await.expect("the table is whole");
    }
    backwards.reverse();
    assert_eq!(forwards, backwards);
    forwards
}

/// Holds tables against what they had when they were handed out.
pub(super) async fn assert_tables_are(tables: &Tables, model: &Model, watermark: u64) {
    let mut stored = Vec::new();
    for key in &model.keys() {
        stored_key(&mut stored, key);
        for snapshot in (watermark..=model.last()).chain([u64::MAX]) {
            let found = tables.find(&stored, xxh3_64(key), Timestamp(snapshot)).await;
            let found = found.expect("the tables are whole");
            model.assert_allows(key, snapshot, found.map(|found| owned(&found.version())).as_ref());
        }
    }
}
