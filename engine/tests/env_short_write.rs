//! A write that the kernel cuts short is continued, and what stops it is reported. The limit of the file size
//! belongs to the process, so this test has a binary of its own.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests stand on both sides of the seam"
)]

mod support;

use std::fs;
use std::io;

use ostrakon::env::OpenMode;
use ostrakon::env::disk::BLOCK_BYTES;
use ostrakon::env::glommio::DiskError;
use support::{numbered_blocks, run_with_files};

/// Sets the soft limit of the file size; `None` lifts it.
fn limit_file_size(bytes: Option<u64>) {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointers are valid for one rlimit; SIG_IGN is a valid disposition.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        assert_eq!(libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut limit), 0);
        limit.rlim_cur = bytes.unwrap_or(limit.rlim_max);
        assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit), 0);
    }
}

#[test]
fn a_write_cut_short_is_continued_until_the_cause_is_known() {
    run_with_files(|env, directory| async move {
        let path = directory.join("file");
        let file = env.disk.open(&path, OpenMode::CreateNew).await.unwrap();
        let buffer = numbered_blocks(&env, 1, 32);
        limit_file_size(Some(16 * BLOCK_BYTES as u64));
        let cut = file.write_at(buffer.clone(), 0).await;
        limit_file_size(None);
        let error = cut.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge, "{error}");
        let inner = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<DiskError>())
            .unwrap();
        assert_eq!(inner.source.raw_os_error(), Some(libc::EFBIG));
        assert_eq!(
            fs::read(&path).unwrap(),
            &buffer.bytes()[..16 * BLOCK_BYTES],
            "the part below the limit"
        );

        file.write_at(buffer.clone(), 0).await.unwrap();
        assert_eq!(fs::read(&path).unwrap(), buffer.bytes());
        file.close().await.unwrap();
    });
}
