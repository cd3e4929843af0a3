//! The task of a core that reads all tables and manifests of its shards, over and over, at a bounded rate, so that
//! damage is found before somebody needs what lies there.
//!
//! It reads past the cache, and stops neither the node nor itself: each damaged place is told once, and counted. Tables
//! that are merged meanwhile stay open as long as they are looked at.

use core::cell::{Cell, RefCell};
use core::time::Duration;
use std::collections::BTreeSet;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use ostrakon_core::lsm::TableNumber;
use ostrakon_wire::routing::ShardId;

use super::core::SharedCore;
use super::message::CoreBatch;
use super::node::NodeEvent;
use crate::env::local::Notify;
use crate::env::pace::Pace;
use crate::env::{Clock, CoreId, Env, Priority, Tasks};
use crate::limits::{SCRUB_BYTES_PER_SECOND_DEFAULT, SCRUB_INTERVAL_MS, SCRUB_PLACES_MAX};
use crate::log::Log;
use crate::shard::scrub::{ScrubJob, ScrubPlace};
use crate::storage::manifest::MANIFEST;
use crate::storage::store::files::ShardFiles;
use crate::storage::store::tables::OpenTable;
use crate::storage::verify::{Flaw, Reading};

/// Bytes of one read: so few that a request which comes behind it on the device hardly waits.
const PORTION_BYTES: usize = 128 << 10;
/// Rounds begin at least so far apart.
const PAUSE_MIN: Duration = Duration::from_millis(1);

/// How a core scrubs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubOptions {
    /// Bytes a second; 0: not at all.
    pub bytes_per_second: u64,
    /// From the beginning of a round to that of the next one, unless it takes longer.
    pub interval: Duration,
}

impl Default for ScrubOptions {
    /// Once a day, 8 MiB a second.
    fn default() -> ScrubOptions {
        ScrubOptions {
            bytes_per_second: SCRUB_BYTES_PER_SECOND_DEFAULT,
            interval: Duration::from_millis(SCRUB_INTERVAL_MS),
        }
    }
}

/// A damaged place: of a table or, without a number, of the manifest of a shard.
type Place = (ShardId, Option<TableNumber>, u64);

/// The task, for whoever ends it.
pub(super) struct Scrub {
    core: SharedCore,
    id: CoreId,
    log: Log,
    tasks: Rc<dyn Tasks>,
    clock: Rc<dyn Clock>,
    pace: Pace,
    interval: Duration,
    events: Arc<dyn Fn(NodeEvent) + Send + Sync>,
    /// Places that were told.
    told: RefCell<BTreeSet<Place>>,
    is_stopping: Cell<bool>,
    is_running: Cell<bool>,
    wake: Rc<Notify>,
    ended: Notify,
}

impl Scrub {
    /// Starts it, unless its rate is nothing.
    pub(super) fn start(
        core: &SharedCore,
        env: &Env<CoreBatch>,
        options: ScrubOptions,
        events: Arc<dyn Fn(NodeEvent) + Send + Sync>,
    ) -> Rc<Scrub> {
        let pace = Pace::new(Rc::clone(&env.clock), Rc::clone(&env.tasks));
        pace.set_bytes_per_second(options.bytes_per_second);
        let scrub = Rc::new(Scrub {
            core: Rc::clone(core),
            id: env.core,
            log: core.borrow().host.log().clone(),
            tasks: Rc::clone(&env.tasks),
            clock: Rc::clone(&env.clock),
            pace,
            interval: options.interval,
            events,
            told: RefCell::default(),
            is_stopping: Cell::new(false),
            is_running: Cell::new(options.bytes_per_second > 0),
            wake: Rc::default(),
            ended: Notify::default(),
        });
        if scrub.is_running.get() {
            let running = Rc::clone(&scrub);
            let task = async move { running.run().await };
            env.tasks.spawn(Priority::Background, Box::pin(task));
        }
        scrub
    }

    /// Ends it, as soon as the read under way has ended.
    pub(super) async fn stop(&self) {
        self.is_stopping.set(true);
        self.wake.notify();
        while self.is_running.get() {
            self.ended.notified().await;
        }
    }

