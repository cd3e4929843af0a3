//! SIGTERM and SIGINT: the first asks the node to drain, the second ends the process at once.
//!
//! A thread of its own waits for signals, because the cores' runtime has no support for them; it passes
//! the first one on through a callback (usually a send into a core) and never touches a core itself.
//! Nothing acknowledged is lost by the second signal: it is a crash, and recovery is the next start.

use std::fmt;
use std::io;
use std::thread::JoinHandle;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

/// Exit code when a second signal cuts the draining short.
pub const EXIT_CODE_INTERRUPTED: i32 = 130;

/// A signal that asks the process to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM, from a service manager or `kill`.
    Terminate,
    /// SIGINT, from Ctrl-C.
    Interrupt,
}

impl Signal {
    fn from_number(number: i32) -> Option<Signal> {
        match number {
            SIGTERM => Some(Signal::Terminate),
            SIGINT => Some(Signal::Interrupt),
            _ => None,
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Signal::Terminate => "SIGTERM",
            Signal::Interrupt => "SIGINT",
        })
    }
}

/// The waiting thread; dropping it stops the thread, after which signals are caught and ignored.
#[derive(Debug)]
pub struct SignalWatch {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

/// Catches both signals from here on. `on_signal` is called once, with the first, on the waiting thread.
///
/// # Errors
/// If the handlers can't be installed or the thread can't be started.
pub fn watch(on_signal: impl Fn(Signal) + Send + 'static) -> io::Result<SignalWatch> {
    let signals = Signals::new([SIGTERM, SIGINT])?;
    let handle = signals.handle();
    let waiting = move || {
        let mut signals = signals;
        dispatch(
            signals.forever().filter_map(Signal::from_number),
            on_signal,
            exit_at_once,
        );
    };
    let thread = std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(waiting)?;
    Ok(SignalWatch {
        handle,
        thread: Some(thread),
    })
}

impl Drop for SignalWatch {
    fn drop(&mut self) {
        self.handle.close();
        if let Some(thread) = self.thread.take() {
            // The thread only fails if the callback panicked, which it has already reported itself.
            let _ = thread.join();
        }
    }
}

/// The first signal goes to one callback, each one after it to the other.
fn dispatch(signals: impl Iterator<Item = Signal>, first: impl Fn(Signal), further: impl Fn(Signal)) {
    for (number, signal) in signals.enumerate() {
        if number == 0 {
            first(signal);
        } else {
            further(signal);
        }
    }
}

fn exit_at_once(signal: Signal) {
    eprintln!("ostrakon: second signal ({signal}): stopping at once, without draining");
    std::process::exit(EXIT_CODE_INTERRUPTED);
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Signal as RawSignal, getpid, kill_process};
    use std::cell::RefCell;
    use std::time::Duration;

    #[test]
    fn only_the_first_signal_drains() {
        let log = RefCell::new(Vec::new());
        let signals = [Signal::Interrupt, Signal::Terminate, Signal::Interrupt];
        dispatch(
            signals.into_iter(),
            |signal| log.borrow_mut().push(format!("drain at {signal}")),
            |signal| log.borrow_mut().push(format!("exit at {signal}")),
        );
        assert_eq!(
            log.into_inner(),
            ["drain at SIGINT", "exit at SIGTERM", "exit at SIGINT"]
        );
    }

    #[test]
    fn the_first_signal_reaches_the_callback_and_the_watch_ends_when_dropped() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let watch = watch(move |signal| sender.send(signal).unwrap()).unwrap();
        kill_process(getpid(), RawSignal::TERM).unwrap();
        assert_eq!(
            receiver.recv_timeout(Duration::from_secs(30)),
            Ok(Signal::Terminate)
        );
        drop(watch);
        assert!(
            receiver.recv().is_err(),
            "the thread has gone, and its sender with it"
        );
    }
}
