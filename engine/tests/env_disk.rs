//! The disk of the real environment: exact reads, durable writes, buffers, directories, handles.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests stand on both sides of the seam"
)]

mod support;

use std::fs;
use std::io;
use std::pin::Pin;
use std::rc::Rc;

use ostrakon::env::disk::BLOCK_BYTES;
use ostrakon::env::glommio::{DiskError, RuntimeConfig};
use ostrakon::env::{Env, File, OpenMode};
use support::{numbered_blocks, open_flags, run_with_files, try_run};

const BLOCK: u64 = BLOCK_BYTES as u64;

fn kind<T>(result: io::Result<T>) -> io::ErrorKind {
    match result {
        Ok(_) => panic!("it should fail"),
        Err(error) => error.kind(),
    }
}

#[test]
fn what_is_written_is_read_back_through_other_handles() {
    run_with_files(|env, directory| async move {
        let path = directory.join("file");
        let file = env.disk.open(&path, OpenMode::CreateNew).await.unwrap();
        assert_eq!(file.len_bytes(), 0);
        file.write_at(numbered_blocks(&env, 1, 4), 0).await.unwrap();
        assert_eq!(file.len_bytes(), 4 * BLOCK);
        file.sync().await.unwrap();
        file.close().await.unwrap();

        let file = env.disk.open(&path, OpenMode::Read).await.unwrap();
        assert_eq!(file.len_bytes(), 4 * BLOCK);
        let read = file.read_at(BLOCK, 2 * BLOCK_BYTES).await.unwrap();
        assert_eq!(read.bytes().len(), 2 * BLOCK_BYTES);
        assert!(read.bytes()[..BLOCK_BYTES].iter().all(|byte| *byte == 2));
        assert!(read.bytes()[BLOCK_BYTES..].iter().all(|byte| *byte == 3));
        let refused = file.write_at(numbered_blocks(&env, 1, 1), 0).await.unwrap_err();
        let inner = refused
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<DiskError>())
            .unwrap();
        assert_eq!(inner.source.raw_os_error(), Some(libc::EBADF), "{refused}");
        file.close().await.unwrap();
    });
}

#[test]
fn a_read_past_the_end_is_an_error_even_for_the_last_byte() {
    run_with_files(|env, directory| async move {
        let path = directory.join("file");
        let file = env.disk.open(&path, OpenMode::CreateNew).await.unwrap();
        assert_eq!(
            kind(file.read_at(0, BLOCK_BYTES).await),
            io::ErrorKind::UnexpectedEof
        );
        file.write_at(numbered_blocks(&env, 1, 2), 0).await.unwrap();
        assert_eq!(file.read_at(BLOCK, BLOCK_BYTES).await.unwrap().bytes()[0], 2);
        let error = file
            .read_at(BLOCK, 2 * BLOCK_BYTES)
            .await
            .map(|_| ())
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        let inner = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<DiskError>())
            .unwrap();
        assert_eq!(
            (inner.operation, &inner.path, inner.offset),
            ("read", &path, Some(BLOCK))
        );
        assert_eq!(
            inner.source.to_string(),
            "the file has 8192 bytes, 12288 are needed"
        );
        file.close().await.unwrap();

        // A length that isn't whole blocks, as only a foreign program leaves it.
        fs::write(&path, vec![7; BLOCK_BYTES + 100]).unwrap();
        let file = env.disk.open(&path, OpenMode::Read).await.unwrap();
        assert_eq!(file.len_bytes(), BLOCK + 100);
        assert_eq!(
            kind(file.read_at(BLOCK, BLOCK_BYTES).await),
            io::ErrorKind::UnexpectedEof
        );
        assert_eq!(
            file.read_at(0, BLOCK_BYTES).await.unwrap().bytes(),
            &[7; BLOCK_BYTES]
        );
        file.close().await.unwrap();
    });
}

#[test]
fn a_file_cut_behind_our_back_ends_in_an_error_and_not_in_stale_bytes() {
    run_with_files(|env, directory| async move {
        let path = directory.join("file");
        let file = env.disk.open(&path, OpenMode::CreateNew).await.unwrap();
        file.write_at(numbered_blocks(&env, 1, 4), 0).await.unwrap();
        fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(2 * BLOCK)
            .unwrap();
        let error = file.read_at(0, 4 * BLOCK_BYTES).await.map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert!(
            error.to_string().contains("it stopped after 8192 of 16384 bytes"),
            "{error}"
        );
        file.close().await.unwrap();
    });
}

