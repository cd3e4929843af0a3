//! The engine inside a program: what its calls do, from threads and on its cores, over restarts and with more data than
//! memory.

#![allow(
    clippy::disallowed_methods,
    reason = "a program that embeds an engine has threads of its own"
)]

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use ostrakon::embedded::Value;
use ostrakon::env::local::Notify;
use ostrakon::env::tasks::yield_now;
use ostrakon::{
    Action, Batch, BatchOperation, Condition, CoreEngine, Engine, EngineError, EngineOptions, ScanOptions,
};
use ostrakon_wire::message::ErrorCode;

fn options(directory: &Path) -> EngineOptions {
    EngineOptions {
        cores: Some(2),
        memory_bytes: Some(64 << 20),
        ..EngineOptions::new(directory)
    }
}

fn directory() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("embedded")
        .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
        .unwrap()
}

fn content(engine: &Engine, options: &ScanOptions) -> Vec<(Vec<u8>, Vec<u8>)> {
    let entries = engine.scan(options).unwrap();
    entries
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.key, entry.value))
        .collect()
}

#[test]
fn what_was_written_is_there_after_a_restart() {
    let directory = directory();
    let engine = Engine::open_with(options(directory.path())).unwrap();
    assert_eq!(engine.cores(), 2);
    assert_eq!(engine.get(b"k").unwrap(), None);
    let first = engine.put(b"k", b"1").unwrap();
    let second = engine.put(b"k", b"2").unwrap();
    assert!(second > first);
    let value = engine.get(b"k").unwrap().unwrap();
    assert_eq!(
        (&*value, value.version(), value.expires()),
        (&b"2"[..], second, 0)
    );
    engine.put(b"gone", b"x").unwrap();
    engine.delete(b"gone").unwrap();
    assert_eq!(engine.get(b"gone").unwrap(), None);
    engine.close().unwrap();

    let engine = Engine::open_with(options(directory.path())).unwrap();
    assert_eq!(
        engine.get(b"k").unwrap().map(Value::into_bytes),
        Some(b"2".to_vec())
    );
    assert_eq!(
        content(&engine, &ScanOptions::all()),
        [(b"k".to_vec(), b"2".to_vec())]
    );
    // Dropped, it is closed too.
    drop(engine);
    let engine = Engine::open_with(EngineOptions {
        cores: Some(1),
        ..options(directory.path())
    });
    assert_eq!(&*engine.unwrap().get(b"k").unwrap().unwrap(), b"2");
}

#[test]
fn conditions_batches_and_sums_are_decided_as_for_clients() {
    let directory = directory();
    let engine = Engine::open_with(options(directory.path())).unwrap();
    let version = engine.put_if(b"lock", b"a", Condition::Absent).unwrap();
    let failed = engine.put_if(b"lock", b"b", Condition::Absent).unwrap_err();
    assert!(
        matches!(failed, EngineError::ConditionFailed { version: found, operation: 0 } if found == version),
        "{failed}"
    );
    engine.put_if(b"lock", b"b", Condition::Version(version)).unwrap();

    let mut batch = Batch::new();
    batch.put(b"{t}a", b"1").add(b"{t}n", 5).delete(b"{t}b");
    assert_eq!(engine.batch(&batch).unwrap().numbers, [5]);
    assert_eq!(engine.batch(&batch).unwrap().numbers, [10]);
    batch.push(b"{t}c", Action::Check, Condition::Present);
    let failed = engine.batch(&batch).unwrap_err();
    assert!(
        matches!(
            failed,
            EngineError::ConditionFailed {
                version: 0,
                operation: 3
            }
        ),
        "{failed}"
    );
    assert_eq!(&*engine.get(b"{t}n").unwrap().unwrap(), b"10");

    let mut sums = Batch::new();
    sums.add(b"{t}a", i64::MAX);
    assert!(matches!(
        engine.batch(&sums),
        Err(EngineError::NumberOverflow { operation: 0 })
    ));
    let mut sums = Batch::new();
    sums.add(b"lock", 1);
    assert!(matches!(
        engine.batch(&sums),
        Err(EngineError::NotANumber { operation: 0 })
    ));

    let prefix = content(&engine, &ScanOptions::prefix(b"{t}"));
    assert_eq!(
        prefix,
        [
            (b"{t}a".to_vec(), b"1".to_vec()),
            (b"{t}n".to_vec(), b"10".to_vec())
        ]
    );
}

