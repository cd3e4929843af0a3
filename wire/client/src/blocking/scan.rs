//! A scan that asks for its pages by itself.

use std::vec;

use ostrakon_wire::limits::SCAN_LIMIT_MAX;
use ostrakon_wire::message::{Request, ScanEntry, ScanReply, ScanRequest};

use super::connection::Connection;
use crate::error::{Error, ProtocolError};
use crate::options::ScanOptions;
use crate::values::{Answer, Entry, Page};

/// Iterator over the entries of a scan, in bytewise order of keys (from the last to the first if asked for in
/// reverse), all as of one snapshot.
///
/// Ends after its first error. [`ostrakon_wire::message::ErrorCode::SnapshotTooOld`] means that it took so
/// long that the server no longer keeps the data of its snapshot.
#[derive(Debug)]
pub struct Scan<'client> {
    connection: &'client mut Connection,
    /// Those of the next page: its start, or in reverse its end, moves on from page to page.
    options: ScanOptions,
    /// Entries that may still come.
    left: u64,
    is_over: bool,
    /// Of the first page; 0 before it.
    snapshot: u64,
    page: vec::IntoIter<Entry>,
}

impl<'client> Scan<'client> {
    pub(super) fn new(connection: &'client mut Connection, options: ScanOptions) -> Scan<'client> {
        let left = match options.limit {
            0 => u64::MAX,
            limit => limit,
        };
        Scan {
            connection,
            options,
            left,
            is_over: false,
            snapshot: 0,
            page: Vec::new().into_iter(),
        }
    }

    /// The snapshot that is read (a timestamp: microseconds << 12 | counter); 0 before the first page has
    /// come.
    pub fn snapshot(&self) -> u64 {
        self.snapshot
    }

    /// Asks for the next page, and moves on behind it.
    fn ask(&mut self) -> Result<Vec<Entry>, Error> {
        let options = &self.options;
        let limit = match options.page_limit {
            0 if self.left > u64::from(SCAN_LIMIT_MAX) => 0,
            0 => self.left as u32,
            limit => self.left.min(u64::from(limit)) as u32,
        };
        let request = ScanRequest {
            start: &options.start,
            end: options.end.as_deref(),
            limit,
            snapshot: self.snapshot,
            keys_only: options.keys_only,
            prefix: &options.prefix,
            reverse: options.reverse,
        };
        let id = self.connection.start(&Request::Scan(request))?;
        let Answer::Scan(page) = self.connection.finish(id)? else {
            unreachable!("the protocol refuses a response that is no scan page");
        };
        if let Some(detail) = complaint(&request, &page) {
            let failure = Error::Protocol(ProtocolError::ScanPage { detail });
            return Err(self.connection.fail(failure));
        }
        self.snapshot = page.snapshot;
        self.left = self.left.saturating_sub(page.entries.len() as u64);
        match page.resume_key {
            Some(resume_key) if self.options.reverse => self.options.end = Some(resume_key),
            Some(resume_key) => self.options.start = resume_key,
            None => self.is_over = true,
        }
        self.is_over |= self.left == 0;
        Ok(page.entries)
    }
}

/// What is wrong with a page, if anything. That its keys are in order and that it resumes after them is checked when
/// it is decoded.
fn complaint(request: &ScanRequest<'_>, page: &Page) -> Option<&'static str> {
    if page.snapshot == 0 || (request.snapshot != 0 && page.snapshot != request.snapshot) {
        return Some("is not of the scan's snapshot");
    }
    let entries: Vec<ScanEntry<'_>> = page.entries.iter().map(Entry::as_received).collect();
    let reply = ScanReply {
        snapshot: page.snapshot,
        entries: entries[..].into(),
        resume_key: page.resume_key.as_deref(),
    };
    (!reply.fits(request)).then_some("does not fit what was asked for, or leads nowhere")
}

impl Iterator for Scan<'_> {
    type Item = Result<Entry, Error>;

    fn next(&mut self) -> Option<Result<Entry, Error>> {
        loop {
            if let Some(entry) = self.page.next() {
                return Some(Ok(entry));
            }
            if self.is_over {
                return None;
            }
            match self.ask() {
                Ok(entries) => self.page = entries.into_iter(),
                Err(error) => {
                    self.is_over = true;
                    return Some(Err(error));
                }
            }
        }
    }
}

impl std::iter::FusedIterator for Scan<'_> {}
