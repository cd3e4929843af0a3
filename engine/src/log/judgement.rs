//! Which damage is corruption, and which is the torn tail of a crash. The rule is that of
//! [`recovery`](super::recovery): what a later batch calls durable must be there. The nearest cause is reported.
//!
//! What an earlier life left in a recycled file is never evidence: none of its batches is intact at a place in the
//! segment that the file is now.

use ostrakon_wire::routing::ShardId;

use super::LogError;
use super::format::{BatchFault, BatchHeader, BatchNumber, BatchPlace, check_batch};
use super::heads::{Opening, misplaced, place_of_head, wrong_file};
use super::reading::Reading;
use super::recovery::{Corruption, CutTail, Scan};
use super::segment::segment_path;
use crate::env::disk::BLOCK_BYTES;
use crate::env::tasks::yield_now;

/// Why a walk stopped.
pub(super) struct Stop {
    pub(super) offset: u64,
    pub(super) fault: BatchFault,
    pub(super) suspects: Vec<ShardId>,
    /// True for what an earlier life of a recycled file left: nothing was written there in this one.
    pub(super) is_former: bool,
}

impl Scan<'_> {
    /// Decides whether the stop is a torn tail or corruption.
    pub(super) async fn judge(
        &mut self,
        at: usize,
        stop: Stop,
        missing: BatchNumber,
        later: &[usize],
    ) -> Result<(), LogError> {
        let path = self.files[at].path.clone();
        if self.covered(later, at, stop.offset, missing).await? {
            let corruption = match (self.broken.take(), self.lost_head(at, later).await?) {
                (Some(broken), _) => broken,
                (None, Some(lost)) => lost,
                (None, None) => {
                    let finding = format!("batch {}: {}", missing.0, stop.fault);
                    Corruption {
                        path,
                        offset: stop.offset,
                        finding,
                        suspects: stop.suspects,
                    }
                }
            };
            self.corruption(corruption)?;
        } else if stop.fault != BatchFault::Blank && !stop.is_former {
            let finding = stop.fault.to_string();
            self.chain.cut = Some(CutTail {
                path,
                offset: stop.offset,
                finding,
                is_corruption: false,
            });
        }
        Ok(())
    }

    /// A head in one of the `later` files, or in file `stopped` itself, that is damaged although a batch
    /// behind it says that it was durable. Then it is the damage, and the walk stopped where its segment
    /// should have gone on.
    async fn lost_head(&self, stopped: usize, later: &[usize]) -> Result<Option<Corruption>, LogError> {
        for &at in later {
            let found = &self.files[at];
            if found.head().is_some() || at < stopped {
                continue;
            }
            let mut first = None;
            let says_so = |header: &BatchHeader| {
                let first: BatchNumber = *first.get_or_insert(header.number);
                header.durable_through.0 + 1 >= first.0
            };
            if self.has_header(at, 0, says_so).await? {
                let finding = "expected the head of a segment that has batches, found other bytes";
                return Ok(Some(wrong_file(&found.path, finding.into())));
            }
        }
        Ok(None)
    }

    pub(super) fn corruption(&mut self, corruption: Corruption) -> Result<(), LogError> {
        if !self.options.cut_corrupt {
            return Err(LogError::Corruption(Box::new(corruption)));
        }
        let Corruption {
            path,
            offset,
            finding,
            ..
        } = corruption;
        self.chain.cut = Some(CutTail {
            path,
            offset,
            finding,
            is_corruption: true,
        });
        Ok(())
    }

    /// True when an intact header at or after `from_offset` of file `from`, or in one of the `later` files,
    /// says that batch `missing` was durable.
    async fn covered(
        &self,
        later: &[usize],
        from: usize,
        from_offset: u64,
        missing: BatchNumber,
    ) -> Result<bool, LogError> {
        let covers = |header: &BatchHeader| header.durable_through >= missing && header.number > missing;
        for &at in later {
            let start = if at == from { from_offset } else { 0 };
            if self.has_header(at, start, covers).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Has a file an intact header like that from an offset on, whatever lies between them? A file that is no segment
    /// of this log has none.
    async fn has_header(
        &self,
        at: usize,
        start: u64,
        mut is_like: impl FnMut(&BatchHeader) -> bool,
    ) -> Result<bool, LogError> {
        let file = &self.files[at];
        if file.wrong().is_some() {
            return Ok(false);
        }
        let segment_bytes = self.options.segment_bytes;
        let mut reading = Reading::open(self.disk, &file.path, segment_bytes).await?;
        let mut found = false;
        for offset in (start..segment_bytes).step_by(BLOCK_BYTES) {
            let place = BatchPlace {
                log: self.log,
                segment: file.sequence,
                offset,
            };
            found =
                intact_header(reading.batch_at(offset).await?, place).is_some_and(|header| is_like(&header));
            if found {
                break;
            }
            if self.tasks.should_yield() {
                yield_now().await;
            }
        }
        reading.close().await?;
        Ok(found)
    }

    /// A head is missing or damaged although `successor` names its segment: corruption if its batches had
    /// been acknowledged, else everything from there on is void. Of such places the last is asked for here, the
    /// first when the walk before it has ended. Returns how many files are still considered; `None` if the chain
    /// is to be followed once more.
    pub(super) async fn broken_chain(
        &mut self,
        newest: usize,
        successor: usize,
        broken: Option<usize>,
    ) -> Result<Option<usize>, LogError> {
        let (_, head) = self.files[successor].head().expect("it named a predecessor");
        let from = broken.unwrap_or(successor);
        let finding = match broken {
            Some(at) => self.files[at].instead_of_head(self.log),
            None => "the segment is missing although a later one continues it".into(),
        };
        let corruption = wrong_file(&segment_path(&self.dir, head.predecessor), finding);
        let later: Vec<usize> = (from..self.files.len()).collect();
        let is_wrong = broken.is_some_and(|at| self.files[at].wrong().is_some());
        if is_wrong || self.covered(&later, from, 0, head.predecessor_last).await? {
            if broken.is_none()
                && successor == 0
                && let Some(lost) = self.freeing_head(newest).await?
            {
                self.corruption(lost)?;
                self.floor = self.files[successor].sequence;
                return Ok(None);
            }
            self.corruption(corruption.clone())?;
        }
        self.broken = Some(corruption);
        Ok(Some(from))
    }

    /// The oldest segments are missing, which the head of `newest` needs. They were freed, if a newer head that
    /// is damaged said so: then that one is the damage.
    async fn freeing_head(&self, newest: usize) -> Result<Option<Corruption>, LogError> {
        let later: Vec<usize> = (newest + 1..self.files.len()).collect();
        if let Some(lost) = self.lost_head(newest, &later).await? {
            return Ok(Some(lost));
        }
        let mut newer = self.files[newest + 1..].iter();
        let damaged = newer.find(|file| matches!(file.opening, Opening::Other));
        Ok(damaged.map(|file| {
            let finding =
                "expected the head of the newest segment, which freed older ones, found other bytes";
            wrong_file(&file.path, finding.into())
        }))
    }

    /// A file that begins with the head of another segment was recycled, if that one had been freed: then it
    /// is older than all that counts. Otherwise it was mixed up.
    pub(super) fn check_former(&mut self) -> Result<(), LogError> {
        let first = self.chain.segments.first().map(|segment| segment.sequence);
        let mixed_up = self.files.iter().find_map(|file| match file.opening {
            Opening::Former(former) if first.is_none_or(|first| former >= first) => Some((file, former)),
            _ => None,
        });
        let Some((file, former)) = mixed_up.filter(|_| !self.is_cut_at_corruption()) else {
            return Ok(());
        };
        let damaged = self
            .files
            .iter()
            .find(|file| matches!(file.opening, Opening::Other));
        let corruption = if let (None, Some(damaged)) = (first, damaged) {
            // The head of another one, which freed the former segment, is the one that is lost.
            wrong_file(&damaged.path, damaged.instead_of_head(self.log))
        } else {
            let place = place_of_head(self.log, file.sequence);
            wrong_file(&file.path, misplaced(place, place_of_head(self.log, former)))
        };
        self.corruption(corruption)
    }

    pub(super) fn is_cut_at_corruption(&self) -> bool {
        self.chain.cut.as_ref().is_some_and(|cut| cut.is_corruption)
    }
}

/// A header whose own checksum holds, whatever its records look like.
fn intact_header(bytes: &[u8], place: BatchPlace) -> Option<BatchHeader> {
    match check_batch(bytes, place) {
        Ok(header) | Err((BatchFault::RecordsChecksum { .. }, Some(header))) => Some(header),
        Err(_) => None,
    }
}
