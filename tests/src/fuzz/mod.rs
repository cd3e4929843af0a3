//! What a fuzzer does with each decoder of untrusted bytes: one function per decoder, from any bytes to nothing or a
//! panic. `tests/fuzz` drives them with libFuzzer; the tests replay the seeds through them.
//!
//! 1. A decoder may refuse, with an error. It may not panic, and not do more work than the bytes justify.
//! 2. What it accepts keeps what its documentation promises: it passes its own check, and encodes to bytes that decode
//!    to the same.
//! 3. Where a checksum would keep a fuzzer out, the function also tries the bytes with the checksum put right.

pub mod client;
pub mod log;
pub mod seeds;
pub mod text;
pub mod wire;

/// A decoder's name, which is its binary's and its folder's of seeds, and what is done with the bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All targets. Each has a file in `tests/fuzz/targets` and a line in `tests/fuzz/Cargo.toml`; a test compares them.
pub const TARGETS: [Target; 12] = [
    ("frame", wire::frame),
    ("request", wire::request),
    ("response", wire::response),
    ("client", client::connection),
    ("batch", log::batch),
    ("command", log::command),
    ("identity", log::identity),
    ("key", text::key),
    ("words", text::words),
    ("import-binary", text::import_binary),
    ("import-json", text::import_json),
    ("history", text::history),
];
