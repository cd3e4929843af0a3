//! What a node may take for its data, and how it keeps its tables: for most seeds so little and so small that memtables
//! are flushed and tables merged all the time.

use core::time::Duration;

use ostrakon::server::scrub::ScrubOptions;
use ostrakon::shard::host::HostOptions;
use ostrakon::storage::sstable::builder::TableOptions;
use ostrakon::storage::sstable::format::Codec;
use ostrakon::storage::store::files::StoreOptions;
use ostrakon_core::lsm::{CompactionStrategy, Options};
use serde::{Deserialize, Serialize};

use crate::sim::{HostDisk, SimRandom};

/// Bytes of memtables with which a node refuses no write for want of memory, whatever sessions there are.
const MEMTABLE_AMPLE_BYTES: usize = 16 << 20;

/// How the storage of a run is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StorageChoice {
    /// By [`Storage::draw`] from this seed.
    Drawn(u64),
    /// [`Storage::tiny`].
    Tiny,
    /// [`Storage::ample`].
    Ample,
}

impl StorageChoice {
    /// The storage.
    pub fn storage(self) -> Storage {
        match self {
            StorageChoice::Drawn(seed) => Storage::draw(&SimRandom::stream(seed, "storage", &[])),
            StorageChoice::Tiny => Storage::tiny(),
            StorageChoice::Ample => Storage::ample(),
        }
    }
}

/// Options of a node's storage.
#[derive(Clone, Copy, Debug)]
pub struct Storage {
    /// Memory and times.
    pub host: HostOptions,
    /// Tables.
    pub store: StoreOptions,
    /// How damage is looked for.
    pub scrub: ScrubOptions,
}

impl Storage {
    /// So much memory for a core that a run does not come to its end, and nothing is flushed.
    pub fn ample() -> Storage {
        Storage {
            host: HostOptions::for_memory(256 << 20),
            store: StoreOptions::default(),
            scrub: ScrubOptions {
                bytes_per_second: 1 << 20,
                interval: Duration::from_millis(500),
            },
        }
    }

    /// Small memtables, tables and blocks, and a short memory of old versions.
    pub fn draw(random: &SimRandom) -> Storage {
        let storage = Storage::small(random);
        if random.one_in(8) {
            return Storage {
                host: HostOptions {
                    memtable_bytes: 64 << 20,
                    ..storage.host
                },
                ..storage
            };
        }
        storage
    }

    fn small(random: &SimRandom) -> Storage {
        let codecs = [Codec::Plain, Codec::Lz4, Codec::Zstd];
        let codec = codecs[random.index(3)];
        let strategy = if random.one_in(3) {
            CompactionStrategy::Tiered
        } else {
            CompactionStrategy::Leveled
        };
        Storage {
            host: HostOptions {
                memtable_bytes: (100 << random.below(5)) * 1024,
                cache_bytes: random.between(8, 500) as usize * 1024,
                recovery_bytes: random.between(50, 1500) * 1024,
                retention_us: random.between(500_000, 8_000_000),
            },
            store: StoreOptions {
                tables: TableOptions {
                    block_bytes: 256 << random.below(5),
                    codec,
                },
                last_level_codec: random.one_in(2).then(|| codecs[random.index(3)]),
                table_bytes: random.between(4, 40) * 1024,
                compaction: Options {
                    strategy,
                    young_runs: random.between(2, 5) as usize,
                    ratio: random.between(2, 6),
                    base_bytes: random.between(4, 40) * 1024,
                    merge_bytes_max: random.between(16, 400) * 1024,
                    droppable_percent: random.between(5, 80),
                    covered_percent: random.between(5, 80),
                },
            },
            scrub: ScrubOptions {
                bytes_per_second: random.between(100, 4_000) * 1024,
                interval: Duration::from_millis(random.between(20, 2_000)),
            },
        }
    }

    /// For sweeps: each memtable is flushed after a few writes.
    pub fn tiny() -> Storage {
        Storage {
            host: HostOptions {
                memtable_bytes: 24 << 10,
                cache_bytes: 16 << 10,
                recovery_bytes: 64 << 10,
                retention_us: 500_000,
            },
            store: StoreOptions {
                tables: TableOptions {
                    block_bytes: 256,
                    codec: Codec::Lz4,
                },
                last_level_codec: None,
                table_bytes: 4 << 10,
                compaction: Options {
                    strategy: CompactionStrategy::Leveled,
                    young_runs: 2,
                    ratio: 2,
                    base_bytes: 4 << 10,
                    merge_bytes_max: 64 << 10,
                    droppable_percent: 30,
                    covered_percent: 30,
                },
            },
            scrub: ScrubOptions {
                bytes_per_second: 1 << 20,
                interval: Duration::from_secs(5),
            },
        }
    }

    /// May a write be refused for want of memory?
    pub fn has_little_memory(&self) -> bool {
        self.host.memtable_bytes < MEMTABLE_AMPLE_BYTES
    }

    /// The same with so much memory for memtables that no write is refused for want of it.
    pub fn with_ample_memory(self) -> Storage {
        Storage {
            host: HostOptions {
                memtable_bytes: self.host.memtable_bytes.max(MEMTABLE_AMPLE_BYTES),
                ..self.host
            },
            ..self
        }
    }
}

/// Length of each table that is on a disk.
pub fn tables_bytes(disk: &HostDisk) -> impl Iterator<Item = u64> {
    let files = disk.files().into_iter();
    let tables = files.filter(|(path, _)| path.extension().is_some_and(|end| end == "sst"));
    tables.map(|(_, bytes)| bytes)
}
