//! What one core counts while it serves: requests, errors, latencies, connections. All since the start of the process.
//!
//! Everything here lies in arrays of fixed sizes. Counting allocates nothing and takes a few instructions.

use ostrakon_wire::message::{ErrorCode, Kind};

use super::histogram::LatencyHistogram;

/// What a request asks for, as far as it is counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names are those of the requests")]
pub enum Operation {
    Get,
    Put,
    Delete,
    Add,
    MultiGet,
    MultiPut,
    Batch,
    DeleteRange,
    Scan,
    /// Everything else: ping, topology, status, frames that are no request.
    Other,
}

impl Operation {
    /// Every operation, in the order of the reports.
    pub const ALL: [Operation; 10] = [
        Operation::Get,
        Operation::Put,
        Operation::Delete,
        Operation::Add,
        Operation::MultiGet,
        Operation::MultiPut,
        Operation::Batch,
        Operation::DeleteRange,
        Operation::Scan,
        Operation::Other,
    ];

    /// What a frame of this kind asks for.
    pub fn of_kind(kind: Kind) -> Operation {
        match kind {
            Kind::Get => Operation::Get,
            Kind::Put => Operation::Put,
            Kind::Delete => Operation::Delete,
            Kind::Add => Operation::Add,
            Kind::MultiGet => Operation::MultiGet,
            Kind::MultiPut => Operation::MultiPut,
            Kind::Batch => Operation::Batch,
            Kind::DeleteRange => Operation::DeleteRange,
            Kind::Scan => Operation::Scan,
            _ => Operation::Other,
        }
    }

    /// Does it change data?
    pub fn is_write(self) -> bool {
        match self {
            Operation::Put
            | Operation::Delete
            | Operation::Add
            | Operation::MultiPut
            | Operation::Batch
            | Operation::DeleteRange => true,
            Operation::Get | Operation::MultiGet | Operation::Scan | Operation::Other => false,
        }
    }

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Operation::Get => "get",
            Operation::Put => "put",
            Operation::Delete => "delete",
            Operation::Add => "add",
            Operation::MultiGet => "multi_get",
            Operation::MultiPut => "multi_put",
            Operation::Batch => "batch",
            Operation::DeleteRange => "delete_range",
            Operation::Scan => "scan",
            Operation::Other => "other",
        }
    }
}

/// A part of a request's way, counted by the core on which it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Received and whole, until its connection had room for its answer; requests that need not wait are not counted.
    Queue,
    /// From its decoding on the gateway until the owner, another core, took it in.
    Hop,
    /// From its proposal until the batch with it was durable.
    Log,
    /// Of each durable batch: until all that became raft-committed by it was applied and answered.
    Apply,
}

impl Stage {
    /// Every stage, in the order of the way.
    pub const ALL: [Stage; 4] = [Stage::Queue, Stage::Hop, Stage::Log, Stage::Apply];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Queue => "queue",
            Stage::Hop => "hop",
            Stage::Log => "log",
            Stage::Apply => "apply",
        }
    }
}

/// Why a connection was refused, or ended by the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The core had as many connections as it may.
    TooMany,
    /// The core had as many of the client's address as it may.
    PerAddress,
    /// No hello came in time.
    HelloTimeout,
    /// Nothing came for too long, and nothing was under way.
    IdleTimeout,
    /// A frame was begun and not completed in time.
    FrameTimeout,
    /// The client did not take its answers.
    SendTimeout,
    /// The client's unfinished frames had no room beside those of others.
    KeptBytes,
    /// What came was no frame.
    BadFrame,
}

impl Reason {
    /// Every reason, in the order of the reports.
    pub const ALL: [Reason; 8] = [
        Reason::TooMany,
        Reason::PerAddress,
        Reason::HelloTimeout,
        Reason::IdleTimeout,
        Reason::FrameTimeout,
        Reason::SendTimeout,
        Reason::KeptBytes,
        Reason::BadFrame,
    ];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Reason::TooMany => "too_many",
            Reason::PerAddress => "per_address",
            Reason::HelloTimeout => "hello_timeout",
            Reason::IdleTimeout => "idle_timeout",
            Reason::FrameTimeout => "frame_timeout",
            Reason::SendTimeout => "send_timeout",
            Reason::KeptBytes => "kept_bytes",
            Reason::BadFrame => "bad_frame",
        }
    }
}

/// Error codes below this are counted apart; those from it on, which no release has, share the last place.
const CODES: usize = 64;

/// What is counted of one operation.
pub(super) struct OperationCounters {
    /// From the decoded request to its answer, on the gateway.
    pub(super) latency: LatencyHistogram,
    /// Error answers by number of the code, on the core that made them.
    errors: [u64; CODES],
}

impl OperationCounters {
    /// Codes that were answered, and how often.
    pub(super) fn errors(&self) -> impl Iterator<Item = (ErrorCode, u64)> {
        (0..).zip(self.errors).filter_map(|(number, count)| {
            let code = ErrorCode::from(number);
            (count > 0).then_some((code, count))
        })
    }
}

/// What is counted of connections.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ConnectionCounters {
    pub(super) accepted: u64,
    pub(super) refused: [u64; Reason::ALL.len()],
    pub(super) received_bytes: u64,
    pub(super) sent_bytes: u64,
}

