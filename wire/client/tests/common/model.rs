//! What a node promises to its clients, as a model of its own: keys, shards, and the table of answers by which a write
//! that comes again is recognised. It asserts what a session has to keep to, and counts how often each write happened.
//!
//! A write is known by the number that it puts (its value) or adds, which no other write has.

use std::collections::BTreeMap;

use ostrakon_client::{Action, ClusterId, ErrorCode, Request, Response, Retry, TopologyReply};
use ostrakon_wire::message::{
    BatchReply, DeleteRangeReply, ErrorReply, Found, HelloReply, MultiPutReply, ScanReply,
};

use crate::common::CLUSTER_ID;

pub(crate) const SHARDS: u32 = 16;
pub(crate) const HORIZON_US: u64 = 600_000_000;

/// A response that owns its bytes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Reply {
    Pong,
    Get(Option<Vec<u8>>),
    Write(u64),
    Add(u64, i64),
    MultiPut(Vec<u64>),
    /// The first of two entries is written or refused, the second refused.
    PartlyPut(Option<ErrorCode>, ErrorCode, u32),
    Batch(u64),
    DeleteRange(u64),
    /// In one of two shards the range is deleted, or in none; in the others this is the reason.
    PartlyDeleted(bool, ErrorCode, u32),
    Scan,
    Cancel,
    Topology(TopologyReply),
    Status,
    Refused(ErrorCode, u32),
}

impl Reply {
    pub(crate) fn as_response(&self) -> Response<'_> {
        match self {
            Reply::Pong => Response::Pong,
            Reply::Get(value) => Response::Get {
                found: value.as_ref().map(|value| Found {
                    version: 1,
                    expires: 0,
                    value,
                }),
            },
            Reply::Write(version) => Response::Write {
                applied: true,
                version: *version,
            },
            Reply::Add(version, number) => Response::Add {
                version: *version,
                number: *number,
            },
            Reply::MultiPut(versions) => Response::MultiPut(MultiPutReply {
                versions: versions.clone(),
                codes: Vec::new(),
                message: "",
                retry_after_ms: 0,
            }),
            Reply::PartlyPut(first, second, retry_after_ms) => Response::MultiPut(MultiPutReply {
                versions: vec![u64::from(first.is_none()), 0],
                codes: vec![*first, Some(*second)],
                message: "because",
                retry_after_ms: *retry_after_ms,
            }),
            Reply::Batch(version) => Response::Batch(BatchReply {
                applied: true,
                version: *version,
                failed: 0,
                numbers: Vec::new(),
            }),
            Reply::DeleteRange(version) => Response::DeleteRange(DeleteRangeReply {
                version: *version,
                applied: 2,
                refused: 0,
                unknown: 0,
                error: None,
            }),
            Reply::PartlyDeleted(is_in_one, code, retry_after_ms) => {
                Response::DeleteRange(DeleteRangeReply {
                    version: u64::from(*is_in_one),
                    applied: u32::from(*is_in_one),
                    refused: 2 - u32::from(*is_in_one),
                    unknown: 0,
                    error: Some(ErrorReply {
                        code: *code,
                        message: "because",
                        retry_after_ms: *retry_after_ms,
                    }),
                })
            }
            Reply::Scan => Response::Scan(ScanReply {
                snapshot: 1,
                entries: [][..].into(),
                resume_key: None,
            }),
            Reply::Cancel => Response::Cancel { cancelled: false },
            Reply::Topology(topology) => Response::Topology(topology.clone()),
            Reply::Status => Response::Status { json: "{}" },
            Reply::Refused(code, retry_after_ms) => Response::Error(ErrorReply {
                code: *code,
                message: "because",
                retry_after_ms: *retry_after_ms,
            }),
        }
    }
}

/// What the node keeps over restarts.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) cluster_id: ClusterId,
    pub(crate) cores: u16,
    pub(crate) window: u32,
    pub(crate) requests_in_flight_max: u32,
    values: BTreeMap<Vec<u8>, Vec<u8>>,
    counters: BTreeMap<Vec<u8>, i64>,
    version: u64,
    /// The remembered answers, by sequence.
    answers: BTreeMap<u64, Reply>,
    /// Highest `answered_below` seen.
    forgotten_below: u64,
    /// Of each sequence that has come: its name, and the bytes of its request.
    names: BTreeMap<u64, (Retry, Vec<u8>)>,
    /// How often each write happened.
    pub(crate) executions: BTreeMap<u64, u32>,
    /// What requests (but those of the session itself) are refused with, one after another.
    pub(crate) refusals: Vec<(ErrorCode, u32)>,
    /// What becomes of the first entry of a multi-put whose second is refused, one after another; else it is written.
    pub(crate) first_entries: Vec<Option<ErrorCode>>,
    /// Requests of one shard that came to its owner, and to another core.
    pub(crate) at_owner: u64,
    pub(crate) elsewhere: u64,
}

impl Model {
    pub(crate) fn new(cores: u16) -> Model {
        Model {
            cluster_id: CLUSTER_ID,
            cores,
            window: 24,
            requests_in_flight_max: 8,
            values: BTreeMap::new(),
            counters: BTreeMap::new(),
            version: 0,
            answers: BTreeMap::new(),
            forgotten_below: 0,
            names: BTreeMap::new(),
            executions: BTreeMap::new(),
            refusals: Vec::new(),
            first_entries: Vec::new(),
            at_owner: 0,
            elsewhere: 0,
        }
    }

