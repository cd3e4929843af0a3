//! A shard replica that recovery is filling from its log, and what an entry does to a shard's state.

use std::path::Path;
use std::rc::Rc;

use ostrakon_core::hlc::{Hlc, Timestamp};
use ostrakon_core::raft::{EntryId, HardState, Input, Outputs, Raft, ReplicaId};
use ostrakon_core::sessions::{Answer, Numbers, Sessions};
use ostrakon_wire::routing::ShardId;

use super::command::{Body, Change, Command, parse_number};
use super::host::memtable_hash;
use super::replica::ShardReplica;
use crate::log::format::{OwnershipEpoch, ShardState};
use crate::storage::memtable::Mutation;
use crate::storage::store::files::{OpenedFiles, ShardFiles, StoreEnv, shard_directory};
use crate::storage::store::keys::{RECORD, parse_session_key, session_key};
use crate::storage::store::tables::Tables;
use crate::storage::store::{OwnRecords, Store};

/// The state that the entries of a shard's log make, the same for every replica and every replay.
pub(super) struct Applied {
    pub(super) store: Store,
    pub(super) sessions: Sessions,
    /// The highest ceiling: no leader's clock will ever be below it.
    pub(super) ceiling: Timestamp,
    /// Nobody reads below it.
    pub(super) watermark: Timestamp,
}

impl Applied {
    /// The state that is in these tables, with what the shard keeps for itself in them.
    fn restore(tables: Rc<Tables>, own: &OwnRecords) -> Result<Applied, String> {
        let mut applied = Applied {
            store: Store::new(tables),
            sessions: Sessions::new(),
            ceiling: Timestamp::ZERO,
            watermark: Timestamp::ZERO,
        };
        // The shard's own record comes first.
        for (key, value) in own {
            let value = value.as_deref().unwrap_or_default();
            let is_known = match parse_session_key(key) {
                Some(id) => applied.sessions.restore_session(id, value),
                None if *key == RECORD => applied.restore_record(value).is_some(),
                None => false,
            };
            if !is_known {
                return Err(format!(
                    "a record of the shard itself does not parse, its key is {key:02x?}"
                ));
            }
        }
        Ok(applied)
    }

    /// ```text
    /// ceiling (8) | watermark (8) | progress of the sessions (32)
    /// ```
    fn restore_record(&mut self, value: &[u8]) -> Option<()> {
        let (ceiling, rest) = value.split_first_chunk::<8>()?;
        let (watermark, progress) = rest.split_first_chunk::<8>()?;
        self.ceiling = Timestamp(u64::from_le_bytes(*ceiling));
        self.watermark = Timestamp(u64::from_le_bytes(*watermark));
        self.sessions = Sessions::restore(progress)?;
        Some(())
    }

    /// Seals the memtable. `through` is the entry that was applied last.
    pub(super) fn seal(&mut self, through: EntryId) {
        let record = [
            &self.ceiling.0.to_le_bytes()[..],
            &self.watermark.0.to_le_bytes(),
            &self.sessions.encode_progress(),
        ];
        let mut own: OwnRecords = vec![(RECORD.to_vec(), Some(record.concat()))];
        self.sessions
            .take_changes(|id, bytes| own.push((session_key(id), bytes.map(<[u8]>::to_vec))));
        self.store.seal(through, own);
    }

    /// What it takes of the memory budget.
    pub(super) fn memory_bytes(&self) -> usize {
        self.store.memory_bytes() + self.sessions.memory_bytes()
    }

