//! `import`: writes the entries of a file in order, several multi-puts on their way at once.
//!
//! 1. Records collect in a batch. A key that the batch has already gets the later value.
//! 2. A full batch is sent. The node may work on batches in any order, so a record whose key is in a batch on its
//!    way waits until all of those are answered: the last record of a key wins, as it stands in the file.
//! 3. What the node is too busy for is sent again by the client library, until the time of a request is up.
//! 4. At the first record that means nothing, all before it are written, then it is named. Whatever else goes wrong
//!    ends the import as well.
//!
//! An import can be repeated: what is written already is written again, with the same values.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use ostrakon_client::{
    Answer, Client, Error, ErrorCode, MultiWritten, Pipeline, PutEntry, Request, ScanOptions, Ticket,
};
use ostrakon_wire::limits::MULTI_MAX;

use super::super::commands::Context;
use super::super::failure::Failure;
use super::super::interrupt::Interrupt;
use super::super::key::escape;
use super::super::link::{Stopped, timestamp_us};
use super::super::requests::{FileFormat, ImportArguments};
use super::binary::BinaryReader;
use super::json::JsonReader;
use super::progress::Progress;
use super::record::{BadRecord, Lifetime, Record};
use super::stream::open_input;
use super::{STANDARD, format_of};

/// A batch is sent when its keys and values reach this, in bytes.
const BATCH_BYTES: usize = 256 * 1024;
/// Batches on their way at once.
const BATCHES_IN_FLIGHT: usize = 8;
/// What is to be done again when it has failed.
const IMPORT: &str = "Import";
/// What is read of the file at once, in bytes.
const READ_BYTES: usize = 256 * 1024;

/// `import`.
pub(in super::super) fn import(
    arguments: &ImportArguments,
    context: &mut Context,
    owns_stdin: bool,
) -> Result<(), Failure> {
    let file = context.spelling.path(&arguments.file)?;
    let format = format_of(&file, arguments.format)?;
    let is_standard = file == Path::new(STANDARD);
    if is_standard && !owns_stdin {
        return Err(Failure::Usage(
            "stdin holds the commands here: name a file, or run `ostrakon import -` in another shell"
                .to_owned(),
        ));
    }
    let interrupt = Arc::clone(context.link.interrupt());
    let (input, total_bytes): (Box<dyn Read>, _) = if is_standard {
        (Box::new(io::stdin().lock()), None)
    } else {
        open_input(&file, &interrupt)?
    };
    let progress = Progress::new("import", total_bytes);
    let input = BufReader::with_capacity(READ_BYTES, progress.bar().wrap_read(input));
    let tally = match format {
        FileFormat::Json => load(JsonReader::new(input), context, &interrupt, IMPORT),
        FileFormat::Binary => load(BinaryReader::new(input), context, &interrupt, IMPORT),
    }?;
    let total = progress.total(tally.written);
    drop(progress);
    let over = match tally.over {
        0 => String::new(),
        over => format!("; {over} more were left out because their time is over"),
    };
    eprintln!("imported {total}{over}");
    Ok(())
}

/// What became of the records so far.
#[derive(Debug, Default)]
pub(in super::super) struct Tally {
    /// Records whose entries are written, later ones for the same key included.
    pub(in super::super) written: u64,
    /// Records whose time was over.
    pub(in super::super) over: u64,
}

/// Writes all records. `command` is what is to be done again after a failure.
pub(in super::super) fn load(
    mut records: impl Iterator<Item = Result<Record, BadRecord>>,
    context: &mut Context,
    interrupt: &Interrupt,
    command: &'static str,
) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    let loaded = context.link.run(|client, watch| {
        let clock = watch.time(|| NodeClock::ask(client))?;
        let batch_entries = (client.server().multi_max as usize).clamp(1, MULTI_MAX);
        let mut loader = Loader {
            pipeline: client.pipeline(),
            flights: VecDeque::new(),
            keys_in_flight: BTreeSet::new(),
            batch: Batch::default(),
            batch_entries,
            tally: &mut tally,
        };
        let bad = loop {
            interrupt.check()?;
            match records.next() {
                None => break None,
                // Of a stream whose wait was ended.
                Some(Err(_)) if interrupt.is_raised() => return Err(Failure::cancelled().into()),
                Some(Err(bad)) => break Some(bad),
                Some(Ok(record)) => match record.expiry.lifetime(clock.now_us()) {
                    Lifetime::Over => loader.tally.over += 1,
                    Lifetime::TooLong => {
                        break Some(BadRecord {
                            place: format!("the entry of {}", escape(&record.key)),
                            detail: "it expires in more than ten years, and ten are the most".to_owned(),
                        });
                    }
                    Lifetime::TtlMs(ttl_ms) => watch.time(|| loader.take(record, ttl_ms))?,
                },
            }
        };
        watch.time(|| loader.finish())?;
        Ok(bad)
    });
    let written = tally.written;
    match loaded {
        Ok(None) => Ok(tally),
        Ok(Some(bad)) if written == 0 => Err(Failure::Failed(format!("{bad}; nothing was written"))),
        Ok(Some(bad)) => Err(Failure::Failed(format!(
            "{bad}; the {written} records before it are written. {command} what is good from its beginning: nothing \
             is lost by writing the same twice"
        ))),
        Err(failure) => Err(explained(failure, written, command)),
    }
}