/// Counters of one core since its start.
pub struct CoreCounters {
    /// Gets executed on this core's shards.
    pub gets: u64,
    /// Writes executed on this core's shards.
    pub writes: u64,
    /// Scans that this core's clients asked for.
    pub scans: u64,
    /// Pings.
    pub pings: u64,
    /// Requests passed to another core.
    pub forwarded: u64,
    pub(super) operations: [OperationCounters; Operation::ALL.len()],
    pub(super) stages: [LatencyHistogram; Stage::ALL.len()],
    pub(super) connections: ConnectionCounters,
}

impl CoreCounters {
    pub(in crate::server) fn new() -> CoreCounters {
        CoreCounters {
            gets: 0,
            writes: 0,
            scans: 0,
            pings: 0,
            forwarded: 0,
            operations: core::array::from_fn(|_| OperationCounters {
                latency: LatencyHistogram::default(),
                errors: [0; CODES],
            }),
            stages: core::array::from_fn(|_| LatencyHistogram::default()),
            connections: ConnectionCounters::default(),
        }
    }

    /// A request of this core's client was answered, so long after its last byte had come.
    #[inline]
    pub fn answered(&mut self, operation: Operation, latency_ns: u64) {
        self.operations[operation as usize].latency.record(latency_ns);
    }

    /// A stage that lies on this core took so long.
    #[inline]
    pub fn stage(&mut self, stage: Stage, latency_ns: u64) {
        self.stages[stage as usize].record(latency_ns);
    }

    /// This core made an error answer.
    pub fn refused(&mut self, operation: Operation, code: ErrorCode) {
        let number = usize::from(code.number()).min(CODES - 1);
        self.operations[operation as usize].errors[number] += 1;
    }

    /// A client connected to this core, or was handed over to it, and stays.
    pub fn connection_accepted(&mut self) {
        self.connections.accepted += 1;
    }

    /// A connection was refused or ended.
    pub fn connection_refused(&mut self, reason: Reason) {
        self.connections.refused[reason as usize] += 1;
    }

    /// So many bytes came from clients.
    #[inline]
    pub fn received(&mut self, bytes: usize) {
        self.connections.received_bytes += bytes as u64;
    }

    /// So many bytes went to clients.
    #[inline]
    pub fn sent(&mut self, bytes: usize) {
        self.connections.sent_bytes += bytes as u64;
    }

    /// Error answers of all operations with this code.
    pub(super) fn errors_of(&self, code: ErrorCode) -> u64 {
        let number = usize::from(code.number()).min(CODES - 1);
        self.operations
            .iter()
            .map(|counters| counters.errors[number])
            .sum()
    }

    /// Error answers of all operations.
    pub(super) fn errors(&self) -> u64 {
        self.operations.iter().flat_map(|counters| counters.errors).sum()
    }

    /// Latencies of everything that changes data.
    pub(super) fn write_latency(&self) -> LatencyHistogram {
        let mut sum = LatencyHistogram::default();
        for (operation, counters) in Operation::ALL.iter().zip(&self.operations) {
            if operation.is_write() {
                sum.add(&counters.latency);
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_each_used_once() {
        for (index, operation) in Operation::ALL.into_iter().enumerate() {
            assert_eq!(operation as usize, index);
        }
        for (index, stage) in Stage::ALL.into_iter().enumerate() {
            assert_eq!(stage as usize, index);
        }
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
    }

    #[test]
    fn kinds_are_operations() {
        for (kind, operation) in [
            (Kind::Get, Operation::Get),
            (Kind::Put, Operation::Put),
            (Kind::Delete, Operation::Delete),
            (Kind::Scan, Operation::Scan),
            (Kind::MultiPut, Operation::MultiPut),
            (Kind::Ping, Operation::Other),
        ] {
            assert_eq!(Operation::of_kind(kind), operation);
        }
    }

    #[test]
    fn errors_are_counted_by_operation_and_code() {
        let mut counters = CoreCounters::new();
        counters.refused(Operation::Put, ErrorCode::Busy);
        counters.refused(Operation::Put, ErrorCode::Busy);
        counters.refused(Operation::Get, ErrorCode::Busy);
        counters.refused(Operation::Get, ErrorCode::Other(60_000));
        let of = |operation: Operation| {
            let errors = counters.operations[operation as usize].errors();
            errors.collect::<Vec<_>>()
        };
        assert_eq!(of(Operation::Put), [(ErrorCode::Busy, 2)]);
        assert_eq!(
            of(Operation::Get),
            [(ErrorCode::Busy, 1), (ErrorCode::Other(63), 1)]
        );
        assert_eq!((counters.errors_of(ErrorCode::Busy), counters.errors()), (3, 4));
    }

    #[test]
    fn the_latency_of_writes_is_that_of_all_that_change_data() {
        let mut counters = CoreCounters::new();
        for (latency_ns, operation) in (1..).zip(Operation::ALL) {
            counters.answered(operation, latency_ns);
        }
        let writes = counters.write_latency();
        assert_eq!((writes.count(), writes.sum_ns()), (6, 2 + 3 + 4 + 6 + 7 + 8));
    }
}