#[test]
fn a_range_is_deleted_in_all_shards() {
    let directory = directory();
    let engine = Engine::open_with(options(directory.path())).unwrap();
    for number in 0..200_u8 {
        engine.put(&[number], b"x").unwrap();
    }
    let version = engine.delete_range(&[50], Some(&[150])).unwrap();
    let keys = |engine: &Engine| -> Vec<u8> {
        let content = content(engine, &ScanOptions::all());
        content.into_iter().map(|(key, _)| key[0]).collect()
    };
    assert_eq!(keys(&engine), (0..50).chain(150..200).collect::<Vec<u8>>());
    assert_eq!(engine.get(&[100]).unwrap(), None);
    assert!(engine.put(&[100], b"y").unwrap() > version);
    let end = engine.run(1, |local| async move { local.delete_range(&[160], None).await });
    end.unwrap().unwrap();
    assert_eq!(
        keys(&engine),
        (0..50).chain([100]).chain(150..160).collect::<Vec<u8>>()
    );
    assert!(matches!(
        engine.delete_range(&[2], Some(&[2])),
        Err(EngineError::Invalid(_))
    ));
}

#[test]
fn what_breaks_a_limit_is_refused_in_words() {
    let directory = directory();
    let engine = Engine::open_with(options(directory.path())).unwrap();
    let refused = engine.put(b"", b"x").unwrap_err();
    assert!(matches!(refused, EngineError::Invalid(_)), "{refused}");
    assert!(matches!(engine.get(&[0; 9000]), Err(EngineError::Invalid(_))));
    assert!(matches!(
        engine.batch(&Batch::new()),
        Err(EngineError::Invalid(_))
    ));
    let mut twice = Batch::new();
    twice.put(b"a", b"1").delete(b"a");
    assert!(matches!(engine.batch(&twice), Err(EngineError::Invalid(_))));
    let mut scattered = Batch::new();
    for key in 0..32_u8 {
        scattered.put(&[key], b"x");
    }
    assert!(matches!(engine.batch(&scattered), Err(EngineError::NotOneShard)));
    let ahead = ScanOptions {
        snapshot: u64::MAX,
        ..ScanOptions::all()
    };
    let refused = engine.scan(&ahead).unwrap().next().unwrap().unwrap_err();
    assert!(
        matches!(
            refused,
            EngineError::Refused {
                code: ErrorCode::TimestampAhead,
                ..
            }
        ),
        "{refused}"
    );
    // One process, and one engine of it, has a directory.
    let second = Engine::open_with(options(directory.path())).unwrap_err();
    assert!(matches!(second, EngineError::Open(_)), "{second}");
    assert!(!second.is_outcome_unknown() && !second.is_busy());
}

#[test]
fn a_value_that_expires_is_gone_for_gets_and_scans() {
    let directory = directory();
    let engine = Engine::open_with(options(directory.path())).unwrap();
    engine
        .put_expiring(b"short", b"x", Duration::from_millis(1))
        .unwrap();
    engine
        .put_expiring(b"long", b"y", Duration::from_hours(1))
        .unwrap();
    while engine.get(b"short").unwrap().is_some() {}
    let value = engine.get(b"long").unwrap().unwrap();
    assert!(value.expires() > value.version());
    let keys: Vec<_> = content(&engine, &ScanOptions::all())
        .into_iter()
        .map(|(key, _)| key)
        .collect();
    assert_eq!(keys, [b"long".to_vec()]);
}

