//! Damage at rest: bits that flip and blocks that go bad in tables and manifests of a node that nobody asks for
//! anything. Its scrub must find each, and tell of nothing else.

use std::path::{Path, PathBuf};

use ostrakon::server::node::NodeEvent;

use crate::sim::{DamageRecord, HostDisk, SimRandom};

/// Tables that are damaged besides a manifest.
const TABLES: u64 = 2;

/// Files of the shards that are damaged.
#[derive(Default)]
pub(super) struct AtRest {
    files: Vec<PathBuf>,
}

impl AtRest {
    /// Damages a manifest and some tables, if there are any.
    pub(super) fn strike(disk: &HostDisk, data: &Path, random: &SimRandom) -> AtRest {
        let stored = disk.files().into_iter();
        let stored = stored.filter(|(path, len_bytes)| is_of_shard(path, data) && *len_bytes > 0);
        let (mut tables, mut manifests): (Vec<_>, Vec<_>) =
            stored.partition(|(path, _)| path.extension().is_some());
        let strike = |files: &mut Vec<(PathBuf, u64)>| {
            if files.is_empty() {
                return;
            }
            let (path, len_bytes) = files.swap_remove(random.index(files.len()));
            let offset = random.below(len_bytes);
            if random.one_in(4) {
                disk.spoil(&path, offset);
            } else {
                disk.flip(&path, offset, random.below(8) as u32);
            }
        };
        (0..TABLES).for_each(|_| strike(&mut tables));
        strike(&mut manifests);
        let damaged = disk.outstanding_damage().into_iter().map(|record| record.path);
        let unreadable = disk.unreadable_blocks().into_iter().map(|(path, _)| path);
        let mut files: Vec<PathBuf> = damaged.chain(unreadable).collect();
        files.retain(|path| is_of_shard(path, data));
        files.sort();
        files.dedup();
        AtRest { files }
    }

    /// How many files are damaged.
    pub(super) fn count(&self) -> usize {
        self.files.len()
    }

    /// Files that are damaged still and that no event tells of, or not rightly.
    pub(super) fn unfound(&self, disk: &HostDisk, events: &[NodeEvent]) -> Vec<String> {
        let damage = disk.outstanding_damage();
        let unreadable = disk.unreadable_blocks();
        let mut unfound = Vec::new();
        for file in &self.files {
            let own: Vec<&DamageRecord> = damage.iter().filter(|record| record.path == *file).collect();
            let is_unreadable = unreadable.iter().any(|(path, _)| path == file);
            let told: Vec<&str> = events.iter().filter_map(|event| told_of(event, file)).collect();
            let is_right = |sentence: &&str| match (&own[..], is_unreadable) {
                ([record], false) => offset_in(sentence).is_none_or(|offset| offset <= first_changed(record)),
                _ => true,
            };
            let is_gone = own.is_empty() && !is_unreadable;
            if !is_gone && !told.iter().any(is_right) {
                unfound.push(format!("{}: told {told:?}", file.display()));
            }
        }
        unfound
    }

    /// Is the damage what an event tells of?
    pub(super) fn explains(&self, event: &NodeEvent) -> bool {
        self.files.iter().any(|file| told_of(event, file).is_some())
    }

    /// Puts everything right again.
    pub(super) fn repair(&self, disk: &HostDisk) {
        disk.repair_damage_of(&self.files);
        disk.end_errors(&self.files);
    }
}

/// A table, or a manifest that counts.
fn is_of_shard(path: &Path, data: &Path) -> bool {
    let is_below = path.starts_with(data.join("shard"));
    let is_table = path.extension().is_some_and(|extension| extension == "sst");
    is_below && (is_table || path.ends_with("manifest"))
}

/// What an event tells of the damage of a file.
fn told_of<'a>(event: &'a NodeEvent, file: &Path) -> Option<&'a str> {
    let (NodeEvent::ScrubFound(_, sentence) | NodeEvent::TableUnreadable(_, sentence)) = event else {
        return None;
    };
    sentence
        .contains(&*file.to_string_lossy())
        .then_some(sentence.as_str())
}

fn offset_in(sentence: &str) -> Option<u64> {
    let (_, rest) = sentence.split_once(" at offset ")?;
    let digits = rest.find(|digit: char| !digit.is_ascii_digit());
    rest[..digits.unwrap_or(rest.len())].parse().ok()
}

fn first_changed(record: &DamageRecord) -> u64 {
    let bytes = record.right.iter().zip(&record.found);
    let changed = (record.offset..)
        .zip(bytes)
        .find(|(_, (right, found))| right != found);
    changed.map_or(record.offset, |(offset, _)| offset)
}