    /// Applies an entry of the log as it was read.
    fn apply(&mut self, command: &Command<'_>) {
        let version = command.timestamp;
        let mut numbers = Vec::new();
        let answer = match command.body {
            Body::Ceiling { horizon, watermark } => {
                return self.advance_ceiling(command.timestamp, horizon, watermark);
            }
            Body::Failure(failure) => Answer::Failed(failure),
            Body::DeleteRange { start, end } => {
                self.store.insert_range(start, end, version);
                applied(version, &[])
            }
            Body::Write { key, change } => {
                self.change(memtable_hash(key), key, version, &change, &mut numbers);
                applied(version, &numbers)
            }
            Body::Batch(operations) => {
                for (key, change) in operations.iter() {
                    self.change(memtable_hash(key), key, version, &change, &mut numbers);
                }
                let version = if operations.is_empty() {
                    Timestamp::ZERO
                } else {
                    version
                };
                applied(version, &numbers)
            }
        };
        if let Some(retry) = &command.retry {
            self.sessions.apply(retry, answer);
        }
    }

    pub(super) fn advance_ceiling(&mut self, ceiling: Timestamp, horizon: Timestamp, watermark: Timestamp) {
        self.ceiling = self.ceiling.max(ceiling);
        self.watermark = self.watermark.max(watermark);
        self.sessions.advance_horizon(horizon);
    }

    /// Changes one key; a sum goes to `numbers`.
    pub(super) fn change(
        &mut self,
        hash: u64,
        key: &[u8],
        version: Timestamp,
        change: &Change<'_>,
        numbers: &mut Vec<i64>,
    ) {
        let mutation = match *change {
            Change::Put {
                value,
                expiry,
                is_sum,
            } => {
                if is_sum {
                    numbers.push(parse_number(value).expect("a sum is a number"));
                }
                Mutation::Put { value, expiry }
            }
            Change::Delete => Mutation::Tombstone,
        };
        self.store.insert(hash, key, version, mutation);
    }
}

/// Does this parse as something that a shard keeps for itself in its tables?
pub fn is_own_record(key: &[u8], value: &[u8]) -> bool {
    let own = vec![(key.to_vec(), Some(value.to_vec()))];
    Applied::restore(Rc::default(), &own).is_ok()
}

/// The answer to a write that was applied.
pub(super) fn applied(version: Timestamp, numbers: &[i64]) -> Answer {
    Answer::Applied {
        version,
        numbers: Numbers::new(numbers),
    }
}

/// A shard replica that recovery is filling.
pub struct Recovering {
    files: Rc<ShardFiles>,
    /// All entries up to this one are in tables.
    flushed: EntryId,
    last: EntryId,
    /// Entries that were replayed.
    replayed: u64,
    applied: Applied,
    sync_failure: Option<String>,
    /// The manifest has found no room for a record, which may last all the same: each further try would leave another
    /// table behind.
    is_in_doubt: bool,
}

impl Recovering {
    /// A shard with what its tables have. Its log goes on behind the entry that was flushed last; it must not begin
    /// later than that: `base` is the entry before its first.
    ///
    /// # Errors
    /// A sentence, when a file can't be read, is damaged or missing.
    pub async fn open(
        env: &StoreEnv,
        data: &Path,
        shard: ShardId,
        base: EntryId,
    ) -> Result<Recovering, String> {
        let opened = ShardFiles::open(env, data, shard)
            .await
            .map_err(|error| error.to_string())?;
        let OpenedFiles {
            files,
            tables,
            flushed,
            sync_failure,
        } = opened;
        let directory = shard_directory(data, shard);
        if flushed.index < base.index {
            return Err(format!(
                "{} has what was flushed up to entry {} of shard {}, and the log begins behind entry {}: tables or \
                 the manifest are missing, or older than the log. Restore the directory",
                directory.display(),
                flushed.index.0,
                shard.0,
                base.index.0
            ));
        }
        let own = files
            .own_records(&tables)
            .await
            .map_err(|error| error.to_string())?;
        let applied = Applied::restore(tables, &own)
            .map_err(|finding| format!("{}: {finding}", directory.display()))?;
        Ok(Recovering {
            files,
            flushed,
            last: flushed,
            replayed: 0,
            applied,
            sync_failure,
            is_in_doubt: false,
        })
    }

    fn shard(&self) -> ShardId {
        self.files.shard()
    }

