//! `RocksDB`, with direct IO for everything but its log, and a sync for every write.

use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, Direction, IteratorMode, Options, ReadOptions,
    WriteOptions,
};

use super::load::{Blocking, Outcome, run_threads};
use super::rows::Work;
use super::{OpenEngine, Settings};

/// An open database.
pub struct RocksDb {
    database: DB,
    cpus: Vec<usize>,
}

impl RocksDb {
    /// Opens it.
    ///
    /// # Errors
    /// A sentence.
    pub fn open(settings: &Settings) -> Result<RocksDb, String> {
        let mut blocks = BlockBasedOptions::default();
        let cache = Cache::new_lru_cache(settings.cache_bytes as usize);
        blocks.set_block_cache(&cache.map_err(|error| error.to_string())?);
        blocks.set_bloom_filter(10.0, false);
        blocks.set_cache_index_and_filter_blocks(true);
        blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
        blocks.set_format_version(5);
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_block_based_table_factory(&blocks);
        options.set_compression_type(DBCompressionType::Lz4);
        options.set_use_direct_reads(true);
        options.set_use_direct_io_for_flush_and_compaction(true);
        // Two may wait to be flushed while one takes writes.
        options.set_write_buffer_size(settings.memtable_bytes as usize / 3);
        options.set_max_write_buffer_number(3);
        options.set_max_background_jobs(settings.cpus.len().max(2) as i32);
        options.set_level_compaction_dynamic_level_bytes(true);
        options.set_target_file_size_base(32 << 20);
        options.set_max_bytes_for_level_base(64 << 20);
        let database = DB::open(&options, &settings.directory).map_err(|error| error.to_string())?;
        let cpus = settings.cpus.clone();
        Ok(RocksDb { database, cpus })
    }
}

impl Blocking for RocksDb {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let mut options = WriteOptions::default();
        options.set_sync(true);
        self.database
            .put_opt(key, value, &options)
            .map_err(|error| error.to_string())
    }

    fn get(&self, key: &[u8]) -> Result<bool, String> {
        let found = self.database.get_pinned(key).map_err(|error| error.to_string())?;
        Ok(found.is_some_and(|value| std::hint::black_box(&*value).len() < usize::MAX))
    }

    fn scan(&self, start: &[u8], keys: usize) -> Result<usize, String> {
        let mode = IteratorMode::From(start, Direction::Forward);
        let mut count = 0;
        for entry in self
            .database
            .iterator_opt(mode, ReadOptions::default())
            .take(keys)
        {
            std::hint::black_box(entry.map_err(|error| error.to_string())?);
            count += 1;
        }
        Ok(count)
    }
}

impl OpenEngine for RocksDb {
    fn run(&self, work: &Work) -> Result<Outcome, String> {
        run_threads(self, work, &self.cpus)
    }

    fn close(self: Box<Self>) -> Result<(), String> {
        self.database.cancel_all_background_work(true);
        Ok(())
    }
}
