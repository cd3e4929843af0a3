//! What takes several requests, without the asking: a multi-get of many keys, a scan of many pages.
//!
//! Both drivers ask; what to ask next, and whether the answer can be right, is decided here.

use ostrakon_wire::limits::{MULTI_MAX, SCAN_LIMIT_MAX};
use ostrakon_wire::message::{ScanEntry, ScanReply, ScanRequest};

use crate::error::ProtocolError;
use crate::options::ScanOptions;
use crate::values::{Entry, MultiValue, Page, Value};

/// A multi-get: until no value is missing, the next keys to ask for.
#[derive(Debug)]
pub(crate) struct MultiGetSteps<'a> {
    keys: &'a [&'a [u8]],
    values: Vec<Option<Value>>,
    /// Positions of the keys that are not answered; the first `asked` of them are asked for.
    missing: Vec<usize>,
    asked: usize,
    at_once: usize,
}

impl<'a> MultiGetSteps<'a> {
    /// `multi_max` is the server's bound.
    pub(crate) fn new(keys: &'a [&'a [u8]], multi_max: u32) -> MultiGetSteps<'a> {
        MultiGetSteps {
            keys,
            values: vec![None; keys.len()],
            missing: (0..keys.len()).collect(),
            asked: 0,
            at_once: (multi_max as usize).clamp(1, MULTI_MAX),
        }
    }

    /// The next keys to ask for.
    pub(crate) fn next(&mut self) -> Option<Vec<&'a [u8]>> {
        self.asked = self.missing.len().min(self.at_once);
        let keys = |position: &usize| self.keys[*position];
        (self.asked > 0).then(|| self.missing[..self.asked].iter().map(keys).collect())
    }

    /// Takes the answer to what was asked last.
    pub(crate) fn take(&mut self, answers: Vec<MultiValue>) -> Result<(), ProtocolError> {
        check_count(self.asked, answers.len())?;
        if answers.iter().all(|answer| *answer == MultiValue::Omitted) {
            return Err(ProtocolError::NothingRead);
        }
        let asked: Vec<usize> = self.missing.drain(..self.asked).collect();
        for (position, answer) in asked.into_iter().zip(answers) {
            match answer {
                MultiValue::Found(value) => self.values[position] = Some(value),
                MultiValue::NotFound => {}
                MultiValue::Omitted => self.missing.push(position),
            }
        }
        Ok(())
    }

    /// The values, in the order of the keys.
    pub(crate) fn finish(self) -> Vec<Option<Value>> {
        assert!(
            self.missing.is_empty(),
            "a multi-get ends when nothing is missing"
        );
        self.values
    }
}

/// Are there as many elements in a response as keys in its request?
pub(crate) fn check_count(expected: usize, found: usize) -> Result<(), ProtocolError> {
    if expected == found {
        Ok(())
    } else {
        Err(ProtocolError::Count { expected, found })
    }
}

/// A scan: page after page, all of one snapshot.
#[derive(Debug)]
pub(crate) struct ScanSteps {
    /// Those of the next page: its start, or in reverse its end, moves on from page to page.
    options: ScanOptions,
    /// Of the first page; 0 before it.
    snapshot: u64,
    /// Entries that may still come.
    left: u64,
    is_over: bool,
}

impl ScanSteps {
    pub(crate) fn new(options: ScanOptions) -> ScanSteps {
        let left = match options.limit {
            0 => u64::MAX,
            limit => limit,
        };
        ScanSteps {
            options,
            snapshot: 0,
            left,
            is_over: false,
        }
    }

    pub(crate) fn snapshot(&self) -> u64 {
        self.snapshot
    }

    /// The next page to ask for.
    pub(crate) fn next(&self) -> Option<ScanRequest<'_>> {
        if self.is_over {
            return None;
        }
        let options = &self.options;
        let limit = match options.page_limit {
            0 if self.left > u64::from(SCAN_LIMIT_MAX) => 0,
            0 => self.left as u32,
            limit => self.left.min(u64::from(limit)) as u32,
        };
        Some(ScanRequest {
            start: &options.start,
            end: options.end.as_deref(),
            limit,
            snapshot: self.snapshot,
            keys_only: options.keys_only,
            prefix: &options.prefix,
            reverse: options.reverse,
        })
    }

    /// Takes the page that was asked for last, and moves on behind it.
    pub(crate) fn take(&mut self, page: Page) -> Result<Vec<Entry>, ProtocolError> {
        let request = self.next().expect("a page was asked for");
        if let Some(detail) = complaint(&request, &page) {
            self.stop();
            return Err(ProtocolError::ScanPage { detail });
        }
        self.snapshot = page.snapshot;
        self.left = self.left.saturating_sub(page.entries.len() as u64);
        match page.resume_key {
            Some(resume_key) if self.options.reverse => self.options.end = Some(resume_key),
            Some(resume_key) => self.options.start = resume_key,
            None => self.stop(),
        }
        self.is_over |= self.left == 0;
        Ok(page.entries)
    }

    /// No page is asked for any more.
    pub(crate) fn stop(&mut self) {
        self.is_over = true;
    }
}

/// What is wrong with a page, if anything. That its keys are in order and that it resumes after them is checked when
/// it is decoded.
fn complaint(request: &ScanRequest<'_>, page: &Page) -> Option<&'static str> {
    if page.snapshot == 0 || (request.snapshot != 0 && page.snapshot != request.snapshot) {
        return Some("is not of the scan's snapshot");
    }
    if request.limit != 0 && page.entries.len() > request.limit as usize {
        return Some("has more entries than were asked for");
    }
    let entries: Vec<ScanEntry<'_>> = page.entries.iter().map(Entry::as_received).collect();
    let reply = ScanReply {
        snapshot: page.snapshot,
        entries: entries[..].into(),
        resume_key: page.resume_key.as_deref(),
    };
    (!reply.fits(request)).then_some("does not fit what was asked for, or leads nowhere")
}
