//! Questions to all cores: scans, status and reports. The asking core numbers them and puts the answers together.
//!
//! A scan without a snapshot takes two rounds when there is more than one core. The first asks every core
//! for its clock: whatever was acknowledged before the scan began has a timestamp at or below one of these,
//! so a snapshot above them all misses nothing, whatever the clocks show. The second reads at that snapshot.
//! The snapshot is a new timestamp, for which shards may have to write a ceiling first. If one of the cores has a full
//! disk, it is the highest of the clocks instead: as long as nothing is written, that needs no further ceiling.

use std::collections::BTreeMap;

use ostrakon_core::hlc::Timestamp;
use ostrakon_wire::message::{ErrorCode, ScanReply, ScanRequest};

use super::checkpoints::{CheckpointPart, CheckpointRefusal};
use super::core::Core;
use super::message::{Asker, CoreMessage, GatherId};
use super::programs::{MergedPages, Told};
use super::ranges::RangeGather;
use super::reads::ReadKind;
use super::several::{PutsGather, ValuesGather};
use super::status::report::{CoreReport, StatsReport};
use super::status::{CoreStatus, NodeStatus};
use crate::env::CoreId;
use crate::limits::{REPORTS_MAX, SCANS_MAX, STATUSES_MAX};
use crate::shard::pages::merge_pages;
use crate::shard::scan::{ScanPage, ScanRange};
use crate::shard::{Holder, Refusal, Ticket};

/// Questions of one core that are not answered by all.
#[derive(Default)]
pub(super) struct Gathers {
    under_way: BTreeMap<GatherId, Gather>,
    reports: BTreeMap<GatherId, ReportGather>,
    pub(super) values: BTreeMap<GatherId, ValuesGather>,
    /// Bytes of the parts in `values`.
    pub(super) values_bytes: usize,
    pub(super) puts: BTreeMap<GatherId, PutsGather>,
    pub(super) ranges: BTreeMap<GatherId, RangeGather>,
    next: u64,
}

impl Gathers {
    pub(super) fn is_empty(&self) -> bool {
        let are_several_over = self.values.is_empty() && self.puts.is_empty() && self.ranges.is_empty();
        self.under_way.is_empty() && are_several_over
    }

    /// Is the answer to this question, which was asked for a client, still wanted?
    pub(super) fn wants(&self, id: GatherId) -> bool {
        self.under_way.get(&id).is_some_and(|gather| !gather.is_cancelled)
    }

    pub(super) fn count(&self, is_counted: impl Fn(&GatherKind) -> bool) -> usize {
        let kinds = self.under_way.values().map(|gather| &gather.kind);
        kinds.filter(|kind| is_counted(kind)).count()
    }

    pub(super) fn add(&mut self, ticket: Ticket, outstanding: usize, kind: GatherKind) -> GatherId {
        let id = self.next_id();
        let gather = Gather {
            ticket,
            is_cancelled: false,
            outstanding,
            kind,
        };
        self.under_way.insert(id, gather);
        id
    }

    /// A core has answered a question: takes it if that was the last one.
    pub(super) fn heard(&mut self, id: GatherId, note: impl FnOnce(&mut Gather)) -> Option<Gather> {
        let gather = self.under_way.get_mut(&id).expect("each core answers once");
        note(gather);
        gather.outstanding -= 1;
        if gather.outstanding > 0 {
            return None;
        }
        self.under_way.remove(&id).filter(|gather| !gather.is_cancelled)
    }

    pub(super) fn next_id(&mut self) -> GatherId {
        self.next += 1;
        GatherId(self.next)
    }
}

pub(super) struct Gather {
    pub(super) ticket: Ticket,
    /// The client has been told that it was cancelled. It keeps its place until all cores have answered, so that the
    /// work under way is bounded.
    is_cancelled: bool,
    outstanding: usize,
    pub(super) kind: GatherKind,
}

/// What is done at a timestamp above all clocks.
pub(super) enum Clocked {
    Scan(ScanRange),
    Checkpoint(u64),
}

