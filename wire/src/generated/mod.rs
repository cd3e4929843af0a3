//! Code that `flatc` made from `wire/schema/client.fbs`. Never edited by hand: `wire/schema/generate.sh` makes it anew,
//! and the CI compares. Private to this crate, whose `message` module is the face of these tables.

pub(crate) mod client_generated;
