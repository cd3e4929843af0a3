//! fjall, with a sync for every write. It has no direct IO: the kernel caches its files besides.

use fjall::config::{BlockSizePolicy, CompressionPolicy};
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::load::{Blocking, Outcome, run_threads};
use super::rows::Work;
use super::{OpenEngine, Settings};

/// An open database.
pub struct Fjall {
    database: Database,
    keyspace: Keyspace,
    cpus: Vec<usize>,
}

impl Fjall {
    /// Opens it.
    ///
    /// # Errors
    /// A sentence.
    pub fn open(settings: &Settings) -> Result<Fjall, String> {
        let failed = |error: fjall::Error| error.to_string();
        let database = Database::builder(&settings.directory)
            .cache_size(settings.cache_bytes)
            .worker_threads(settings.cpus.len().max(2))
            .open()
            .map_err(failed)?;
        let options = KeyspaceCreateOptions::default()
            .max_memtable_size(settings.memtable_bytes / 3)
            .data_block_size_policy(BlockSizePolicy::all(4096))
            .data_block_compression_policy(CompressionPolicy::all(CompressionType::Lz4));
        let keyspace = database.keyspace("bench", || options).map_err(failed)?;
        let cpus = settings.cpus.clone();
        Ok(Fjall {
            database,
            keyspace,
            cpus,
        })
    }
}

impl Blocking for Fjall {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), String> {
        self.keyspace
            .insert(key, value)
            .map_err(|error| error.to_string())?;
        self.database
            .persist(PersistMode::SyncData)
            .map_err(|error| error.to_string())
    }

    fn get(&self, key: &[u8]) -> Result<bool, String> {
        let found = self.keyspace.get(key).map_err(|error| error.to_string())?;
        Ok(found.is_some_and(|value| std::hint::black_box(&*value).len() < usize::MAX))
    }

    fn scan(&self, start: &[u8], keys: usize) -> Result<usize, String> {
        let mut count = 0;
        for entry in self.keyspace.range(start.to_vec()..).take(keys) {
            std::hint::black_box(entry.into_inner().map_err(|error| error.to_string())?);
            count += 1;
        }
        Ok(count)
    }
}

impl OpenEngine for Fjall {
    fn run(&self, work: &Work) -> Result<Outcome, String> {
        run_threads(self, work, &self.cpus)
    }

    fn close(self: Box<Self>) -> Result<(), String> {
        Ok(())
    }
}
