//! Several writes that are all done or none.

use ostrakon_core::sessions::{Answer, Failure};
use ostrakon_wire::message::{Action, BatchOperation, Condition, Kind, Request};

use super::EngineError;
use crate::server::programs::CoreClient;
use crate::shard::KeyWrite;
use crate::shard::host::memtable_hash;

/// Writes to keys of one shard, each named once, all done or none.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    operations: Vec<Operation>,
}

#[derive(Clone, Debug)]
struct Operation {
    key: Vec<u8>,
    action: OwnAction,
    condition: OwnCondition,
}

#[derive(Clone, Debug)]
enum OwnAction {
    Put { value: Vec<u8>, ttl_ms: u64 },
    Delete,
    Add { delta: i64, ttl_ms: u64 },
    Check,
}

#[derive(Clone, Debug)]
enum OwnCondition {
    None,
    Absent,
    Present,
    Version(u64),
    Value(Vec<u8>),
}

/// What a write came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The version that it made; 0 if it only checked.
    pub version: u64,
    /// What its adds came to, in order.
    pub numbers: Vec<i64>,
}

impl Batch {
    /// Nothing so far.
    pub fn new() -> Batch {
        Batch::default()
    }

    /// Writes a value.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> &mut Batch {
        self.push(key, Action::Put { value, ttl_ms: 0 }, Condition::None)
    }

    /// Removes a key.
    pub fn delete(&mut self, key: &[u8]) -> &mut Batch {
        self.push(key, Action::Delete, Condition::None)
    }

    /// Adds to the number in a key, in decimal digits; an absent key counts as 0.
    pub fn add(&mut self, key: &[u8], delta: i64) -> &mut Batch {
        self.push(key, Action::Add { delta, ttl_ms: 0 }, Condition::None)
    }

    /// Does this to a key, if the key is as the condition wants it; else nothing of the batch is done.
    pub fn push(&mut self, key: &[u8], action: Action<'_>, condition: Condition<'_>) -> &mut Batch {
        self.operations.push(Operation {
            key: key.to_vec(),
            action: match action {
                Action::Put { value, ttl_ms } => OwnAction::Put {
                    value: value.to_vec(),
                    ttl_ms,
                },
                Action::Delete => OwnAction::Delete,
                Action::Add { delta, ttl_ms } => OwnAction::Add { delta, ttl_ms },
                Action::Check => OwnAction::Check,
            },
            condition: match condition {
                Condition::None => OwnCondition::None,
                Condition::Absent => OwnCondition::Absent,
                Condition::Present => OwnCondition::Present,
                Condition::Version(version) => OwnCondition::Version(version),
                Condition::Value(value) => OwnCondition::Value(value.to_vec()),
            },
        });
        self
    }

    /// Number of operations.
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Has it no operation?
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    pub(super) fn of(operations: &[BatchOperation<'_>]) -> Batch {
        let mut batch = Batch::new();
        for operation in operations {
            batch.push(operation.key, operation.action, operation.condition);
        }
        batch
    }

    pub(super) fn check(&self) -> Result<(), EngineError> {
        check(&self.borrowed())
    }

    /// Of a batch that was checked.
    pub(super) fn first_key(&self) -> &[u8] {
        &self.operations[0].key
    }

    /// Writes it on the core that owns its keys.
    pub(super) async fn write(&self, core: &CoreClient) -> Result<Applied, EngineError> {
        write(core, &self.borrowed()).await
    }

    fn borrowed(&self) -> Vec<BatchOperation<'_>> {
        let operations = self.operations.iter();
        operations
            .map(|operation| BatchOperation {
                key: &operation.key,
                action: match &operation.action {
                    OwnAction::Put { value, ttl_ms } => Action::Put {
                        value,
                        ttl_ms: *ttl_ms,
                    },
                    OwnAction::Delete => Action::Delete,
                    OwnAction::Add { delta, ttl_ms } => Action::Add {
                        delta: *delta,
                        ttl_ms: *ttl_ms,
                    },
                    OwnAction::Check => Action::Check,
                },
                condition: match &operation.condition {
                    OwnCondition::None => Condition::None,
                    OwnCondition::Absent => Condition::Absent,
                    OwnCondition::Present => Condition::Present,
                    OwnCondition::Version(version) => Condition::Version(*version),
                    OwnCondition::Value(value) => Condition::Value(value),
                },
            })
            .collect()
    }
}

/// Do they hold to all limits?
pub(super) fn check(operations: &[BatchOperation<'_>]) -> Result<(), EngineError> {
    let request = Request::Batch {
        operations: operations.into(),
        retry: None,
    };
    Ok(request.check()?)
}

/// Writes to keys of this core, which were checked.
pub(super) async fn write(
    core: &CoreClient,
    operations: &[BatchOperation<'_>],
) -> Result<Applied, EngineError> {
    let shard = core.shard(operations[0].key);
    let answer = if let [operation] = operations {
        let kind = match operation.action {
            Action::Put { .. } => Kind::Put,
            Action::Delete => Kind::Delete,
            Action::Add { .. } | Action::Check => Kind::Batch,
        };
        core.write(kind, &[key_write(operation)], shard).await?
    } else {
        if operations
            .iter()
            .any(|operation| core.shard(operation.key) != shard)
        {
            return Err(EngineError::NotOneShard);
        }
        let keys: Vec<KeyWrite<'_>> = operations.iter().map(key_write).collect();
        core.write(Kind::Batch, &keys, shard).await?
    };
    match answer {
        Answer::Applied { version, numbers } => Ok(Applied {
            version: version.0,
            numbers: numbers.as_slice().to_vec(),
        }),
        Answer::Failed(Failure::ConditionFailed { version, operation }) => {
            Err(EngineError::ConditionFailed {
                version: version.0,
                operation,
            })
        }
        Answer::Failed(Failure::NotANumber { operation }) => Err(EngineError::NotANumber { operation }),
        Answer::Failed(Failure::NumberOverflow { operation }) => {
            Err(EngineError::NumberOverflow { operation })
        }
    }
}

fn key_write<'a>(operation: &BatchOperation<'a>) -> KeyWrite<'a> {
    KeyWrite {
        hash: memtable_hash(operation.key),
        key: operation.key,
        action: operation.action,
        condition: operation.condition,
    }
}
