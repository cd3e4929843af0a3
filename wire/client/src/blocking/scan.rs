//! A scan that asks for its pages by itself.

use std::iter::FusedIterator;
use std::vec;

use ostrakon_wire::message::Request;

use super::driver::Driver;
use crate::error::Error;
use crate::options::ScanOptions;
use crate::steps::ScanSteps;
use crate::values::Entry;

/// Iterator over the entries of a scan, in bytewise order of keys (from the last to the first if asked for in
/// reverse), all as of one snapshot.
///
/// Ends after its first error. [`ostrakon_wire::message::ErrorCode::SnapshotTooOld`] means that it took so
/// long that the server no longer keeps the data of its snapshot.
#[derive(Debug)]
pub struct Scan<'client> {
    driver: &'client mut Driver,
    steps: ScanSteps,
    page: vec::IntoIter<Entry>,
}

impl<'client> Scan<'client> {
    pub(super) fn new(driver: &'client mut Driver, options: ScanOptions) -> Scan<'client> {
        Scan {
            driver,
            steps: ScanSteps::new(options),
            page: Vec::new().into_iter(),
        }
    }

    /// The snapshot that is read (a timestamp: microseconds << 12 | counter); 0 before the first page has
    /// come.
    pub fn snapshot(&self) -> u64 {
        self.steps.snapshot()
    }

    /// The next page; `None` behind the last.
    fn next_page(&mut self) -> Option<Result<Vec<Entry>, Error>> {
        let request = Request::Scan(self.steps.next()?);
        let answer = self
            .driver
            .start(&request)
            .and_then(|call| self.driver.finish(call));
        Some(answer.and_then(|answer| self.steps.take(answer.into_page()).map_err(Error::Protocol)))
    }
}

impl Iterator for Scan<'_> {
    type Item = Result<Entry, Error>;

    fn next(&mut self) -> Option<Result<Entry, Error>> {
        loop {
            if let Some(entry) = self.page.next() {
                return Some(Ok(entry));
            }
            match self.next_page()? {
                Ok(entries) => self.page = entries.into_iter(),
                Err(error) => {
                    self.steps.stop();
                    return Some(Err(error));
                }
            }
        }
    }
}

impl FusedIterator for Scan<'_> {}
