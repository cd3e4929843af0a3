//! Diagnostics: `tracing` events as lines on stderr, through a thread, so that a core never blocks on them.
//!
//! A core formats its line and puts it into a bounded queue. If stderr is slower than the events (a
//! paused terminal, a full pipe), the line is dropped and counted; the count is reported about every ten
//! seconds while it grows, and at the end. Nothing here is part of any guarantee to a client.

use std::fmt;
use std::io::{self, IsTerminal};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// The filter when neither `--log` nor `RUST_LOG` is given.
pub const DEFAULT_FILTER: &str = "info";

/// Lines that wait for stderr; at some 200 bytes each this is a bound of a few MiB.
const QUEUED_LINES_MAX: usize = 16_384;

/// How often the number of dropped lines is looked at.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// Running diagnostics; dropping it writes out what is queued.
#[derive(Debug)]
pub struct Logging {
    // Declared in the order in which they must end: the writer first, so that the last report is last.
    writer: Option<WorkerGuard>,
    stop_reporter: Option<Sender<()>>,
    reporter: Option<JoinHandle<()>>,
}

/// Why diagnostics could not be started.
#[derive(Debug)]
#[non_exhaustive]
pub enum LoggingError {
    /// The filter makes no sense.
    Filter {
        /// As the user wrote it.
        filter: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// The reporting thread could not be started.
    Thread(io::Error),
    /// The process has a subscriber already.
    AlreadyStarted,
}

impl fmt::Display for LoggingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoggingError::Filter { filter, source } => write!(
                f,
                "the log filter '{filter}' is not understood ({source}); write for example info, debug, or \
                 info,ostrakon::log=debug"
            ),
            LoggingError::Thread(source) => {
                write!(f, "cannot start the thread that reports lost log lines: {source}")
            }
            LoggingError::AlreadyStarted => f.write_str("logging has been started before in this process"),
        }
    }
}

impl std::error::Error for LoggingError {}

/// Parses a filter as `--log` and `RUST_LOG` take it.
///
/// # Errors
/// [`LoggingError::Filter`].
pub fn parse_filter(filter: &str) -> Result<EnvFilter, LoggingError> {
    EnvFilter::builder()
        .with_default_directive(tracing::level_filters::LevelFilter::INFO.into())
        .parse(filter)
        .map_err(|source| LoggingError::Filter {
            filter: filter.to_owned(),
            source,
        })
}

/// Starts diagnostics for the whole process. Colours only on a terminal, and not if `NO_COLOR` is set.
///
/// # Errors
/// See [`LoggingError`].
pub fn start(filter: &str) -> Result<Logging, LoggingError> {
    let filter = parse_filter(filter)?;
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(QUEUED_LINES_MAX)
        .thread_name("logging")
        .finish(io::stderr());
    let dropped = writer.error_counter();
    let colours =
        io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colours)
        .with_writer(writer)
        .try_init()
        .map_err(|_| LoggingError::AlreadyStarted)?;
    let (stop_reporter, stopped) = channel();
    let reporter = std::thread::Builder::new()
        .name("lost-log-lines".to_owned())
        .spawn(move || report_dropped(&dropped, &stopped))
        .map_err(LoggingError::Thread)?;
    Ok(Logging {
        writer: Some(guard),
        stop_reporter: Some(stop_reporter),
        reporter: Some(reporter),
    })
}

impl Drop for Logging {
    fn drop(&mut self) {
        drop(self.writer.take());
        drop(self.stop_reporter.take());
        if let Some(reporter) = self.reporter.take() {
            // It can only fail by a panic, which has been printed already.
            let _ = reporter.join();
        }
    }
}

/// Runs until the sender is dropped, and then looks once more. It writes past the queue, whose being full
/// is the news.
fn report_dropped(dropped: &ErrorCounter, stopped: &Receiver<()>) {
    let mut reported = 0;
    loop {
        let running = stopped.recv_timeout(REPORT_INTERVAL) == Err(RecvTimeoutError::Timeout);
        let total = dropped.dropped_lines();
        if let Some(sentence) = dropped_sentence(reported, total) {
            eprintln!("{sentence}");
            reported = total;
        }
        if !running {
            return;
        }
    }
}

fn dropped_sentence(reported: usize, total: usize) -> Option<String> {
    (total > reported).then(|| {
        format!(
            "ostrakon: {} log lines were dropped because stderr was too slow ({total} since the start)",
            total - reported
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_parsed_or_refused_in_words() {
        assert!(parse_filter(DEFAULT_FILTER).is_ok());
        assert!(parse_filter("warn,ostrakon::log=trace").is_ok());
        let error = parse_filter("ostrakon=loudly").unwrap_err().to_string();
        assert!(
            error.contains("'ostrakon=loudly'") && error.contains("write for example"),
            "{error}"
        );
    }

    #[test]
    fn dropped_lines_are_reported_once_each() {
        assert_eq!(dropped_sentence(0, 0), None);
        assert_eq!(dropped_sentence(7, 7), None);
        let sentence = dropped_sentence(3, 10).unwrap();
        assert!(
            sentence.contains("7 log lines") && sentence.contains("10 since"),
            "{sentence}"
        );
    }
}
