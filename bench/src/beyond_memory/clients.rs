//! Clients that take a pass over the keys to its end, or read every key and hold it against the model.
//!
//! Each client is a thread with a connection of its own, a share of the keys, and a window of unanswered requests. A
//! write that the server refuses for the moment is sent again. Once the power is said to be cut, whatever fails is no
//! failure: what was unanswered then keeps its unknown outcome.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ostrakon_client::{
    Answer, Client, Condition, Error, ErrorCode, Options, Pipeline, Request, ScanOptions, Ticket, Written,
};

use super::model::{Fault, Model, Pass, key, number_of};
use crate::engines::rows::scatter_by;
use crate::machine;

/// Clients.
pub const CLIENTS: u64 = 4;
/// Unanswered requests of each.
const WINDOW: usize = 64;
/// A scan is made in so many parts: no part may take as long as a server keeps the data of its snapshot.
const SCAN_PARTS: u64 = 32;
/// Sentences about wrong keys that are kept.
const SENTENCES: usize = 5;
/// Requests between two looks at signals.
const LOOK_EVERY: u64 = 256;

/// How far clients have come.
#[derive(Debug, Default)]
pub struct Progress {
    /// Requests that were answered as they should.
    pub answered: AtomicU64,
    /// Writes that were refused for the moment and sent again.
    pub refused: AtomicU64,
    /// Clients that have ended.
    pub ended: AtomicUsize,
    /// From here on nothing needs to be answered.
    pub is_cut: AtomicBool,
}

/// What reading has shown.
#[derive(Debug, Default, Clone)]
pub struct Findings {
    /// Keys that were looked at.
    pub checked: u64,
    /// Acknowledged keys that are not there.
    pub lost: u64,
    /// Keys with another value than the last acknowledged.
    pub wrong: u64,
    /// Deleted keys that are there.
    pub risen: u64,
    /// Keys that nobody wrote.
    pub foreign: u64,
    /// About the first of them.
    pub sentences: Vec<String>,
}

/// Takes a client's part of a pass, from wherever an earlier try has left it.
///
/// # Errors
/// A sentence, if the server fails before the cut, or a signal comes.
pub fn write(
    address: &str,
    model: &Model,
    pass: Pass,
    client: u64,
    cpu: usize,
    progress: &Progress,
) -> Result<(), String> {
    let mut writer = Writer {
        model,
        pass,
        progress,
        value: Vec::new(),
    };
    let outcome = machine::pin_thread(cpu).and_then(|()| writer.work(address, client));
    progress.ended.fetch_add(1, Ordering::SeqCst);
    match outcome {
        Err(_) if progress.is_cut.load(Ordering::SeqCst) => Ok(()),
        outcome => outcome,
    }
}

/// A client's keys in the order of a pass.
fn numbers(keys: u64, salt: u64, client: u64) -> impl Iterator<Item = u64> {
    let places = (client..keys).step_by(CLIENTS as usize);
    places.map(move |place| scatter_by(salt, place, keys))
}

fn connect(address: &str) -> Result<Client, String> {
    let options = Options {
        // Each sending is to be known: what a cut leaves unanswered must not come again by itself.
        retry: false,
        client: "ostrakon-bench".to_owned(),
        ..Options::default()
    };
    Client::connect(address, options).map_err(|error| error.to_string())
}

struct Writer<'a> {
    model: &'a Model,
    pass: Pass,
    progress: &'a Progress,
    value: Vec<u8>,
}