#[test]
fn open_modes_set_the_flags_that_durability_rests_on() {
    run_with_files(|env, directory| async move {
        let path = directory.join("file");
        let file = env.disk.open(&path, OpenMode::CreateNew).await.unwrap();
        let flags = open_flags(&path);
        assert_eq!(
            flags & (libc::O_DIRECT | libc::O_DSYNC),
            libc::O_DIRECT,
            "{flags:o}"
        );
        file.write_at(numbered_blocks(&env, 0, 4), 0).await.unwrap();
        file.close().await.unwrap();
        assert_eq!(
            kind(env.disk.open(&path, OpenMode::CreateNew).await),
            io::ErrorKind::AlreadyExists
        );

        let file = env.disk.open(&path, OpenMode::WriteDurable).await.unwrap();
        let flags = open_flags(&path);
        let both = libc::O_DIRECT | libc::O_DSYNC;
        assert_eq!(flags & both, both, "{flags:o}");
        file.write_at(numbered_blocks(&env, 9, 1), BLOCK).await.unwrap();
        assert_eq!(
            file.len_bytes(),
            4 * BLOCK,
            "a write inside doesn't change the length"
        );
        file.close().await.unwrap();
        assert_eq!(fs::read(&path).unwrap()[BLOCK_BYTES], 9);

        let missing = directory.join("missing");
        assert_eq!(
            kind(env.disk.open(&missing, OpenMode::WriteDurable).await),
            io::ErrorKind::NotFound
        );
        assert!(!missing.exists());
    });
}

#[test]
fn two_writes_of_one_file_are_in_flight_at_once() {
    run_with_files(|env, directory| async move {
        let path = directory.join("file");
        let file = env.disk.open(&path, OpenMode::CreateNew).await.unwrap();
        let finished = Rc::new(std::cell::Cell::new(0));
        for part in 0..16 {
            let (file, finished) = (Rc::clone(&file), Rc::clone(&finished));
            let buffer = numbered_blocks(&env, part * 8, 8);
            let write = async move {
                file.write_at(buffer, u64::from(part) * 8 * BLOCK).await.unwrap();
                finished.set(finished.get() + 1);
            };
            env.tasks
                .spawn(ostrakon::env::Priority::Foreground, Box::pin(write));
        }
        support::until(&env, "all writes are done", || finished.get() == 16).await;
        let whole = file.read_at(0, 128 * BLOCK_BYTES).await.unwrap();
        for (number, block) in whole.bytes().chunks(BLOCK_BYTES).enumerate() {
            assert!(
                block.iter().all(|byte| usize::from(*byte) == number),
                "block {number}"
            );
        }
        file.close().await.unwrap();
    });
}

#[test]
fn buffers_are_zero_even_where_others_were_before() {
    run_with_files(|env, _| async move {
        for round in 0..4 {
            let mut buffers: Vec<_> = (0..8).map(|_| env.disk.allocate(64 * 1024)).collect();
            for buffer in &mut buffers {
                assert_eq!(buffer.bytes().as_ptr().addr() % BLOCK_BYTES, 0);
                assert!(buffer.bytes().iter().all(|byte| *byte == 0), "round {round}");
                buffer.bytes_mut().fill(0xab);
            }
        }
    });
}

#[test]
fn io_beyond_the_registered_memory_works_too() {
    run_with_files(|env, directory| async move {
        let path = directory.join("file");
        let file = env.disk.open(&path, OpenMode::CreateNew).await.unwrap();
        // Twice the whole pool, in buffers that are all held.
        let buffers: Vec<_> = (0..16).map(|part| numbered_blocks(&env, part, 256)).collect();
        for (part, buffer) in buffers.iter().enumerate() {
            file.write_at(Rc::clone(buffer), (part * 256) as u64 * BLOCK)
                .await
                .unwrap();
        }
        let mut held = Vec::new();
        for (part, buffer) in buffers.iter().enumerate() {
            held.push(
                file.read_at((part * 256) as u64 * BLOCK, 256 * BLOCK_BYTES)
                    .await
                    .unwrap(),
            );
            assert!(held[part].bytes() == buffer.bytes(), "part {part}");
        }
        file.close().await.unwrap();
    });
}

#[test]
fn a_read_buffer_can_be_changed_cut_and_written() {
    run_with_files(|env, directory| async move {
        let path = directory.join("file");
        let file = env.disk.open(&path, OpenMode::CreateNew).await.unwrap();
        file.write_at(numbered_blocks(&env, 1, 3), 0).await.unwrap();
        let mut read = file.read_at(0, 3 * BLOCK_BYTES).await.unwrap();
        read.truncate(2 * BLOCK_BYTES);
        assert_eq!(read.bytes().len(), 2 * BLOCK_BYTES);
        // Written as it came from the read.
        let read_again = file.read_at(0, BLOCK_BYTES).await.unwrap();
        file.write_at(Rc::new(read_again), 2 * BLOCK).await.unwrap();
        read.bytes_mut()[0] = 77;
        file.write_at(Rc::new(read), 3 * BLOCK).await.unwrap();
        let mut written = env.disk.allocate(2 * BLOCK_BYTES);
        written.truncate(BLOCK_BYTES);
        assert_eq!(written.bytes().len(), BLOCK_BYTES);
        file.close().await.unwrap();
        let content = fs::read(&path).unwrap();
        let firsts: Vec<u8> = content.chunks(BLOCK_BYTES).map(|block| block[0]).collect();
        assert_eq!(firsts, [1, 2, 1, 77, 2]);
    });
}