    fn is_over(&self) -> bool {
        self.is_stopping.get() || self.log.has_failed()
    }

    async fn run(&self) {
        while !self.is_over() {
            let begun = self.clock.monotonic();
            self.round().await;
            if self.is_over() {
                break;
            }
            self.core.borrow_mut().host.note_scrub_round();
            let took = Duration::from_nanos(self.clock.monotonic().since_ns(begun));
            self.pause(self.interval.saturating_sub(took).max(PAUSE_MIN))
                .await;
        }
        self.is_running.set(false);
        self.ended.notify();
    }

    /// Waits so long, or until it is to end.
    async fn pause(&self, pause: Duration) {
        let sleep = self.tasks.sleep(pause);
        let wake = Rc::clone(&self.wake);
        let timer = async move {
            sleep.await;
            wake.notify();
        };
        self.tasks.spawn(Priority::Background, Box::pin(timer));
        self.wake.notified().await;
    }

    /// Looks at everything once.
    async fn round(&self) {
        let mut place = ScrubPlace::default();
        let mut damaged = BTreeSet::new();
        while !self.is_over() {
            let job = self.core.borrow().host.next_scrub(&mut place);
            match job {
                Some(ScrubJob::Manifest(files)) => self.manifest(&files, &mut damaged).await,
                Some(ScrubJob::Table(open)) => self.table(&open, &mut damaged).await,
                None => {
                    // What is whole again, or gone, is told anew if it is damaged once more.
                    *self.told.borrow_mut() = damaged;
                    return;
                }
            }
        }
    }

    async fn manifest(&self, files: &ShardFiles, damaged: &mut BTreeSet<Place>) {
        let path = files.directory().join(MANIFEST);
        match files.verify_manifest().await {
            Ok((bytes, flaws)) => {
                for flaw in flaws {
                    self.found(
                        (files.shard(), None, flaw.offset),
                        &path,
                        &flaw.to_string(),
                        damaged,
                    );
                }
                let (is_wanted, has_read) = (|| !self.is_over(), |bytes| self.note_read(bytes));
                let reading = self.reading(&is_wanted, &has_read);
                reading.spent(bytes as usize).await;
            }
            // The sentence names the file.
            Err(error) => self.tell((files.shard(), None, u64::MAX), error.to_string(), damaged),
        }
    }

    async fn table(&self, open: &OpenTable, damaged: &mut BTreeSet<Place>) {
        let id = open.table.id();
        let (is_wanted, has_read) = (|| !self.is_over(), |bytes| self.note_read(bytes));
        let mut found = |flaw: Flaw| {
            let place = (id.shard, Some(id.number), flaw.offset);
            self.found(place, open.table.path(), &flaw.to_string(), damaged);
        };
        let reading = self.reading(&is_wanted, &has_read);
        open.table.verify(&open.info, reading, &mut found).await;
    }

    fn reading<'a>(&'a self, is_wanted: &'a dyn Fn() -> bool, has_read: &'a dyn Fn(u64)) -> Reading<'a> {
        Reading {
            tasks: &*self.tasks,
            pace: &self.pace,
            portion_bytes: PORTION_BYTES,
            is_wanted,
            has_read,
        }
    }

    fn note_read(&self, bytes: u64) {
        self.core.borrow_mut().host.note_scrubbed(bytes);
    }

    fn found(&self, place: Place, path: &Path, flaw: &str, damaged: &mut BTreeSet<Place>) {
        self.tell(place, format!("{} is damaged {flaw}", path.display()), damaged);
    }

    /// Tells of a place, unless it was told before, or so many are damaged that one more tells nothing new.
    fn tell(&self, place: Place, sentence: String, damaged: &mut BTreeSet<Place>) {
        let is_known = self.told.borrow().contains(&place) || damaged.contains(&place);
        if damaged.len() < SCRUB_PLACES_MAX {
            damaged.insert(place);
        } else if !is_known {
            return;
        }
        if !is_known {
            self.core.borrow_mut().host.note_scrub_damage();
            (self.events)(NodeEvent::ScrubFound(self.id, sentence));
        }
    }
}
