//! What the tests of more than one crate share: the repository's tidy and licence rules.
//!
//! Nothing depends on this crate. It may use threads, files and clocks as it likes: no part of it runs inside
//! a node. Only the simulator, [`sim`] and [`scenario`], denies itself all of these.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests read the repository and the machine; none of this runs inside a node"
)]

pub mod check;
pub mod crash;
pub mod fuzz;
pub mod process;
pub mod promises;
pub mod real;
pub mod scenario;
pub mod sim;
pub mod tidy;
