//! A program at a pseudo terminal, driven as by a person: typed to, its screen's bytes read.
//!
//! Every wait is for a text; the time limit only ends a test that hangs.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// A program that says nothing for so long hangs.
const HANG_TIME: Duration = Duration::from_mins(2);
/// How long something is waited for that is then tried again.
const TRY_TIME: Duration = Duration::from_millis(200);

/// A program that runs at a terminal of its own. Dropping it kills the program.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    keyboard: File,
    screen: Receiver<Vec<u8>>,
    /// What was shown and not yet waited for.
    shown: String,
}

impl Terminal {
    /// Starts the program at a terminal of this size.
    ///
    /// # Panics
    /// If there is no terminal to be had, or the program can't be started.
    pub fn start(mut command: Command, columns: u16, rows: u16) -> Terminal {
        let (main, other) = open(columns, rows);
        let other_number = other.as_raw_fd();
        // SAFETY: `login_tty` only makes system calls, which is what may be done between fork and exec.
        unsafe {
            command.pre_exec(move || match libc::login_tty(other_number) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        let child = command.env("TERM", "xterm").spawn().expect("the program starts");
        drop(other);
        let keyboard = File::from(main);
        let mut output = keyboard.try_clone().expect("a descriptor can be copied");
        let (sender, screen) = mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // The end of the program is an error here.
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Terminal {
            child,
            keyboard,
            screen,
            shown: String::new(),
        }
    }

    /// Types keys; `\r` is Enter, `\x03` Ctrl-C, `\x04` Ctrl-D.
    ///
    /// # Panics
    /// If the terminal is gone.
    pub fn type_keys(&mut self, keys: &str) {
        self.keyboard
            .write_all(keys.as_bytes())
            .expect("the terminal takes keys");
    }

    /// Waits until the text is shown, and returns what was shown before it since the last wait.
    ///
    /// # Panics
    /// If the program ends or hangs before.
    pub fn expect(&mut self, text: &str) -> String {
        match self.wait_for(text, HANG_TIME) {
            Some(before) => before,
            None => panic!("no {text:?} in:\n{}", self.shown),
        }
    }

    /// Types keys again and again until the text is shown: for keys that a program may not be ready for yet.
    ///
    /// # Panics
    /// If the program ends or hangs before.
    pub fn type_until(&mut self, keys: &str, text: &str) {
        let started = Instant::now();
        while started.elapsed() < HANG_TIME {
            self.type_keys(keys);
            if self.wait_for(text, TRY_TIME).is_some() {
                return;
            }
        }
        panic!("no {text:?} in:\n{}", self.shown);
    }

    /// Waits for the end of the program.
    ///
    /// # Panics
    /// If the program hangs, or can't be waited for.
    pub fn wait(mut self) -> ExitStatus {
        // The screen ends when nobody has the terminal open any more.
        let started = Instant::now();
        loop {
            let left = HANG_TIME.saturating_sub(started.elapsed());
            match self.screen.recv_timeout(left) {
                Ok(bytes) => self.shown.push_str(&String::from_utf8_lossy(&bytes)),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("no end after:\n{}", self.shown),
            }
        }
        self.child.wait().expect("a child can be waited for")
    }

    fn wait_for(&mut self, text: &str, at_most: Duration) -> Option<String> {
        let started = Instant::now();
        loop {
            if let Some(start) = self.shown.find(text) {
                let rest = self.shown.split_off(start + text.len());
                let mut before = std::mem::replace(&mut self.shown, rest);
                before.truncate(start);
                return Some(before);
            }
            let left = at_most.checked_sub(started.elapsed())?;
            let bytes = self.screen.recv_timeout(left).ok()?;
            self.shown.push_str(&String::from_utf8_lossy(&bytes));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Both fail if it has ended and was waited for, which is what is wanted.
        let _ended = self.child.kill().and_then(|()| self.child.wait());
    }
}

/// Both ends of a new pseudo terminal: ours, and the program's.
fn open(columns: u16, rows: u16) -> (OwnedFd, OwnedFd) {
    let (mut main, mut other) = (-1, -1);
    let size = libc::winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let (no_name, no_settings) = (std::ptr::null_mut(), std::ptr::null());
    // SAFETY: all pointers are null where that is allowed, or to locals that live through the call.
    let result = unsafe {
        libc::openpty(
            &raw mut main,
            &raw mut other,
            no_name,
            no_settings,
            &raw const size,
        )
    };
    assert_eq!(
        result,
        0,
        "no pseudo terminal: {}",
        std::io::Error::last_os_error()
    );
    // Nothing that is started later shall hold our end open.
    // SAFETY: the descriptor was just opened.
    unsafe { libc::fcntl(main, libc::F_SETFD, libc::FD_CLOEXEC) };
    // SAFETY: both were just opened, and nobody else has them.
    unsafe { (OwnedFd::from_raw_fd(main), OwnedFd::from_raw_fd(other)) }
}