/// The failure, and what it means for an import.
fn explained(failure: Failure, written: u64, command: &str) -> Failure {
    let more = format!(
        "{written} records are written for certain, and some behind them may be. {command} the whole again when the \
         cause is gone: nothing is lost by writing the same twice"
    );
    match failure {
        Failure::OutcomeUnknown(sentence) => Failure::OutcomeUnknown(format!("{sentence}; {more}")),
        Failure::Interrupted(sentence) => Failure::Interrupted(format!("{sentence}; {more}")),
        Failure::Failed(sentence) => Failure::Failed(format!("{sentence}; {more}")),
        other => other,
    }
}

/// The node's clock, carried on by the clock of this machine.
#[derive(Debug)]
struct NodeClock {
    at_start_us: u64,
    started: Instant,
}

impl NodeClock {
    /// Asks the node: its last answer may be old. A scan is of the time by its clock; a pong has but the last timestamp
    /// that it has given out.
    fn ask(client: &mut Client) -> Result<NodeClock, Error> {
        let mut scan = client.scan(ScanOptions {
            limit: 1,
            keys_only: true,
            ..ScanOptions::default()
        });
        scan.next().transpose()?;
        Ok(NodeClock {
            at_start_us: timestamp_us(scan.snapshot()),
            started: Instant::now(),
        })
    }

    fn now_us(&self) -> u64 {
        self.at_start_us + self.started.elapsed().as_micros() as u64
    }
}

/// One entry of a batch.
#[derive(Debug)]
struct Waiting {
    key: Vec<u8>,
    value: Vec<u8>,
    ttl_ms: u64,
    /// Records that it stands for.
    records: u64,
}

/// Entries that are sent together, each key once.
#[derive(Debug, Default)]
struct Batch {
    entries: Vec<Waiting>,
    /// Where each key is in `entries`.
    places: BTreeMap<Vec<u8>, usize>,
    bytes: usize,
}

impl Batch {
    fn put(&mut self, record: Record, ttl_ms: u64) {
        let Record { key, value, .. } = record;
        self.bytes += key.len() + value.len();
        if let Some(place) = self.places.get(&key) {
            let entry = &mut self.entries[*place];
            self.bytes -= key.len() + entry.value.len();
            (entry.value, entry.ttl_ms) = (value, ttl_ms);
            entry.records += 1;
            return;
        }
        self.places.insert(key.clone(), self.entries.len());
        self.entries.push(Waiting {
            key,
            value,
            ttl_ms,
            records: 1,
        });
    }
}

/// A batch on its way.
#[derive(Debug)]
struct Flight<'client> {
    ticket: Ticket<'client>,
    entries: Vec<Waiting>,
}

/// Fills, sends and settles batches.
struct Loader<'client, 'tally> {
    pipeline: Pipeline<'client>,
    flights: VecDeque<Flight<'client>>,
    /// Of all flights.
    keys_in_flight: BTreeSet<Vec<u8>>,
    batch: Batch,
    /// A batch has this many entries at most.
    batch_entries: usize,
    tally: &'tally mut Tally,
}