#[test]
fn threads_and_cores_see_each_others_writes() {
    const THREADS: usize = 8;
    const ROUNDS: usize = 200;
    let directory = directory();
    let engine = Engine::open_with(options(directory.path())).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let engine = &engine;
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let key = format!("thread {thread} round {round}");
                    engine.put(key.as_bytes(), key.as_bytes()).unwrap();
                    assert_eq!(&*engine.get(key.as_bytes()).unwrap().unwrap(), key.as_bytes());
                    let mut sum = Batch::new();
                    sum.add(b"counter", 1);
                    engine.batch(&sum).unwrap();
                }
            });
        }
        // On each core at the same time: keys of both.
        for core in 0..2 {
            let engine = &engine;
            scope.spawn(move || {
                let task = engine.run(core, move |local| async move {
                    assert_eq!(local.core(), core);
                    for round in 0..ROUNDS {
                        let key = format!("core {core} round {round}");
                        local.put(key.as_bytes(), b"v").await.unwrap();
                        let length = local.read(key.as_bytes(), |found| found.map(|found| found.value.len()));
                        assert_eq!(length.await.unwrap(), Some(1));
                        local.yield_if_due().await;
                        if round % 2 == 0 {
                            local.delete(key.as_bytes()).await.unwrap();
                            assert_eq!(local.get(key.as_bytes()).await.unwrap(), None);
                        }
                        let operation = BatchOperation {
                            key: b"counter",
                            action: Action::Add { delta: 1, ttl_ms: 0 },
                            condition: Condition::None,
                        };
                        local.write(&[operation]).await.unwrap();
                    }
                });
                task.unwrap();
            });
        }
    });
    let counter = engine.get(b"counter").unwrap().unwrap();
    assert_eq!(&*counter, ((THREADS + 2) * ROUNDS).to_string().as_bytes());
    let all = content(&engine, &ScanOptions::all());
    assert_eq!(all.len(), 1 + THREADS * ROUNDS + 2 * ROUNDS / 2);
    assert!(all.windows(2).all(|pair| pair[0].0 < pair[1].0));
}

fn key(number: u32) -> Vec<u8> {
    format!("key {number:08}").into_bytes()
}

fn value(number: u32) -> Vec<u8> {
    vec![number as u8; 500 + number as usize % 100]
}

/// Writes so many keys, 32 at a time on each core.
fn load(engine: &Engine, keys: u32) {
    for core in 0..2 {
        let load = engine.run(core, move |local| async move {
            let numbers: Vec<u32> = (0..keys)
                .filter(|number| local.owner(&key(*number)) == core)
                .collect();
            let numbers = Rc::new(RefCell::new(numbers.into_iter()));
            let writers = Rc::new(Cell::new(32));
            let ended = Rc::new(Notify::default());
            for _ in 0..writers.get() {
                let (local, numbers, writers, ended) = (
                    local.clone(),
                    Rc::clone(&numbers),
                    Rc::clone(&writers),
                    Rc::clone(&ended),
                );
                local.clone().spawn(async move {
                    while let Some(number) = { numbers.borrow_mut().next() } {
                        put_with_patience(&local, &key(number), &value(number)).await;
                    }
                    writers.set(writers.get() - 1);
                    ended.notify();
                });
            }
            while writers.get() > 0 {
                ended.notified().await;
            }
        });
        load.unwrap();
    }
}

#[test]
fn data_beyond_memory_is_read_and_scanned_from_tables() {
    const KEYS: u32 = 60_000;
    let directory = directory();
    let small = EngineOptions {
        memory_bytes: Some(16 << 20),
        ..options(directory.path())
    };
    let engine = Engine::open_with(small.clone()).unwrap();
    load(&engine, KEYS);
    engine.close().unwrap();

    let engine = Engine::open_with(small).unwrap();
    for number in (0..KEYS).step_by(97) {
        assert_eq!(
            &*engine.get(&key(number)).unwrap().unwrap(),
            value(number),
            "key {number}"
        );
        assert_eq!(engine.get(&[&key(number), &b"!"[..]].concat()).unwrap(), None);
    }
    let entries = engine.scan(&ScanOptions::all()).unwrap();
    let mut count = 0;
    for (number, entry) in entries.enumerate() {
        let entry = entry.unwrap();
        assert_eq!(
            (entry.key, entry.value),
            (key(number as u32), value(number as u32))
        );
        count += 1;
    }
    assert_eq!(count, KEYS);
    let backward = ScanOptions {
        reverse: true,
        keys_only: true,
        page_entries: 10,
        ..ScanOptions::range(&key(100), &key(1000))
    };
    let keys: Vec<_> = engine
        .scan(&backward)
        .unwrap()
        .map(|entry| entry.unwrap().key)
        .collect();
    assert_eq!(keys, (100..1000).rev().map(key).collect::<Vec<_>>());
}

/// Writes, and again while memtables wait to be flushed.
async fn put_with_patience(local: &CoreEngine, key: &[u8], value: &[u8]) {
    loop {
        match local.put(key, value).await {
            Ok(_) => return,
            Err(error) if error.is_busy() => yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}
