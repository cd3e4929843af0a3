//! The second pass of a restart: the entries of a scanned chain, and the removal of what no chain holds.

use std::path::Path;

use super::LogError;
use super::format::{BatchFault, BatchPlace, Record, check_batch, records};
use super::reading::Reading;
use super::recovery::{Corruption, LogChain};
use super::segment::{log_directory, parse_segment_name, segment_path};
use crate::env::disk::BLOCK_BYTES;
use crate::env::{Disk, Tasks, tasks::yield_now};

/// Reads a scanned chain again and hands every record to `visit`, oldest first.
///
/// # Errors
/// IO errors; corruption when the bytes changed since the scan; what `visit` returns.
pub async fn replay(
    disk: &dyn Disk,
    tasks: &dyn Tasks,
    data: &Path,
    chain: &LogChain,
    segment_bytes: u64,
    visit: &mut dyn FnMut(Record<'_>) -> Result<(), LogError>,
) -> Result<(), LogError> {
    let dir = log_directory(data, chain.log);
    for segment in &chain.segments {
        let path = segment_path(&dir, segment.sequence);
        let mut reading = Reading::open(disk, &path, segment.end_offset.min(segment_bytes)).await?;
        let mut offset = 0;
        while offset < segment.end_offset {
            let batch = reading.batch_at(offset).await?;
            let place = BatchPlace {
                log: chain.log,
                segment: segment.sequence,
                offset,
            };
            let changed = |fault: BatchFault| Corruption {
                path: path.clone(),
                offset,
                finding: format!("the batch was intact a moment ago: {fault}"),
                suspects: Vec::new(),
            };
            let header = check_batch(batch, place)
                .map_err(|(fault, _)| LogError::Corruption(Box::new(changed(fault))))?;
            for record in records(batch, &header).flatten() {
                visit(record)?;
            }
            offset += header.content_bytes().next_multiple_of(BLOCK_BYTES) as u64;
            if tasks.should_yield() {
                yield_now().await;
            }
        }
        reading.close().await?;
    }
    Ok(())
}

/// Removes the segment files of a log that its chain does not hold: those before it, which are not needed, and those
/// that are void. Nothing in these was acknowledged, so it may be cut off anywhere. One that was made ready and was
/// not begun goes too: a write that a killed process left in flight may yet reach it.
///
/// When damage was cut off nothing is removed yet. What was cut off may have a head that freed older segments, and
/// without it these would count as missing until the next head is durable. The next start removes it.
///
/// # Errors
/// IO errors of the removal.
pub async fn remove_void_segments(disk: &dyn Disk, data: &Path, chain: &LogChain) -> Result<(), LogError> {
    if chain.cut.as_ref().is_some_and(|cut| cut.is_corruption) {
        return Ok(());
    }
    let dir = log_directory(data, chain.log);
    let failed = |source| LogError::io("clean up", &dir, source);
    let mut removed = false;
    for entry in disk.list(&dir).await.map_err(failed)? {
        let Some(sequence) = parse_segment_name(&entry.name) else {
            continue;
        };
        let in_chain = chain.segments.iter().any(|segment| segment.sequence == sequence);
        if sequence < chain.next_sequence && !in_chain {
            disk.remove(&dir.join(&entry.name)).await.map_err(failed)?;
            removed = true;
        }
    }
    if removed {
        disk.sync_dir(&dir).await.map_err(failed)?;
    }
    Ok(())
}
