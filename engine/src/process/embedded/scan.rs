//! Keys of a range in order, page by page.

use std::vec::IntoIter;

use ostrakon_core::hlc::Timestamp;
use ostrakon_wire::message::{Request, ScanEntry, ScanRequest};

use super::{Engine, EngineError};
use crate::env::CoreId;
use crate::server::core::Core;
use crate::server::programs::{CoreClient, MergedPages};
use crate::shard::scan::ScanRange;

/// What to scan.
#[derive(Clone, Debug, Default)]
pub struct ScanOptions {
    /// First key, inclusive. Empty: from the first key there is.
    pub start: Vec<u8>,
    /// Last key, exclusive. `None`: to the last key there is.
    pub end: Option<Vec<u8>>,
    /// Only keys that begin with this; empty: all.
    pub prefix: Vec<u8>,
    /// From the last key to the first.
    pub reverse: bool,
    /// Leave the values out.
    pub keys_only: bool,
    /// Most entries that are read at a time; 0: as many as fit into a page. For scans that end early.
    pub page_entries: u32,
    /// The timestamp whose state is to be seen; 0: that of now.
    pub snapshot: u64,
}

impl ScanOptions {
    /// All keys.
    pub fn all() -> ScanOptions {
        ScanOptions::default()
    }

    /// The keys that begin with this.
    pub fn prefix(prefix: &[u8]) -> ScanOptions {
        ScanOptions {
            prefix: prefix.to_vec(),
            ..ScanOptions::default()
        }
    }

    /// The keys from `start` on, below `end`.
    pub fn range(start: &[u8], end: &[u8]) -> ScanOptions {
        ScanOptions {
            start: start.to_vec(),
            end: Some(end.to_vec()),
            ..ScanOptions::default()
        }
    }

    fn request(&self) -> ScanRequest<'_> {
        ScanRequest {
            start: &self.start,
            end: self.end.as_deref(),
            limit: self.page_entries,
            snapshot: self.snapshot,
            keys_only: self.keys_only,
            prefix: &self.prefix,
            reverse: self.reverse,
        }
    }
}

/// A part of a scan.
pub struct Page(MergedPages);

impl Page {
    /// Its entries, in the order of the scan.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = ScanEntry<'_>> {
        self.0.entries()
    }

    /// The timestamp whose state it shows.
    pub fn snapshot(&self) -> u64 {
        self.0.snapshot().0
    }
}

/// How far a scan has come.
struct Course {
    /// What is left; none at the end.
    left: Option<ScanRange>,
    /// None before the first page.
    snapshot: Option<Timestamp>,
}

impl Course {
    fn begin(options: &ScanOptions) -> Result<Course, EngineError> {
        let request = options.request();
        Request::Scan(request).check()?;
        Ok(Course {
            left: Some(Core::scan_range(&request)),
            snapshot: (options.snapshot != 0).then_some(Timestamp(options.snapshot)),
        })
    }

    async fn next_page(&mut self, core: &CoreClient) -> Result<Option<Page>, EngineError> {
        let Some(range) = self.left.take() else {
            return Ok(None);
        };
        let page = core.page(range.clone(), self.snapshot).await?;
        self.snapshot = Some(page.snapshot());
        let resume_key = page.resume_key().map(<[u8]>::to_vec);
        self.left = resume_key.map(|key| range.resumed_at(key));
        Ok(Some(Page(page)))
    }
}

/// A scan, on a core.
pub struct Scanner {
    core: CoreClient,
    course: Course,
}

impl Scanner {
    pub(super) fn begin(core: CoreClient, options: &ScanOptions) -> Result<Scanner, EngineError> {
        let course = Course::begin(options)?;
        Ok(Scanner { core, course })
    }

    /// The next part; none at the end.
    ///
    /// # Errors
    /// Why it can't be told. A scan that takes longer than old versions are kept ends with a refusal of the code
    /// `SnapshotTooOld`.
    pub async fn next_page(&mut self) -> Result<Option<Page>, EngineError> {
        self.course.next_page(&self.core).await
    }
}

/// One key of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Vec<u8>,
    /// Its value; empty if values were left out.
    pub value: Vec<u8>,
    /// The timestamp of the write that made it.
    pub version: u64,
    /// The timestamp from which on it is gone; 0: it stays.
    pub expires: u64,
}

/// A scan, for any thread.
pub struct Entries<'a> {
    engine: &'a Engine,
    /// None after an error.
    course: Option<Course>,
    page: IntoIter<Entry>,
}

impl Entries<'_> {
    pub(super) fn begin<'a>(engine: &'a Engine, options: &ScanOptions) -> Result<Entries<'a>, EngineError> {
        Ok(Entries {
            engine,
            course: Some(Course::begin(options)?),
            page: Vec::new().into_iter(),
        })
    }

    /// Entries of the next page; none at the end.
    fn next_page(&mut self) -> Result<Option<Vec<Entry>>, EngineError> {
        let Some(mut course) = self.course.take() else {
            return Ok(None);
        };
        let read = self.engine.call(CoreId(0), |core| async move {
            let page = course.next_page(&core).await;
            let entries =
                page.map(|page| page.map(|page| page.entries().map(|entry| Entry::of(&entry)).collect()));
            (entries, course)
        });
        let (entries, course) = read?;
        // A scan that was stopped is not gone on with.
        self.course = entries.is_ok().then_some(course);
        entries
    }
}

impl Entry {
    fn of(entry: &ScanEntry<'_>) -> Entry {
        Entry {
            key: entry.key.to_vec(),
            value: entry.value.to_vec(),
            version: entry.version,
            expires: entry.expires,
        }
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<Entry, EngineError>;

    fn next(&mut self) -> Option<Result<Entry, EngineError>> {
        loop {
            if let Some(entry) = self.page.next() {
                return Some(Ok(entry));
            }
            match self.next_page() {
                Ok(Some(page)) => self.page = page.into_iter(),
                Ok(None) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
