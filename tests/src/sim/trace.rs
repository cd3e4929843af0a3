//! What happened in a run: a hash over all of it, the last events of each host, and the whole text if wanted.
//!
//! The hash depends on the order. Two runs of one seed that differ anywhere in a scheduling decision, an
//! operation and its outcome, a clock or a random number that the code under test saw, differ in the hash.

use core::fmt;
use std::collections::VecDeque;
use std::io::Write;
use std::path::Path;
use std::rc::Rc;

use super::host::HostId;

/// Events that are kept of each host.
const RING_EVENTS: usize = 200;

/// Something that happened, kept unformatted: formatting each would cost more than simulating it.
#[derive(Clone, Debug)]
pub enum TraceKind {
    /// A disk operation ended.
    Disk {
        /// Its number on this host.
        operation: u64,
        /// What was done.
        name: &'static str,
        /// To which file or directory.
        path: Rc<Path>,
        /// Where, for reads and writes.
        offset: u64,
        /// How much, for reads and writes.
        len_bytes: u64,
        /// 0, or the error's number (the kind's for errors that are not of the operating system).
        error: i32,
    },
    /// A segment or a mark arrived at this host.
    Network {
        /// What it was.
        name: &'static str,
        /// Of which connection.
        stream: u64,
        /// Where in the stream.
        offset: u64,
        /// How much.
        len_bytes: u64,
    },
    /// A fault began, ended or struck.
    Fault(String),
    /// A process started, ended, crashed.
    Process(String),
    /// A remark of the harness.
    Note(String),
}

/// An event with its time.
#[derive(Clone, Debug)]
pub struct TraceEvent {
    /// Virtual time in nanoseconds.
    pub at_ns: u64,
    /// Where.
    pub host: HostId,
    /// What.
    pub kind: TraceKind,
}

impl fmt::Display for TraceEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, nanoseconds) = (self.at_ns / 1_000_000_000, self.at_ns % 1_000_000_000);
        write!(f, "{seconds}.{nanoseconds:09} host {} ", self.host.0)?;
        match &self.kind {
            TraceKind::Disk {
                operation,
                name,
                path,
                offset,
                len_bytes,
                error,
            } => {
                write!(f, "disk #{operation} {name} {}", path.display())?;
                if *len_bytes > 0 {
                    write!(f, " {len_bytes} bytes at {offset}")?;
                }
                if *error == 0 {
                    Ok(())
                } else {
                    write!(f, ": error {error}")
                }
            }
            TraceKind::Network {
                name,
                stream,
                offset,
                len_bytes,
            } => write!(
                f,
                "network {name} on stream {stream}, {len_bytes} bytes at {offset}"
            ),
            TraceKind::Fault(text) => write!(f, "fault {text}"),
            TraceKind::Process(text) => write!(f, "process {text}"),
            TraceKind::Note(text) => f.write_str(text),
        }
    }
}

/// Hash, rings and writer.
#[derive(Default)]
pub(super) struct Trace {
    hash: u64,
    rings: Vec<VecDeque<TraceEvent>>,
    writer: Option<Box<dyn Write>>,
}

impl Trace {
    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    /// Folds one number into the hash: multiply and rotate, so that order counts.
    pub(super) fn fold(&mut self, word: u64) {
        self.hash = (self.hash.rotate_left(23) ^ word).wrapping_mul(0x9fb2_1c65_1e98_df25);
    }

    fn fold_text(&mut self, text: &[u8]) {
        for chunk in text.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.fold(u64::from_le_bytes(word));
        }
        self.fold(text.len() as u64);
    }

    pub(super) fn record(&mut self, event: TraceEvent) {
        self.fold(event.at_ns);
        self.fold(u64::from(event.host.0));
        match &event.kind {
            TraceKind::Disk {
                operation,
                name,
                path,
                offset,
                len_bytes,
                error,
            } => {
                self.fold_text(name.as_bytes());
                self.fold_text(path.as_os_str().as_encoded_bytes());
                for word in [*operation, *offset, *len_bytes, i64::from(*error) as u64] {
                    self.fold(word);
                }
            }
            TraceKind::Network {
                name,
                stream,
                offset,
                len_bytes,
            } => {
                self.fold_text(name.as_bytes());
                for word in [*stream, *offset, *len_bytes] {
                    self.fold(word);
                }
            }
            TraceKind::Fault(text) | TraceKind::Process(text) | TraceKind::Note(text) => {
                self.fold_text(text.as_bytes());
            }
        }
        if let Some(writer) = &mut self.writer {
            // A trace that can't be written must not change the run, but must not end silently either.
            writeln!(writer, "{event}").expect("the trace's writer takes what it is given");
        }
        let host = usize::from(event.host.0);
        if self.rings.len() <= host {
            self.rings.resize_with(host + 1, VecDeque::new);
        }
        let ring = &mut self.rings[host];
        if ring.len() == RING_EVENTS {
            ring.pop_front();
        }
        ring.push_back(event);
    }

    pub(super) fn last(&self, host: HostId) -> Vec<TraceEvent> {
        self.rings
            .get(usize::from(host.0))
            .map(|ring| ring.iter().cloned().collect())
            .unwrap_or_default()
    }

    pub(super) fn set_writer(&mut self, writer: Box<dyn Write>) {
        self.writer = Some(writer);
    }
}