    pub(crate) fn hello(&self, core: u16) -> HelloReply<'static> {
        HelloReply {
            cluster_id: self.cluster_id,
            core,
            cores: self.cores,
            shards: SHARDS,
            session_window: self.window,
            retry_horizon_ms: HORIZON_US / 1_000,
            ..crate::common::hello_reply(self.requests_in_flight_max)
        }
    }

    pub(crate) fn topology(&self) -> TopologyReply {
        TopologyReply {
            owners: (0..SHARDS)
                .map(|shard| (shard % u32::from(self.cores)) as u16)
                .collect(),
            cores: self.cores,
            node_id: 5,
            cluster_id: self.cluster_id,
        }
    }

    /// Executes a request that came to a core at this time of the node's clock, in microseconds.
    pub(crate) fn execute(&mut self, core: u16, clock_us: u64, request: &Request<'_>, body: &[u8]) -> Reply {
        let key = match request {
            Request::Get { key } | Request::Put { key, .. } | Request::Add { key, .. } => Some(*key),
            Request::Batch { operations, .. } => Some(operations.at(0).key),
            _ => None,
        };
        if let Some(key) = key {
            let is_owner = self.topology().core_of(key) == core;
            *(if is_owner {
                &mut self.at_owner
            } else {
                &mut self.elsewhere
            }) += 1;
        }
        let is_own = matches!(request, Request::Topology | Request::Cancel { .. });
        if !is_own && !self.refusals.is_empty() {
            let (reason, retry_after_ms) = self.refusals.remove(0);
            return match request {
                Request::MultiPut { .. } => {
                    let first = self.first_entries.pop().flatten();
                    Reply::PartlyPut(first, reason, retry_after_ms)
                }
                Request::DeleteRange { .. } => {
                    let is_in_one = self.first_entries.pop().is_none_or(|refusal| refusal.is_none());
                    Reply::PartlyDeleted(is_in_one, reason, retry_after_ms)
                }
                _ => Reply::Refused(reason, retry_after_ms),
            };
        }
        match (request, request.retry()) {
            (_, Some(name)) => self.execute_once(name, clock_us, request, body),
            (Request::Get { key }, _) => Reply::Get(self.values.get(*key).cloned()),
            (Request::Ping, _) => Reply::Pong,
            (Request::Scan(_), _) => Reply::Scan,
            (Request::Cancel { .. }, _) => Reply::Cancel,
            (Request::Topology, _) => Reply::Topology(self.topology()),
            (Request::Status, _) => Reply::Status,
            _ => self.write(request),
        }
    }

    fn execute_once(&mut self, name: Retry, clock_us: u64, request: &Request<'_>, body: &[u8]) -> Reply {
        self.check_name(name, body);
        self.forgotten_below = self.forgotten_below.max(name.answered_below);
        let forgotten_below = self.forgotten_below;
        self.answers.retain(|sequence, _| *sequence >= forgotten_below);
        if let Some(answer) = self.answers.get(&name.sequence) {
            return answer.clone();
        }
        if name.sequence < self.forgotten_below || (name.first_sent >> 12) + HORIZON_US < clock_us {
            return Reply::Refused(ErrorCode::OutcomeUnknown, 0);
        }
        let answer = self.write(request);
        self.answers.insert(name.sequence, answer.clone());
        answer
    }

    /// What a session has to keep to, whatever happens.
    fn check_name(&mut self, name: Retry, body: &[u8]) {
        assert!(
            name.sequence < name.answered_below + u64::from(self.window),
            "beyond the window: {name:?}"
        );
        let (known, known_body) = self
            .names
            .entry(name.sequence)
            .or_insert_with(|| (name, body.to_vec()));
        assert_eq!(
            (*known, known_body.as_slice()),
            (name, body),
            "another request under the same name"
        );
        let before = self.names.range(..name.sequence).next_back();
        let after = self.names.range(name.sequence + 1..).next();
        for (earlier, later) in [
            (before, Some((&name.sequence, &(name, Vec::new())))),
            (Some((&name.sequence, &(name, Vec::new()))), after),
        ] {
            if let (Some((_, (earlier, _))), Some((_, (later, _)))) = (earlier, later) {
                assert_eq!(earlier.session, later.session);
                assert!(
                    earlier.first_sent <= later.first_sent,
                    "{earlier:?}, then {later:?}"
                );
                assert!(
                    earlier.answered_below <= later.answered_below,
                    "{earlier:?}, then {later:?}"
                );
            }
        }
    }

    fn write(&mut self, request: &Request<'_>) -> Reply {
        self.version += 1;
        match request {
            Request::Put { key, value, .. } => {
                self.put(key, value);
                Reply::Write(self.version)
            }
            Request::Add { key, delta, .. } => {
                *self.executions.entry(*delta as u64).or_default() += 1;
                let number = self.counters.entry(key.to_vec()).or_default();
                *number += delta;
                Reply::Add(self.version, *number)
            }
            Request::MultiPut { entries, .. } => {
                entries.iter().for_each(|entry| self.put(entry.key, entry.value));
                Reply::MultiPut(vec![self.version; entries.len()])
            }
            Request::Batch { operations, .. } => {
                for operation in operations {
                    if let Action::Put { value, .. } = operation.action {
                        self.put(operation.key, value);
                    }
                }
                Reply::Batch(self.version)
            }
            Request::DeleteRange { .. } => Reply::DeleteRange(self.version),
            other => panic!("no test sends this: {other:?}"),
        }
    }

    fn put(&mut self, key: &[u8], value: &[u8]) {
        let number = std::str::from_utf8(value)
            .expect("digits")
            .parse()
            .expect("a number");
        *self.executions.entry(number).or_default() += 1;
        self.values.insert(key.to_vec(), value.to_vec());
    }
}
