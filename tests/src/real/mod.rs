//! Real nodes under real faults: clients record what they call and are told, and the checkers judge it.
//!
//! 1. A scenario ([`scenarios`]) starts a node on a disk that fits its fault ([`disk`]).
//! 2. Clients ([`clients`]) read, write, delete and scan the same few keys, with and without conditions, some
//!    requests at once. Each call and each answer goes into one history ([`recorder`]).
//! 3. The fault is inflicted when enough has been answered, and ends; what must then be seen is asserted.
//! 4. The node is started again if need be, every key is read, by get and by scan, and the history is judged
//!    ([`report`]): each key linearizable, scans and writes strictly serializable.
//!
//! It shares no code with the engine, and never repeats a write whose outcome it does not know: such a
//! process ends in the history, and its client goes on under another number.

pub mod clients;
pub mod disk;
pub mod recorder;
pub mod report;
pub mod scenarios;
mod segment;

pub use disk::DiskKind;
pub use report::{Failure, Report};
pub use scenarios::{Scenario, Settings, run};