pub(super) enum GatherKind {
    /// First round of a scan or a checkpoint.
    Clock {
        then: Clocked,
        /// True if the disk of a core that was heard is full.
        is_disk_full: bool,
    },
    /// Second round.
    Scan {
        snapshot: Timestamp,
        /// The client has named it.
        is_named: bool,
        range: ScanRange,
        pages: Vec<ScanPage>,
        refusal: Option<Refusal>,
    },
    Status(Vec<CoreStatus>),
    /// Second round of a checkpoint.
    Checkpoint {
        id: u64,
        snapshot: Timestamp,
        parts: CheckpointPart,
        refusal: Option<CheckpointRefusal>,
    },
    /// The end of one; of one that has failed, with the reason.
    Release {
        id: u64,
        failure: Option<CheckpointRefusal>,
    },
}

impl GatherKind {
    /// Is it about a checkpoint?
    pub(super) fn is_of_checkpoint(&self) -> bool {
        match self {
            GatherKind::Checkpoint { .. } | GatherKind::Release { .. } => true,
            GatherKind::Clock { then, .. } => matches!(then, Clocked::Checkpoint(_)),
            GatherKind::Scan { .. } | GatherKind::Status(_) => false,
        }
    }

    /// Is it of a scan?
    fn is_of_scan(&self) -> bool {
        !matches!(self, GatherKind::Status(_)) && !self.is_of_checkpoint()
    }
}

/// Hears a node's report, on the core that asked for it.
pub(super) type ReportHandler = Box<dyn FnOnce(&mut Core, StatsReport)>;

/// A report that not all cores have contributed to.
struct ReportGather {
    heard: Vec<CoreReport>,
    handler: ReportHandler,
}

impl Core {
    /// Begins a client's scan.
    pub(super) fn ask_scan(&mut self, ticket: Ticket, scan: &ScanRequest<'_>) {
        let snapshot = (scan.snapshot != 0).then_some(Timestamp(scan.snapshot));
        // A snapshot of another time is allowed, one beyond what any clock may show is not.
        if let Some(snapshot) = snapshot
            && let Err(error) = self.observe_client(snapshot)
        {
            let message = error.to_string();
            return self
                .answers()
                .error(ticket, ErrorCode::TimestampAhead, &message, 0);
        }
        self.ask_range(ticket, snapshot, Core::scan_range(scan));
    }

    /// Begins a scan at a snapshot that is not ahead of all clocks, or at one of now.
    pub(super) fn ask_range(&mut self, ticket: Ticket, snapshot: Option<Timestamp>, range: ScanRange) {
        self.answers.counters.scans += 1;
        if self.gathers.count(GatherKind::is_of_scan) >= SCANS_MAX {
            return self.refuse(ticket, Refusal::Busy);
        }
        if let Some(snapshot) = snapshot {
            return self.read_at(ticket, (snapshot, true), range);
        }
        self.ask_clocks(ticket, Clocked::Scan(range));
    }

    /// Takes a timestamp above all cores' clocks.
    pub(super) fn ask_clocks(&mut self, ticket: Ticket, then: Clocked) {
        if self.env.cores == 1 {
            return self.clocks_heard(ticket, then, false);
        }
        let kind = GatherKind::Clock {
            then,
            is_disk_full: false,
        };
        let gather = self.gathers.add(ticket, usize::from(self.env.cores) - 1, kind);
        self.ask_others(|| CoreMessage::AskClock(gather));
    }

    /// This core's clock is not below any other.
    fn clocks_heard(&mut self, ticket: Ticket, then: Clocked, is_disk_full: bool) {
        let snapshot = self.host.read_timestamp(is_disk_full);
        match then {
            Clocked::Scan(range) => self.read_at(ticket, (snapshot, false), range),
            Clocked::Checkpoint(id) => self.checkpoint_at(ticket, id, snapshot),
        }
    }

    /// A core's clock was heard; the batch that brought it has moved this core's clock.
    pub(super) fn clock_heard(&mut self, id: GatherId, is_full_there: bool) {
        let heard = self.gathers.heard(id, |gather| {
            if let GatherKind::Clock { is_disk_full, .. } = &mut gather.kind {
                *is_disk_full |= is_full_there;
            }
        });
        if let Some(gather) = heard
            && let GatherKind::Clock { then, is_disk_full } = gather.kind
        {
            self.clocks_heard(gather.ticket, then, is_disk_full);
        }
    }