impl Writer<'_> {
    fn work(&mut self, address: &str, client: u64) -> Result<(), String> {
        let mut connection = connect(address)?;
        let mut pipeline = connection.pipeline();
        let mut unanswered = VecDeque::with_capacity(WINDOW);
        let mut sent = 0_u64;
        for number in numbers(self.model.keys(), self.pass as u64, client) {
            if !self.model.is_due(number, self.pass) {
                continue;
            }
            sent += 1;
            if sent.is_multiple_of(LOOK_EVERY) {
                machine::check_signals()?;
            }
            while unanswered.len() >= WINDOW {
                self.settle(&mut pipeline, &mut unanswered)?;
            }
            unanswered.push_back((number, self.send(&mut pipeline, number)?));
        }
        while !unanswered.is_empty() {
            self.settle(&mut pipeline, &mut unanswered)?;
        }
        Ok(())
    }

    fn send<'p>(&mut self, pipeline: &mut Pipeline<'p>, number: u64) -> Result<Ticket<'p>, String> {
        let key = key(number);
        self.model.sent(number, self.pass);
        let request = if self.pass == Pass::Delete {
            Request::delete(&key, Condition::None)
        } else {
            self.model.values().fill(&mut self.value, number, self.pass as u8);
            Request::put(&key, &self.value, Condition::None)
        };
        pipeline.submit(&request).map_err(|error| error.to_string())
    }

    /// Waits for the oldest answer; a write that was refused for the moment goes to the end.
    fn settle<'p>(
        &mut self,
        pipeline: &mut Pipeline<'p>,
        unanswered: &mut VecDeque<(u64, Ticket<'p>)>,
    ) -> Result<(), String> {
        let Some((number, ticket)) = unanswered.pop_front() else {
            return Ok(());
        };
        match pipeline.wait(ticket) {
            Ok(Answer::Write(Written { applied: true, .. })) => {
                self.model.acknowledged(number, self.pass);
                self.progress.answered.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Err(Error::Server {
                code: ErrorCode::Busy,
                retry_after_ms,
                ..
            }) => {
                self.model.refused(number);
                self.progress.refused.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(u64::from(retry_after_ms)));
                let ticket = self.send(pipeline, number)?;
                unanswered.push_back((number, ticket));
                Ok(())
            }
            Ok(other) => Err(format!("an answer that fits no write of ours: {other:?}")),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Reads a client's part of all keys.
///
/// # Errors
/// A sentence, if a read is not answered, or a signal comes. What is wrong with keys is in the findings.
pub fn read(address: &str, model: &Model, client: u64, cpu: usize) -> Result<Findings, String> {
    machine::pin_thread(cpu)?;
    let mut connection = connect(address)?;
    let mut pipeline = connection.pipeline();
    let mut unanswered = VecDeque::with_capacity(WINDOW);
    let mut findings = Findings::default();
    // An order of its own, unlike that of any pass.
    let salt = Pass::Delete as u64 + 1;
    for (count, number) in numbers(model.keys(), salt, client).enumerate() {
        if (count as u64).is_multiple_of(LOOK_EVERY) {
            machine::check_signals()?;
        }
        if unanswered.len() >= WINDOW {
            take_found(&mut pipeline, &mut unanswered, model, &mut findings)?;
        }
        let ticket = pipeline.get(&key(number)).map_err(|error| error.to_string())?;
        unanswered.push_back((number, ticket));
    }
    while !unanswered.is_empty() {
        take_found(&mut pipeline, &mut unanswered, model, &mut findings)?;
    }
    Ok(findings)
}

/// Waits for the oldest answer to a get.
fn take_found<'p>(
    pipeline: &mut Pipeline<'p>,
    unanswered: &mut VecDeque<(u64, Ticket<'p>)>,
    model: &Model,
    findings: &mut Findings,
) -> Result<(), String> {
    let Some((number, ticket)) = unanswered.pop_front() else {
        return Ok(());
    };
    match pipeline.wait(ticket).map_err(|error| error.to_string())? {
        Answer::Get(found) => {
            findings.look(model, number, found.as_ref().map(|found| found.value.as_slice()));
            Ok(())
        }
        other => Err(format!("an answer that fits no get of ours: {other:?}")),
    }
}

/// Scans everything.
///
/// # Errors
/// A sentence, if the scan fails, or a signal comes.
pub fn scan(address: &str, model: &Model, cpu: usize) -> Result<(Findings, Duration), String> {
    machine::pin_thread(cpu)?;
    let mut connection = connect(address)?;
    let begun = Instant::now();
    let mut findings = Findings::default();
    let keys = model.keys();
    let bound = |part: u64| (u128::from(keys) * u128::from(part) / u128::from(SCAN_PARTS)) as u64;
    for part in 0..SCAN_PARTS {
        let (first, behind) = (bound(part), bound(part + 1));
        let options = ScanOptions {
            // What lies before or behind all our keys is nobody's, and is to be seen.
            start: if part == 0 {
                Vec::new()
            } else {
                key(first).to_vec()
            },
            end: (part + 1 < SCAN_PARTS).then(|| key(behind).to_vec()),
            ..ScanOptions::default()
        };
        let mut next = first;
        for entry in connection.scan(options) {
            let entry = entry.map_err(|error| error.to_string())?;
            let Some(number) = number_of(&entry.key).filter(|number| (next..behind).contains(number)) else {
                findings.foreign(&entry.key);
                continue;
            };
            for missing in next..number {
                findings.look(model, missing, None);
            }
            findings.look(model, number, Some(&entry.value));
            if number.is_multiple_of(LOOK_EVERY) {
                machine::check_signals()?;
            }
            next = number + 1;
        }
        for missing in next..behind {
            findings.look(model, missing, None);
        }
    }
    Ok((findings, begun.elapsed()))
}

impl Findings {
    fn look(&mut self, model: &Model, number: u64, value: Option<&[u8]>) {
        self.checked += 1;
        let Err(fault) = model.read(number, value) else {
            return;
        };
        match fault {
            Fault::Lost => self.lost += 1,
            Fault::Wrong => self.wrong += 1,
            Fault::Risen => self.risen += 1,
        }
        if self.sentences.len() < SENTENCES {
            self.sentences.push(model.sentence(fault, number, value));
        }
    }

    fn foreign(&mut self, key: &[u8]) {
        self.foreign += 1;
        if self.sentences.len() < SENTENCES {
            let key = String::from_utf8_lossy(key);
            self.sentences
                .push(format!("a key that nobody wrote, or out of order: {key}"));
        }
    }

    /// Adds those of another.
    pub fn add(&mut self, other: Findings) {
        self.checked += other.checked;
        self.lost += other.lost;
        self.wrong += other.wrong;
        self.risen += other.risen;
        self.foreign += other.foreign;
        self.sentences.extend(other.sentences);
        self.sentences.truncate(SENTENCES);
    }

    /// Keys that are not as they should be.
    pub fn faults(&self) -> u64 {
        self.lost + self.wrong + self.risen + self.foreign
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_share_the_keys() {
        let mut all: Vec<u64> = (0..CLIENTS).flat_map(|client| numbers(1001, 2, client)).collect();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..1001));
    }
}