    /// Applies the next entry of the shard's log, unless it is in tables already.
    ///
    /// # Errors
    /// A sentence, when the entry does not follow the one before or does not parse.
    pub fn replay(&mut self, entry: EntryId, payload: &[u8]) -> Result<(), String> {
        if entry.index <= self.flushed.index {
            return Ok(());
        }
        if entry.index != self.last.index.next() || entry.term < self.last.term {
            return Err(format!(
                "shard {}: expected entry {} of term {} or later, found entry {} of term {}",
                self.shard().0,
                self.last.index.0 + 1,
                self.last.term.0,
                entry.index.0,
                entry.term.0
            ));
        }
        let command = Command::decode(payload)
            .ok_or_else(|| format!("shard {}: entry {} does not parse", self.shard().0, entry.index.0))?;
        self.applied.apply(&command);
        self.last = entry;
        self.replayed += 1;
        Ok(())
    }

    /// Entries of its log that were replayed.
    pub fn replayed(&self) -> u64 {
        self.replayed
    }

    /// Is all that was replayed in tables?
    pub fn is_flushed(&self) -> bool {
        self.last.index <= self.flushed.index
    }

    /// How the sync of its manifest failed, after which that was written anew.
    pub fn sync_failure(&self) -> Option<&str> {
        self.sync_failure.as_deref()
    }

    /// What it takes of the memory budget.
    pub fn memory_bytes(&self) -> usize {
        self.applied.memory_bytes()
    }

    /// Makes a table of what was replayed, for want of memory or of space for the log; if there was no room for one
    /// before, of what was replayed until then. False if all is in tables, or there is no room: it stays in memory
    /// then.
    ///
    /// # Errors
    /// A sentence, when the table or the manifest can't be written.
    pub async fn flush(&mut self) -> Result<bool, String> {
        if self.is_flushed() || self.is_in_doubt {
            return Ok(false);
        }
        if self.applied.store.sealed().len() == 0 {
            self.applied.seal(self.last);
        }
        let store = &mut self.applied.store;
        let sealed = Rc::clone(store.sealed().next().expect("it was sealed, now or before"));
        let below = Rc::clone(store.tables());
        let made = self.files.flush(&sealed, &below, self.applied.watermark).await;
        let (edit, opened) = match made {
            Ok(made) => made,
            Err(error) if error.is_disk_full() => return Ok(false),
            Err(error) => return Err(error.to_string()),
        };
        let tables = below.after(&edit, &opened);
        let tables = tables.expect("a flush comes on top of the tables that it was made for");
        match self.files.note(edit, Some(sealed.through), |_| {}).await {
            Ok(()) => {}
            Err(error) if error.is_disk_full() => {
                // So their files stay, and the next start knows.
                self.is_in_doubt = true;
                for table in opened {
                    // It was only read.
                    let _ = table.close().await;
                }
                return Ok(false);
            }
            Err(error) => return Err(error.to_string()),
        }
        store.flushed(Rc::new(tables));
        self.flushed = sealed.through;
        Ok(true)
    }

    /// The replica, about to campaign: its hard state (the returned one) must be durable before
    /// [`ShardReplica::hard_state_durable`]. The core's clock moves above everything in the shard.
    pub fn finish(
        self,
        replica: ReplicaId,
        epoch: OwnershipEpoch,
        hard_state: HardState,
        hlc: &mut Hlc,
    ) -> (ShardReplica, ShardState) {
        hlc.observe(self.applied.ceiling);
        let mut raft = Raft::recovered(replica, hard_state, self.last, self.last.index);
        let mut outputs = Outputs::default();
        raft.step(Input::Campaign, &mut outputs)
            .expect("a campaign is always accepted");
        let hard_state = outputs.hard_state.expect("a campaign has a hard state");
        let sealed = self.applied.store.sealed().next_back();
        let sealed_through = sealed.map_or(self.flushed, |sealed| sealed.through);
        let replica = ShardReplica::new(self.files, epoch, raft, (self.last, sealed_through), self.applied);
        let state = ShardState {
            hard_state,
            base: self.flushed,
            complete: true,
        };
        (replica, state)
    }
}
