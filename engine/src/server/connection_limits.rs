//! How many connections a core takes, and how long they may be silent.

use crate::limits::HELLO_TIMEOUT_MS;

/// Connections that a node takes when it is not told, if it can have so many descriptors.
pub const CONNECTIONS_DEFAULT: u32 = 20_000;
/// Connections that a node can be told to take at most; one core may have all of them.
pub const CONNECTIONS_MAX: u32 = 1_000_000;

/// The bounds of one core; the same on all cores of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Connections of the core.
    pub connections_max: u32,
    /// Connections of the core from one address.
    pub connections_per_address_max: u32,
    /// Milliseconds from accept to a complete hello.
    pub hello_timeout_ms: u64,
    /// Milliseconds after which a connection that has nothing under way and sends nothing is closed; zero: never.
    pub idle_timeout_ms: u64,
}

impl ConnectionLimits {
    /// Each core's share, rounded up, of what a node with so many cores takes in all.
    pub fn shares(connections_max: u32, connections_per_address_max: u32, cores: u16) -> ConnectionLimits {
        let share = |of_node: u32| of_node.div_ceil(u32::from(cores));
        ConnectionLimits {
            connections_max: share(connections_max),
            connections_per_address_max: share(connections_per_address_max),
            hello_timeout_ms: HELLO_TIMEOUT_MS,
            idle_timeout_ms: 0,
        }
    }
}

impl Default for ConnectionLimits {
    /// For a node of one core: [`CONNECTIONS_DEFAULT`], half of them from one address.
    fn default() -> ConnectionLimits {
        ConnectionLimits::shares(CONNECTIONS_DEFAULT, CONNECTIONS_DEFAULT / 2, 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_rounded_up() {
        let limits = ConnectionLimits::shares(10, 5, 3);
        assert_eq!(
            (limits.connections_max, limits.connections_per_address_max),
            (4, 2)
        );
        let limits = ConnectionLimits::shares(1, 1, 64);
        assert_eq!(
            (limits.connections_max, limits.connections_per_address_max),
            (1, 1)
        );
    }
}
