//! The task that keeps a segment in reserve, and sees to those that are full or freed.
//!
//! A freed segment is used again before a new one is made. While the disk is full that is the way in which the log goes
//! on. So that there always is a segment whose head can free others, space for one more of each log stays free when one
//! is begun; where that is not so, the one in reserve is the last, and waits until its head frees another.

use core::time::Duration;
use std::path::Path;
use std::rc::Rc;

use super::LogError;
use super::format::SegmentSequence;
use super::segment::{FillPace, PrepareError, Segment, prepare_segment, recycle_segment, segment_path};
use super::state::Status;
use super::writer::Shared;
use crate::env::File;
use crate::limits::DISK_RESERVE_BYTES;

/// How often a full disk is looked at again.
const DISK_FULL_RETRY: Duration = Duration::from_millis(250);

/// Failures in a row, other than a full disk, after which the log gives up making segments: some 5 seconds.
const PREPARE_FAILURES_MAX: u32 = 20;

/// What there is to do, as of one look at the state.
struct Chores {
    status: Status,
    wants_segment: bool,
    /// A head is on its way that may free some, and space is short.
    waits_for_head: bool,
    /// The segment in reserve is the last one that there is space for.
    is_last: bool,
    closable: Vec<Rc<dyn File>>,
    removable: Vec<SegmentSequence>,
}

/// The task; it ends with the log.
pub(super) async fn keep_segment_ready(shared: Rc<Shared>) {
    let mut failures = 0;
    loop {
        let chores = {
            let mut state = shared.state.borrow_mut();
            Chores {
                status: state.status,
                wants_segment: state.wants_segment(),
                waits_for_head: state.waits_for_head(),
                is_last: state.is_last(),
                closable: state.take_closable(),
                removable: state.live.take_removable(),
            }
        };
        for file in chores.closable {
            if let Err(source) = file.close().await {
                let error = shared.failure("close a full segment before", source);
                shared.fail(&error);
            }
        }
        if chores.status != Status::Running {
            return shared.task_ended();
        }
        remove_freed(&shared, &chores.removable).await;
        if !chores.wants_segment {
            let is_last = !has_space_for_another(&shared).await;
            if is_last != chores.is_last {
                shared.state.borrow_mut().note_last(is_last);
                shared.wake_writers();
                shared.progress.notify();
            }
            shared.prepare_work.notified().await;
            continue;
        }
        if chores.waits_for_head {
            shared.prepare_work.notified().await;
            continue;
        }
        let freed = shared.state.borrow_mut().live.take_recyclable();
        let made = match freed {
            Some(freed) => recycle(&shared, freed).await,
            None => make_next_segment(&shared).await,
        };
        if made.is_err() {
            shared.state.borrow_mut().note_filling(false);
        }
        match made {
            Ok(()) => {
                failures = 0;
                shared.wake_writers();
            }
            Err(PrepareError::NotWanted) => {}
            Err(PrepareError::DiskFull) if shared.state.borrow().live.has_recyclable() => {}
            // It may free some.
            Err(PrepareError::DiskFull) if shared.state.borrow().has_head_under_way() => {
                shared.prepare_work.notified().await;
            }
            // No byte of the log is in doubt, so a lack of descriptors or the like may pass.
            Err(PrepareError::Failed(error)) if failures >= PREPARE_FAILURES_MAX => shared.fail(&error),
            Err(error) => {
                failures = if matches!(error, PrepareError::DiskFull) {
                    0
                } else {
                    failures + 1
                };
                shared.state.borrow_mut().note_none_made();
                shared.progress.notify();
                shared.tasks.sleep(DISK_FULL_RETRY).await;
            }
        }
    }
}

impl FillPace for Shared {
    async fn may_go_on(&self, filled_bytes: u64) -> bool {
        self.state.borrow_mut().note_filling(true);
        loop {
            {
                let state = self.state.borrow();
                if state.status != Status::Running || state.live.has_recyclable() {
                    return false;
                }
                if state.fill_is_due(filled_bytes) {
                    return true;
                }
            }
            self.fill_work.notified().await;
        }
    }
}

/// Removes freed segments. No restart looks at them, so it does not matter which of the names survive a power loss, and
/// one that can't be removed is left to the next start.
async fn remove_freed(shared: &Shared, removable: &[SegmentSequence]) {
    for sequence in removable {
        let path = segment_path(&shared.directory, *sequence);
        if shared.disk.remove(&path).await.is_ok() {
            let mut statistics = shared.statistics.get();
            statistics.segments_removed += 1;
            shared.statistics.set(statistics);
        }
    }
}

async fn recycle(shared: &Shared, freed: SegmentSequence) -> Result<(), PrepareError> {
    let sequence = shared.next_sequence.get();
    let segment = recycle_segment(&*shared.disk, &shared.directory, freed, sequence).await?;
    let mut statistics = shared.statistics.get();
    statistics.segments_recycled += 1;
    shared.statistics.set(statistics);
    provide(shared, segment).await
}

async fn make_next_segment(shared: &Shared) -> Result<(), PrepareError> {
    let sequence = shared.next_sequence.get();
    let directory: &Path = &shared.directory;
    let (disk, tasks) = (&*shared.disk, &*shared.tasks);
    let (segment_bytes, reserve_bytes) = {
        let state = shared.state.borrow();
        (state.config.segment_bytes, state.reserve_bytes())
    };
    let segment = prepare_segment(
        (disk, tasks),
        shared,
        directory,
        sequence,
        segment_bytes,
        reserve_bytes,
    )
    .await?;
    provide(shared, segment).await
}

/// Is there space for a further segment of each of the node's logs, beside what stays free anyway? True if that is not
/// known.
async fn has_space_for_another(shared: &Shared) -> bool {
    let needed_bytes = {
        let config = &shared.state.borrow().config;
        DISK_RESERVE_BYTES + u64::from(config.logs) * config.segment_bytes
    };
    let free_bytes = shared.disk.free_bytes(&shared.directory).await;
    free_bytes.map_or(true, |free_bytes| free_bytes >= needed_bytes)
}

/// Puts the next segment in reserve.
async fn provide(shared: &Shared, segment: Segment) -> Result<(), PrepareError> {
    shared.next_sequence.set(SegmentSequence(segment.sequence.0 + 1));
    let is_last = !has_space_for_another(shared).await;
    let unwanted = shared.state.borrow_mut().provide_segment(segment, is_last);
    if let Some(unwanted) = unwanted {
        return unwanted
            .file
            .close()
            .await
            .map_err(|source| PrepareError::Failed(LogError::io("close segment", &unwanted.path, source)));
    }
    Ok(())
}