#[test]
fn directories_are_made_listed_renamed_synced_and_removed() {
    run_with_files(|env, directory| async move {
        let disk = &env.disk;
        let inner = directory.join("inner");
        disk.create_dir(&inner).await.unwrap();
        disk.create_dir(&inner).await.unwrap();
        let (first, second) = (inner.join("first"), inner.join("second"));
        for (path, byte) in [(&first, 1), (&second, 2)] {
            let file = disk.open(path, OpenMode::CreateNew).await.unwrap();
            file.write_at(numbered_blocks(&env, byte, 1), 0).await.unwrap();
            file.sync().await.unwrap();
            file.close().await.unwrap();
        }
        disk.sync_dir(&inner).await.unwrap();
        disk.rename(&first, &second).await.unwrap();
        disk.sync_dir(&inner).await.unwrap();
        assert_eq!(fs::read(&second).unwrap()[0], 1, "the rename replaces");

        let listed = disk.list(&inner).await.unwrap();
        let listed: Vec<_> = listed
            .iter()
            .map(|e| (e.name.as_str(), e.len_bytes, e.is_dir))
            .collect();
        assert_eq!(listed, [("second", BLOCK, false)]);
        let names: Vec<_> = disk.list(&directory).await.unwrap();
        assert!(
            names
                .iter()
                .any(|entry| entry.name == "inner" && entry.is_dir && entry.len_bytes == 0)
        );

        let linked = directory.join("linked");
        disk.link(&second, &linked).await.unwrap();
        assert_eq!(
            kind(disk.link(&second, &linked).await),
            io::ErrorKind::AlreadyExists
        );
        assert_eq!(
            kind(disk.remove_dir(&inner).await),
            io::ErrorKind::DirectoryNotEmpty
        );
        disk.remove(&second).await.unwrap();
        disk.remove_dir(&inner).await.unwrap();
        assert_eq!(
            fs::read(&linked).unwrap()[0],
            1,
            "the bytes go with their last name"
        );
        assert_eq!(
            kind(disk.link(&second, &directory.join("other")).await),
            io::ErrorKind::NotFound
        );
        disk.remove(&linked).await.unwrap();
        for failed in [
            disk.sync_dir(&inner).await,
            disk.remove(&second).await,
            disk.list(&inner).await.map(drop),
        ] {
            let error = failed.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
            assert!(error.to_string().contains("inner"), "{error}");
        }
        assert_eq!(
            kind(disk.create_dir(&inner.join("deep")).await),
            io::ErrorKind::NotFound
        );
        let free_bytes = disk.free_bytes(&directory).await.unwrap();
        assert!(free_bytes > BLOCK && free_bytes % 512 == 0, "{free_bytes}");
    });
}

type Misuse = fn(Rc<dyn File>) -> Pin<Box<dyn Future<Output = ()>>>;

/// The panic's message of a core that misuses a file.
fn panic_of(misuse: Misuse) -> String {
    let directory = support::data_dir();
    let path = directory.path().join("file");
    let main = move |env: Env<()>| {
        let path = path.clone();
        async move {
            let file = env.disk.open(&path, OpenMode::CreateNew).await.unwrap();
            misuse(file).await;
        }
    };
    try_run(RuntimeConfig::new(1, directory.path()), main)
        .unwrap_err()
        .message
}

#[test]
fn misuse_of_a_file_is_an_assertion() {
    let twice = panic_of(|file| {
        Box::pin(async move {
            file.close().await.unwrap();
            file.close().await.unwrap();
        })
    });
    assert!(twice.ends_with("file is closed twice"), "{twice}");
    let after = panic_of(|file| {
        Box::pin(async move {
            file.close().await.unwrap();
            drop(file.read_at(0, BLOCK_BYTES).await);
        })
    });
    assert!(after.ends_with("file is used after it was closed"), "{after}");
    let unaligned = panic_of(|file| Box::pin(async move { drop(file.read_at(1, BLOCK_BYTES).await) }));
    assert!(unaligned.contains("at offset 1 aren't blocks"), "{unaligned}");
}
