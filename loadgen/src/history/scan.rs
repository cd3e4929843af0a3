//! The scan of the check phase in the history: one transaction per snapshot, over the range that it came to.
//!
//! A scan is held in memory as text until it is over, some 50 bytes per record.

use super::recorder::identify;
use super::{History, Process, edn};
use crate::value::WriterId;

/// A scan of one snapshot, until it ends.
#[derive(Debug)]
pub(crate) struct ScanRecord {
    process: Process,
    writer: WriterId,
    start: Vec<u8>,
    steps: Vec<u8>,
    versions: Vec<u8>,
}

impl ScanRecord {
    /// The next entry of the scan.
    pub(crate) fn entry(&mut self, key: &[u8], version: u64, bytes: &[u8]) {
        let found = identify(self.writer, key, bytes);
        edn::scan_step(&mut self.steps, &mut self.versions, key, &found, version);
    }

    pub(super) fn process(&self) -> Process {
        self.process
    }

    /// The first key of the range; empty from the first one that there is.
    pub(super) fn start(&self) -> &[u8] {
        &self.start
    }

    pub(super) fn steps(&self) -> &[u8] {
        &self.steps
    }

    pub(super) fn versions(&self) -> &[u8] {
        &self.versions
    }
}

impl History {
    /// A scan from `start` on is about to be asked for.
    ///
    /// # Errors
    /// A sentence, when the history can't be written.
    pub(crate) fn scan_called(&mut self, start: &[u8]) -> Result<ScanRecord, String> {
        let record = ScanRecord {
            process: self.source.new_process(),
            writer: self.source.writer,
            start: start.to_vec(),
            steps: Vec::new(),
            versions: Vec::new(),
        };
        let mut line = Vec::new();
        edn::scan_called(&mut line, self.source.now_ns(), &record);
        self.write(&line)?;
        Ok(record)
    }

    /// A scan is over: it came to its end, or to just below `end`.
    ///
    /// # Errors
    /// A sentence, when the history can't be written.
    pub(crate) fn scan_answered(&mut self, record: &ScanRecord, end: Option<&[u8]>) -> Result<(), String> {
        let mut line = Vec::new();
        edn::scan_answered(&mut line, self.source.now_ns(), record, end);
        self.write(&line)
    }

    /// A scan gave nothing, for this reason.
    ///
    /// # Errors
    /// A sentence, when the history can't be written.
    pub(crate) fn scan_failed(&mut self, record: &ScanRecord, reason: &str) -> Result<(), String> {
        let mut line = Vec::new();
        edn::scan_failed(&mut line, self.source.now_ns(), record, reason);
        self.write(&line)
    }

    /// Writes one line, and flushes: scans are few.
    fn write(&mut self, line: &[u8]) -> Result<(), String> {
        use std::io::Write as _;
        let written = edn::finish_line(&mut self.output, self.next_index, line);
        self.next_index += 1;
        let flushed = written.and_then(|()| self.output.flush());
        flushed.map_err(|error| self.failure(&error))
    }
}
