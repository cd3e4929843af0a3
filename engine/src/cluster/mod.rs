//! What a node knows of its cluster: who it is, and which core owns which shard.

pub mod identity;
pub mod placement;
