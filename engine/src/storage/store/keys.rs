//! The keys of a shard's tables: the users' own, and behind another first byte those of what the shard keeps for
//! itself.
//!
//! ```text
//! 00 53               the shard's own record
//! 00 73 id (16)       a session, by its id, big-endian
//! 01 key              a user's key
//! ```
//!
//! A range tombstone without an end ends at 02, behind all users' keys. It covers nothing of what the shard keeps for
//! itself.
//!
//! So a flush carries the state of the shard along with the entries that made it, in one table. Memtables have users'
//! keys as they are. The version of what a shard keeps for itself is the index of the entry at which it was written
//! down.

use std::rc::Rc;

use ostrakon_core::sessions::SessionId;
use xxhash_rust::xxh3::xxh3_64;

use crate::storage::ranges::RangeTombstone;

/// First byte of what a shard keeps for itself; below that of users' keys.
pub const OWN: u8 = 0;
/// First byte of users' keys.
pub const USERS: u8 = 1;
/// The key of the shard's own record.
pub const RECORD: &[u8] = &[OWN, b'S'];

const SESSION: u8 = b's';

/// The key of a session.
pub fn session_key(id: SessionId) -> Vec<u8> {
    let mut key = vec![OWN, SESSION];
    key.extend_from_slice(&id.0.to_be_bytes());
    key
}

/// The session that has this key, if it is one's.
pub fn parse_session_key(key: &[u8]) -> Option<SessionId> {
    let id = key.strip_prefix(&[OWN, SESSION])?.try_into().ok()?;
    Some(SessionId(u128::from_be_bytes(id)))
}

/// Makes a user's key one of tables.
pub fn stored_key(into: &mut Vec<u8>, key: &[u8]) {
    into.clear();
    into.push(USERS);
    into.extend_from_slice(key);
}

/// Makes a range tombstone of users' keys one of tables, where each has an end.
pub fn stored_range(range: &RangeTombstone) -> RangeTombstone {
    let stored = |key: &[u8]| -> Rc<[u8]> { [&[USERS], key].concat().into() };
    RangeTombstone {
        start: stored(&range.start),
        end: Some(range.end.as_deref().map_or([USERS + 1].into(), stored)),
        timestamp: range.timestamp,
    }
}

/// The user's key of one of tables, if it is one's.
pub fn users_key(stored: &[u8]) -> Option<&[u8]> {
    stored.strip_prefix(&[USERS])
}

/// The xxh3-64 by which filters know one of tables' keys: of a user's key that of the key itself.
pub fn stored_hash(stored: &[u8]) -> u64 {
    xxh3_64(users_key(stored).unwrap_or(stored))
}
