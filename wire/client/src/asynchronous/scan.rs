//! A scan that asks for its pages by itself, asynchronously.

use std::vec;

use ostrakon_wire::message::Request;

use super::client::AsyncClient;
use crate::error::Error;
use crate::options::ScanOptions;
use crate::steps::ScanSteps;
use crate::values::Entry;

/// The entries of a scan, in bytewise order of keys (from the last to the first if asked for in reverse), all as of one
/// snapshot. Ends after its first error.
#[derive(Debug)]
pub struct AsyncScan {
    client: AsyncClient,
    steps: ScanSteps,
    page: vec::IntoIter<Entry>,
}

impl AsyncScan {
    pub(super) fn new(client: AsyncClient, options: ScanOptions) -> AsyncScan {
        AsyncScan {
            client,
            steps: ScanSteps::new(options),
            page: Vec::new().into_iter(),
        }
    }

    /// The snapshot that is read (a timestamp: microseconds << 12 | counter); 0 before the first page has
    /// come.
    pub fn snapshot(&self) -> u64 {
        self.steps.snapshot()
    }

    /// The next entry; `None` behind the last. If the future is dropped nothing is lost: the page is asked for again.
    ///
    /// # Errors
    /// See [`Error`]; nothing comes after it.
    pub async fn next(&mut self) -> Option<Result<Entry, Error>> {
        loop {
            if let Some(entry) = self.page.next() {
                return Some(Ok(entry));
            }
            let request = Request::Scan(self.steps.next()?);
            let answer = self.client.ask(&request).await;
            match answer.and_then(|answer| self.steps.take(answer.into_page()).map_err(Error::Protocol)) {
                Ok(entries) => self.page = entries.into_iter(),
                Err(error) => {
                    self.steps.stop();
                    return Some(Err(error));
                }
            }
        }
    }
}
