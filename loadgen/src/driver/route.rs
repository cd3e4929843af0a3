//! Which connections may take an operation: any, or those to where its key lives.

use std::sync::Arc;

use ostrakon_wire::message::TopologyReply;
use ostrakon_wire::routing::{key_hash, shard_of};

use crate::keys::{Key, KeyIndex};

/// Connections are in groups, and a key belongs to one of them.
#[derive(Debug, Clone)]
pub(crate) enum Router {
    /// One group: the node passes each request on to the core that owns the key.
    Any,
    /// One group per core of the node: the node's own map of shards, looked up as its cores do it.
    Shards {
        /// The core that owns each shard.
        owners: Arc<[u16]>,
        /// Cores of the node.
        cores: usize,
    },
    /// One group per address: servers that know nothing of each other share the keys by hash.
    Addresses(usize),
}

impl Router {
    /// By the node's own map.
    pub(crate) fn by_shards(topology: &TopologyReply) -> Self {
        Self::Shards {
            owners: topology.owners.as_slice().into(),
            cores: usize::from(topology.cores),
        }
    }

    /// Number of groups.
    pub(crate) fn groups(&self) -> usize {
        match self {
            Self::Any => 1,
            Self::Shards { cores, .. } => *cores,
            Self::Addresses(count) => *count,
        }
    }

    /// The group whose connections take operations on this record.
    pub(crate) fn group_of(&self, key: KeyIndex) -> usize {
        match self {
            Self::Any => 0,
            _ => self.group_of_key(Key::of(key).bytes()),
        }
    }

    /// The group whose connections take operations on this key.
    pub(crate) fn group_of_key(&self, key: &[u8]) -> usize {
        match self {
            Self::Any => 0,
            Self::Shards { owners, .. } => {
                let shard = shard_of(key_hash(key), owners.len() as u32);
                usize::from(owners[shard.0 as usize])
            }
            Self::Addresses(count) => (key_hash(key) % *count as u64) as usize,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ostrakon_client::ClusterId;

    #[test]
    fn keys_go_where_the_nodes_map_says() {
        let topology = TopologyReply {
            owners: vec![1, 0, 2, 2],
            cores: 3,
            node_id: 1,
            cluster_id: ClusterId::ANY,
        };
        let router = Router::by_shards(&topology);
        assert_eq!(router.groups(), 3);
        for index in (0..1000).map(KeyIndex) {
            let core = topology.core_of(Key::of(index).bytes());
            assert_eq!(router.group_of(index), usize::from(core));
        }
        let router = Router::Addresses(2);
        let seconds = (0..1000)
            .filter(|index| router.group_of(KeyIndex(*index)) == 1)
            .count();
        assert!((400..600).contains(&seconds), "{seconds}");
    }
}
