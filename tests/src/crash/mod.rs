//! Crash rounds: clients write to a node, the node is killed or its disk loses power, and everything that was
//! acknowledged must be there again.
//!
//! A round:
//! 1. Clients write, each to keys of its own: counters by `get` and `put_if(Version)`, plain keys by pipelined puts
//!    and deletes ([`clients`]). What is acknowledged is noted before the next request ([`history`]). `loadgen` may
//!    run beside them, with a register of its own.
//! 2. At a moment chosen by the seed the node gets SIGKILL, or its file system is shut down first.
//! 3. The node is started again, in some rounds killed again while it starts.
//! 4. A full scan and a get of every key are held against what was noted ([`check`]): the acknowledged version with the
//!    acknowledged value, or a write of unknown outcome with a larger version, and no key that nobody wrote.
//!
//! It shares no code with the engine. It never retries a write whose outcome it does not know.

pub mod check;
pub mod clients;
pub mod history;
pub mod loadgen;
pub mod random;
pub mod report;
pub mod rounds;
pub mod settings;
pub mod value;

pub use report::{Report, RoundReport};
pub use rounds::{Failure, interrupt, run};
pub use settings::{Loadgen, Mode, Moment, Settings};