impl<'client> Loader<'client, '_> {
    fn take(&mut self, record: Record, ttl_ms: u64) -> Result<(), Stopped> {
        let more_bytes = record.key.len() + record.value.len();
        let is_full = self.batch.entries.len() == self.batch_entries
            || (!self.batch.entries.is_empty() && self.batch.bytes + more_bytes > BATCH_BYTES);
        if is_full {
            self.send_batch()?;
        }
        if self.keys_in_flight.contains(&record.key) {
            self.settle_down_to(0)?;
        }
        self.batch.put(record, ttl_ms);
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Stopped> {
        self.send_batch()?;
        self.settle_down_to(0)
    }

    fn send_batch(&mut self) -> Result<(), Stopped> {
        let batch = std::mem::take(&mut self.batch);
        if batch.entries.is_empty() {
            return Ok(());
        }
        self.settle_down_to(BATCHES_IN_FLIGHT - 1)?;
        let keys = batch.entries.iter().map(|entry| entry.key.clone());
        self.keys_in_flight.extend(keys);
        let puts: Vec<PutEntry<'_>> = batch
            .entries
            .iter()
            .map(|entry| PutEntry {
                key: &entry.key,
                value: &entry.value,
                ttl_ms: entry.ttl_ms,
            })
            .collect();
        let ticket = self.pipeline.submit(&Request::MultiPut {
            entries: puts[..].into(),
            retry: None,
        })?;
        // The next record may be long in coming, and its time to be answered runs.
        self.pipeline.flush();
        self.flights.push_back(Flight {
            ticket,
            entries: batch.entries,
        });
        Ok(())
    }

    /// Waits until no more than so many batches are on their way.
    fn settle_down_to(&mut self, flights: usize) -> Result<(), Stopped> {
        while self.flights.len() > flights {
            let flight = self.flights.pop_front().expect("there are more than some number");
            self.settle(flight)?;
        }
        Ok(())
    }

    /// Waits for one answer. Fails if it is a refusal of any entry.
    fn settle(&mut self, flight: Flight<'client>) -> Result<(), Stopped> {
        let written = self.wait(flight.ticket, flight.entries.len())?;
        let mut failure = None;
        for (entry, result) in flight.entries.into_iter().zip(written.results) {
            match result {
                Ok(_) => {
                    self.keys_in_flight.remove(&entry.key);
                    self.tally.written += entry.records;
                }
                Err(code) => drop(failure.get_or_insert(code)),
            }
        }
        let message = written.message;
        match failure {
            None => Ok(()),
            Some(ErrorCode::CoreFailed | ErrorCode::OutcomeUnknown) => {
                Err(Failure::OutcomeUnknown(message).into())
            }
            Some(code) => Err(Failure::Failed(format!("the server answered {code}: {message}")).into()),
        }
    }

    /// What became of so many entries.
    fn wait(&mut self, ticket: Ticket<'client>, entries: usize) -> Result<MultiWritten, Stopped> {
        let written = match self.pipeline.wait(ticket)? {
            Answer::MultiPut(written) => written,
            other => unreachable!("this answers another kind of request: {other:?}"),
        };
        if written.results.len() == entries {
            return Ok(written);
        }
        Err(Failure::OutcomeUnknown(format!(
            "the server answered a multi-put of {entries} entries with {} results",
            written.results.len()
        ))
        .into())
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Expiry;
    use super::*;

    #[test]
    fn a_later_record_of_a_key_replaces_the_earlier_one_in_its_batch() {
        let record = |key: &str, value: &str| Record {
            key: key.into(),
            value: value.into(),
            expiry: Expiry::Never,
        };
        let mut batch = Batch::default();
        batch.put(record("a", "first"), 0);
        batch.put(record("b", "1"), 0);
        batch.put(record("a", "2"), 7);
        let entries: Vec<_> = batch
            .entries
            .iter()
            .map(|entry| (&entry.key[..], &entry.value[..], entry.ttl_ms, entry.records))
            .collect();
        assert_eq!(
            entries,
            [(&b"a"[..], &b"2"[..], 7, 2), (&b"b"[..], &b"1"[..], 0, 1)]
        );
        assert_eq!(batch.bytes, 4);
    }

    #[test]
    fn a_failure_keeps_its_code_and_says_what_is_written() {
        for (failure, code) in [
            (Failure::Failed("x".to_owned()), 1),
            (Failure::OutcomeUnknown("x".to_owned()), 5),
            (Failure::Interrupted("x".to_owned()), 130),
        ] {
            let explained = explained(failure, 7, IMPORT);
            assert!(
                explained.to_string().starts_with("x; 7 records are written"),
                "{explained}"
            );
            assert_eq!(explained.exit_code(), code);
        }
    }
}