    fn read_at(&mut self, ticket: Ticket, (snapshot, is_named): (Timestamp, bool), range: ScanRange) {
        let kind = GatherKind::Scan {
            snapshot,
            is_named,
            range: range.clone(),
            pages: Vec::new(),
            refusal: None,
        };
        let gather = self.gathers.add(ticket, usize::from(self.env.cores), kind);
        let range = range.share_of_one(self.env.cores);
        self.ask_others(|| CoreMessage::AskScan(gather, snapshot, Box::new(range.clone())));
        self.begin_scan(self.id(), gather, snapshot, range);
    }

    /// Reads this core's part of a scan, once its shards are readable at the snapshot.
    pub(super) fn begin_scan(
        &mut self,
        from: CoreId,
        gather: GatherId,
        snapshot: Timestamp,
        range: ScanRange,
    ) {
        let read = self.next_read();
        let asker = Asker { core: from, gather };
        match self.host.prepare_scan(snapshot, read) {
            Ok(waiting) => {
                let kind = ReadKind::Page {
                    asker,
                    snapshot,
                    range,
                };
                self.answers.wait(read, kind, waiting);
            }
            Err(refusal) => self.deliver_page(asker, Err(refusal)),
        }
    }

    pub(super) fn deliver_page(&mut self, asker: Asker, page: Result<ScanPage, Refusal>) {
        if asker.core == self.id() {
            self.page_heard(asker.gather, page);
        } else {
            let bytes = page.as_ref().map_or(0, ScanPage::bytes);
            let message = CoreMessage::Scan(asker.gather, page.map(Box::new));
            self.answers.outboxes[asker.core.index()].push_boxed(message, bytes);
        }
    }

    /// A core's page was heard.
    pub(super) fn page_heard(&mut self, id: GatherId, page: Result<ScanPage, Refusal>) {
        let heard = self.gathers.heard(id, |gather| {
            let is_wanted = !gather.is_cancelled;
            if let GatherKind::Scan { pages, refusal, .. } = &mut gather.kind {
                match page {
                    Ok(page) if is_wanted => pages.push(page),
                    Ok(_) => {}
                    Err(reason) => *refusal = Some(reason),
                }
            }
        });
        let Some(gather) = heard else { return };
        let GatherKind::Scan {
            snapshot,
            is_named,
            range,
            pages,
            refusal,
        } = gather.kind
        else {
            return;
        };
        // A snapshot that this core has taken just now has become too old because clocks have jumped.
        let refusal = refusal.map(|refusal| match refusal {
            Refusal::SnapshotTooOld if !is_named => Refusal::Busy,
            refusal => refusal,
        });
        let ticket = self.gathered(gather.ticket);
        let is_full = ticket.holder == Holder::Client && self.answers.connections.is_full(ticket.connection);
        if let Some(refusal) = refusal.or(is_full.then_some(Refusal::Busy)) {
            return self.refuse(ticket, refusal);
        }
        if ticket.holder == Holder::Program {
            let page = MergedPages::new(snapshot, pages, &range);
            return self.answers.tell_program(ticket, Told::Page(page));
        }
        let merged = merge_pages(&pages, &range);
        let timestamp = self.host.hlc().peek().0;
        let entries: Vec<_> = merged.entries(&pages).collect();
        let reply = ScanReply {
            snapshot: snapshot.0,
            entries: entries.as_slice().into(),
            resume_key: merged.resume_key.as_deref(),
        };
        self.answers().answer(ticket, |encoder, out| {
            encoder.scan_reply(out, ticket.request_id, timestamp, &reply);
        });
    }

    /// Begins to answer a status request.
    pub(super) fn ask_status(&mut self, ticket: Ticket) {
        if self.gathers.count(|kind| matches!(kind, GatherKind::Status(_))) >= STATUSES_MAX {
            return self.refuse(ticket, Refusal::Busy);
        }
        let kind = GatherKind::Status(Vec::new());
        let gather = self.gathers.add(ticket, usize::from(self.env.cores), kind);
        self.ask_others(|| CoreMessage::AskStatus(gather));
        let status = self.status();
        self.status_heard(gather, status);
    }

