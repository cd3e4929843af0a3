//! Tests of the log on a disk in memory: its bytes, its writer, and what recovery makes of every way in which
//! the bytes can be wrong.
//!
//! [`harness`] has the machine that crashes and the history that a restart is compared with;
//! the two seams below the log are those of [`crate::env::testing`].

mod crash;
mod cut_corrupt;
mod damage;
mod flips;
mod format_bytes;
mod freeing;
mod harness;
mod live;
mod recycled;
mod room;
mod segments;
mod space;
mod survey;
mod torn_tail;
mod writer;
