//! glommio decides by the first file of an executor whether a device serves polled reads. The runtime sees to
//! it that this file can tell.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests stand on both sides of the seam"
)]

mod support;

use std::fs;

use glommio::io::DmaFile;
use glommio::{LocalExecutorBuilder, Placement};
use ostrakon::env::OpenMode;
use ostrakon::env::disk::BLOCK_BYTES;
use support::{data_dir, numbered_blocks, run_with_files};

/// True if a bare executor can read a full file after it opened `first`.
fn reads_after_opening(first: &[u8]) -> bool {
    let directory = data_dir();
    let (first_path, full_path) = (directory.path().join("first"), directory.path().join("full"));
    fs::write(&first_path, first).unwrap();
    fs::write(&full_path, vec![7; BLOCK_BYTES]).unwrap();
    for path in [&first_path, &full_path] {
        fs::File::open(path).unwrap().sync_all().unwrap();
    }
    // What was found out about a device is remembered by thread, so each call has a new one.
    let executor = LocalExecutorBuilder::new(Placement::Unbound).io_memory(1 << 20);
    let executor = executor.spawn(move || async move {
        let first = DmaFile::open(&first_path).await.unwrap();
        first.close().await.unwrap();
        let full = DmaFile::open(&full_path).await.unwrap();
        let read = full.read_at_aligned(0, BLOCK_BYTES).await.map(|read| read[0]);
        full.close().await.unwrap();
        match read {
            Ok(byte) => {
                assert_eq!(byte, 7);
                true
            }
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::EOPNOTSUPP), "{error}");
                false
            }
        }
    });
    executor.unwrap().join().unwrap()
}

#[test]
fn a_full_first_file_makes_reads_work_on_every_device() {
    assert!(reads_after_opening(&[1; BLOCK_BYTES]));
    // Where the device has no poll queues this is false: the failure that the runtime's probe file prevents.
    // Where it has them, or hides behind a file system without polling, it is true.
    println!("reads after an empty first file: {}", reads_after_opening(&[]));
}

#[test]
fn an_executor_of_the_runtime_reads_although_its_first_file_is_empty() {
    run_with_files(|env, directory| async move {
        assert_eq!(
            fs::metadata(directory.join(".probe")).unwrap().len(),
            BLOCK_BYTES as u64
        );
        let path = directory.join("empty");
        let file = env.disk.open(&path, OpenMode::CreateNew).await.unwrap();
        file.write_at(numbered_blocks(&env, 5, 1), 0).await.unwrap();
        let read = file.read_at(0, BLOCK_BYTES).await.unwrap();
        assert_eq!(read.bytes(), &[5; BLOCK_BYTES]);
        file.close().await.unwrap();
    });
}
