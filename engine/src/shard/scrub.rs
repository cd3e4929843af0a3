//! What of the shards' files a scrub looks at next. In a round it comes to the manifest of each shard, and to each
//! table that the shard has when its turn comes. It holds one table at a time, so that merged ones can be removed
//! meanwhile.

use std::rc::Rc;

use ostrakon_core::lsm::TableNumber;

use super::host::ShardHost;
use crate::storage::store::files::ShardFiles;
use crate::storage::store::tables::OpenTable;

/// How far a round of the scrub has come.
#[derive(Clone, Copy, Debug, Default)]
pub struct ScrubPlace {
    /// The position of a shard among all of the cluster.
    shard: usize,
    step: Step,
}

#[derive(Clone, Copy, Debug, Default)]
enum Step {
    #[default]
    Manifest,
    /// Tables from one number on, up to those that were made when the turn of the shard had come: others would come
    /// without end.
    Tables(TableNumber, TableNumber),
}

/// What to look at.
pub enum ScrubJob {
    /// The manifest of a shard.
    Manifest(Rc<ShardFiles>),
    /// A table.
    Table(OpenTable),
}

impl ShardHost {
    /// What comes next in a round; `None` at its end.
    pub fn next_scrub(&self, place: &mut ScrubPlace) -> Option<ScrubJob> {
        while let Some(replica) = self.replicas.get(place.shard) {
            if let Some(replica) = replica {
                match place.step {
                    Step::Manifest => {
                        let files = Rc::clone(replica.files());
                        place.step = Step::Tables(TableNumber(0), files.next_number());
                        return Some(ScrubJob::Manifest(files));
                    }
                    Step::Tables(from, end) => {
                        let tables = replica.store().tables();
                        let numbers = tables.tree().tables().map(|info| info.number);
                        let number = numbers.filter(|number| (from..end).contains(number)).min();
                        if let Some(open) = number.and_then(|number| tables.get(number)) {
                            place.step = Step::Tables(TableNumber(open.info.number.0 + 1), end);
                            return Some(ScrubJob::Table(open.clone()));
                        }
                    }
                }
            }
            place.shard += 1;
            place.step = Step::Manifest;
        }
        None
    }

    /// A scrub has read so many more bytes.
    pub fn note_scrubbed(&mut self, bytes: u64) {
        self.upkeep.statistics.scrubbed_bytes += bytes;
    }

    /// A scrub has come upon a place that is damaged and was not before.
    pub fn note_scrub_damage(&mut self) {
        self.upkeep.statistics.scrub_damages += 1;
    }

    /// A scrub has looked at everything once more.
    pub fn note_scrub_round(&mut self) {
        self.upkeep.statistics.scrub_rounds += 1;
    }
}
