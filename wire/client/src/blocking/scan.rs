//! A scan that asks for its pages by itself.

use std::vec;

use ostrakon_wire::message::{Request, ScanRequest};

use super::connection::Connection;
use crate::error::{Error, ProtocolError};
use crate::options::ScanOptions;
use crate::values::{Answer, Entry, Page};

/// Iterator over the entries of a scan, in ascending bytewise order of keys, all as of one snapshot.
///
/// Ends after its first error. [`ostrakon_wire::message::ErrorCode::SnapshotTooOld`] means that it took so
/// long that the server no longer keeps the data of its snapshot.
#[derive(Debug)]
pub struct Scan<'client> {
    connection: &'client mut Connection,
    options: ScanOptions,
    /// Start of the next page; `None`: there is none.
    next_start: Option<Vec<u8>>,
    /// Of the first page; 0 before it.
    snapshot: u64,
    page: vec::IntoIter<Entry>,
}

impl<'client> Scan<'client> {
    pub(super) fn new(connection: &'client mut Connection, options: ScanOptions) -> Scan<'client> {
        let next_start = Some(options.start.clone());
        Scan {
            connection,
            options,
            next_start,
            snapshot: 0,
            page: Vec::new().into_iter(),
        }
    }

    /// The snapshot that is read (a timestamp: microseconds << 12 | counter); 0 before the first page has
    /// come.
    pub fn snapshot(&self) -> u64 {
        self.snapshot
    }

    fn ask(&mut self, start: &[u8]) -> Result<Page, Error> {
        let id = self.connection.start(&Request::Scan(ScanRequest {
            start,
            end: self.options.end.as_deref(),
            limit: self.options.page_limit,
            snapshot: self.snapshot,
            keys_only: self.options.keys_only,
            ..ScanRequest::ALL
        }))?;
        let Answer::Scan(page) = self.connection.finish(id)? else {
            unreachable!("the protocol refuses a response that is no scan page");
        };
        match self.complaint(start, &page) {
            Some(detail) => Err(self
                .connection
                .fail(Error::Protocol(ProtocolError::ScanPage { detail }))),
            None => Ok(page),
        }
    }

    /// What is wrong with a page, if anything. That its keys ascend and that it resumes after them is checked
    /// when it is decoded.
    fn complaint(&self, start: &[u8], page: &Page) -> Option<&'static str> {
        if page.snapshot == 0 || (self.snapshot != 0 && page.snapshot != self.snapshot) {
            return Some("is not of the scan's snapshot");
        }
        if page
            .entries
            .first()
            .is_some_and(|first| first.key.as_slice() < start)
        {
            return Some("starts before the key asked for");
        }
        if let (Some(last), Some(end)) = (page.entries.last(), &self.options.end)
            && last.key >= *end
        {
            return Some("goes on after the end asked for");
        }
        if page
            .resume_key
            .as_deref()
            .is_some_and(|resume_key| resume_key <= start)
        {
            return Some("does not get any further");
        }
        None
    }
}

impl Iterator for Scan<'_> {
    type Item = Result<Entry, Error>;

    fn next(&mut self) -> Option<Result<Entry, Error>> {
        loop {
            if let Some(entry) = self.page.next() {
                return Some(Ok(entry));
            }
            let start = self.next_start.take()?;
            match self.ask(&start) {
                Ok(page) => {
                    self.snapshot = page.snapshot;
                    self.next_start = page.resume_key;
                    self.page = page.entries.into_iter();
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl std::iter::FusedIterator for Scan<'_> {}
