//! Requests that lack versions which lie in tables and not in memory: a task reads them, and the request goes on with
//! them.
//!
//! Requests that a connection has under way have no order among themselves, so others may overtake one that waits here.

use std::cell::RefCell;
use std::rc::Rc;

use ostrakon_core::hlc::Timestamp;
use ostrakon_wire::routing::ShardId;

use super::core::{Core, SharedCore};
use super::message::Asker;
use super::several::ValuesFor;
use crate::env::Priority;
use crate::env::together::all;
use crate::limits::{FETCH_KEYS_TOGETHER, FETCH_ROUNDS_MAX, FETCHES_MAX};
use crate::shard::fetched::{Fetched, Missing};
use crate::shard::scan::PageScan;
use crate::shard::{Refusal, Ticket};
use crate::storage::sstable::reader::TableError;

/// A request that lacks something.
pub(super) enum Interrupted {
    /// A get of the newest version.
    Get {
        ticket: Ticket,
        shard: ShardId,
        hash: u64,
        key: Vec<u8>,
    },
    /// A get at a snapshot at which the key is readable.
    GetAt {
        ticket: Ticket,
        shard: ShardId,
        hash: u64,
        key: Vec<u8>,
        snapshot: Timestamp,
    },
    /// A multi-get, with the request's body.
    Values { whom: ValuesFor, body: Vec<u8> },
    /// A multi-get at a snapshot at which its keys are readable.
    ValuesAt {
        whom: ValuesFor,
        body: Vec<u8>,
        snapshot: Timestamp,
    },
    /// A write that has to see its keys, with the request's body.
    Write {
        ticket: Ticket,
        shard: ShardId,
        body: Vec<u8>,
    },
}

impl Core {
    /// Reads what a request lacks, and then goes on with it. `before` is what it had been given.
    pub(super) fn fetch(&mut self, missing: Vec<Missing>, before: &Fetched, request: Interrupted) {
        // A flush came in between, again and again.
        let is_futile = before.rounds() >= FETCH_ROUNDS_MAX;
        if self.fetches >= FETCHES_MAX || is_futile {
            return self.refuse_interrupted(&request, Refusal::Busy);
        }
        let fetched = RefCell::new(Fetched::after(before));
        self.spawn_fetch(async move |core: &SharedCore| {
            let outcome = read_all(&missing, &fetched).await;
            let mut core = core.borrow_mut();
            core.fetch_ended(|core| match outcome {
                Ok(()) => core.resume(request, &fetched.into_inner()),
                Err(error) => core.refuse_interrupted(&request, Refusal::from(&error)),
            });
        });
    }

    /// Reads what a page lacks, and then goes on with it.
    pub(super) fn read_for_page(&mut self, asker: Asker, mut scan: PageScan) {
        if self.fetches >= FETCHES_MAX {
            return self.deliver_page(asker, Err(Refusal::Busy));
        }
        self.spawn_fetch(async move |core: &SharedCore| {
            let outcome = scan.read().await;
            let mut core = core.borrow_mut();
            core.fetch_ended(|core| match outcome {
                Ok(()) if !core.has_room_for_page(asker) => core.deliver_page(asker, Err(Refusal::Busy)),
                Ok(()) => core.go_on_with_page(asker, scan),
                Err(error) => core.deliver_page(asker, Err(Refusal::from(&error))),
            });
        });
    }

    fn spawn_fetch(&mut self, fetch: impl AsyncFnOnce(&SharedCore) + 'static) {
        self.fetches += 1;
        let core = self.itself.upgrade().expect("a core that serves is shared");
        let tasks = Rc::clone(&self.env.tasks);
        tasks.spawn(Priority::Foreground, Box::pin(async move { fetch(&core).await }));
    }

    /// A turn in which a request goes on.
    fn fetch_ended(&mut self, go_on: impl FnOnce(&mut Core)) {
        self.begin_turn();
        self.fetches -= 1;
        go_on(self);
        self.finish_turn();
    }

    fn resume(&mut self, request: Interrupted, fetched: &Fetched) {
        if !self.has_room_for_interrupted(&request) {
            return self.refuse_interrupted(&request, Refusal::Busy);
        }
        match request {
            Interrupted::Get {
                ticket,
                shard,
                hash,
                key,
            } => self.get(ticket, shard, (hash, &key), fetched),
            Interrupted::GetAt {
                ticket,
                shard,
                hash,
                key,
                snapshot,
            } => self.get_at(ticket, shard, (hash, &key), snapshot, fetched),
            Interrupted::Values { whom, body } => self.begin_values(whom, &body, fetched),
            Interrupted::ValuesAt { whom, body, snapshot } => {
                self.read_values(whom, &body, snapshot, fetched);
            }
            Interrupted::Write { ticket, shard, body } => self.execute_again(ticket, shard, &body, fetched),
        }
    }

    /// Is there room for the answer of a read? That of a write finds some always.
    fn has_room_for_interrupted(&mut self, request: &Interrupted) -> bool {
        match request {
            Interrupted::Get { ticket, .. } | Interrupted::GetAt { ticket, .. } => {
                self.has_room_towards(ticket)
            }
            Interrupted::Values { whom, .. } | Interrupted::ValuesAt { whom, .. } => {
                self.has_room_for_values(*whom)
            }
            Interrupted::Write { .. } => true,
        }
    }

    fn refuse_interrupted(&mut self, request: &Interrupted, refusal: Refusal) {
        match request {
            Interrupted::Get { ticket, .. }
            | Interrupted::GetAt { ticket, .. }
            | Interrupted::Write { ticket, .. } => self.refuse(*ticket, refusal),
            Interrupted::Values { whom, .. } | Interrupted::ValuesAt { whom, .. } => {
                self.deliver_values(*whom, Err(refusal));
            }
        }
    }
}

/// Reads some keys at a time.
pub(super) async fn read_all(missing: &[Missing], fetched: &RefCell<Fetched>) -> Result<(), TableError> {
    if let [missing] = missing {
        return missing.read_into(fetched).await;
    }
    for some in missing.chunks(FETCH_KEYS_TOGETHER) {
        all(some.iter().map(|missing| missing.read_into(fetched))).await?;
    }
    Ok(())
}