    /// A core's status was heard.
    pub(super) fn status_heard(&mut self, id: GatherId, status: CoreStatus) {
        let heard = self.gathers.heard(id, |gather| {
            if let GatherKind::Status(cores) = &mut gather.kind {
                cores.push(status);
            }
        });
        let Some(gather) = heard else { return };
        let GatherKind::Status(cores) = gather.kind else {
            return;
        };
        let json = NodeStatus::new(&self.identity, cores).to_json();
        let ticket = self.gathered(gather.ticket);
        let timestamp = self.host.hlc().peek().0;
        self.answers().answer(ticket, |encoder, out| {
            encoder.status_reply(out, ticket.request_id, timestamp, &json);
        });
    }

    /// Asks all cores for their reports, and passes the whole to `handler`. When as many as `reports_max` are asked for
    /// already, the handler is given back.
    pub(super) fn ask_report(
        &mut self,
        reports_max: usize,
        handler: ReportHandler,
    ) -> Result<(), ReportHandler> {
        if self.gathers.reports.len() >= reports_max {
            return Err(handler);
        }
        let id = self.gathers.next_id();
        let heard = Vec::with_capacity(usize::from(self.env.cores));
        self.gathers.reports.insert(id, ReportGather { heard, handler });
        self.ask_others(|| CoreMessage::AskReport(id));
        let report = self.report();
        self.report_heard(id, report);
        Ok(())
    }

    /// A core's report was heard.
    pub(super) fn report_heard(&mut self, id: GatherId, report: CoreReport) {
        let Some(gather) = self.gathers.reports.get_mut(&id) else {
            return;
        };
        gather.heard.push(report);
        if gather.heard.len() < usize::from(self.env.cores) {
            return;
        }
        let gather = self.gathers.reports.remove(&id).expect("looked up above");
        let report = StatsReport::new(&self.identity, gather.heard);
        (gather.handler)(self, report);
    }

    /// Answers a client with all that the node counts.
    pub(super) fn ask_stats(&mut self, ticket: Ticket) {
        let handler = Box::new(move |core: &mut Core, report: StatsReport| {
            let json = report.to_json();
            let ticket = core.gathered(ticket);
            let timestamp = core.host.hlc().peek().0;
            core.answers().answer(ticket, |encoder, out| {
                encoder.stats_reply(out, ticket.request_id, timestamp, &json);
            });
        });
        let asked = self.ask_report(REPORTS_MAX, handler);
        if asked.is_err() {
            self.refuse(ticket, Refusal::Busy);
        }
    }

    /// Gives up a scan, a status question or a multi-get of a client that not all cores have answered; true if there
    /// was one. It is answered with an error.
    pub(super) fn cancel(&mut self, connection: u64, request_id: u64) -> bool {
        let Gathers {
            under_way,
            values,
            values_bytes,
            ..
        } = &mut self.gathers;
        let is_meant = |ticket: &Ticket| ticket.connection == connection && ticket.request_id == request_id;
        let of_all = under_way.values_mut().find(|gather| {
            is_meant(&gather.ticket) && !gather.is_cancelled && !gather.kind.is_of_checkpoint()
        });
        let of_keys = values
            .values_mut()
            .find(|gather| is_meant(&gather.ticket) && !gather.is_cancelled);
        let ticket = match (of_all, of_keys) {
            (Some(gather), _) => {
                gather.is_cancelled = true;
                if let GatherKind::Scan { pages, .. } = &mut gather.kind {
                    *pages = Vec::new();
                }
                gather.ticket
            }
            (None, Some(gather)) => {
                gather.is_cancelled = true;
                *values_bytes -= gather.give_back();
                gather.ticket
            }
            (None, None) => return false,
        };
        let message = "cancelled, as the client asked for";
        self.answers().error(ticket, ErrorCode::Cancelled, message, 0);
        true
    }

    /// The ticket of a question that all cores have answered: waiting for the others was its hop.
    pub(super) fn gathered(&self, ticket: Ticket) -> Ticket {
        let has_others = self.env.cores > 1;
        let executed_ns = if has_others {
            self.answers.turn_ns
        } else {
            ticket.decoded_ns
        };
        Ticket {
            executed_ns,
            ..ticket
        }
    }

    pub(super) fn ask_others(&mut self, message: impl Fn() -> CoreMessage) {
        let own = self.id().index();
        for (core, outbox) in self.answers.outboxes.iter_mut().enumerate() {
            if core != own {
                outbox.push(message());
            }
        }
    }
}
