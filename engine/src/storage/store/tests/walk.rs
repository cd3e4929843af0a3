//! Walks over all versions, in memory and in tables.

use super::*;

/// All versions of users' keys, found by walks over each source; versions of a key must be newer the newer the source.
pub(super) async fn walk(shard: &Shard) -> Model {
    let mut sources = memory_sources(&shard.store.borrow());
    for run in shard.tables().runs() {
        let mut source = Vec::new();
        for open in run {
            source.extend(walk_table(&open.table).await);
        }
        source.retain(|(key, _)| key[0] != OWN);
        for (key, _) in &mut source {
            *key = users_key(key).expect("a user's").to_vec();
        }
        sources.push(source);
    }
    let mut walked = Model::default();
    let mut oldest = BTreeMap::new();
    for source in sources {
        let place = |(key, (timestamp, _)): &(Vec<u8>, (u64, Content))| (key.clone(), Reverse(*timestamp));
        assert!(
            source.is_sorted_by(|one, other| place(one) < place(other)),
            "in order"
        );
        let mut here = oldest.clone();
        for (key, (timestamp, content)) in source {
            let is_older = oldest.get(&key).is_none_or(|above| timestamp < *above);
            assert!(is_older, "{key:?}: {timestamp} lies below {:?}", oldest.get(&key));
            here.insert(key.clone(), timestamp);
            walked.put(&key, timestamp, content);
        }
        oldest = here;
    }
    walked
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
