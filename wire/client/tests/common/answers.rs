//! Answers that several tests give.

use ostrakon_wire::message::{Found, Response};

/// The answer to a get of a key that stays.
pub(crate) fn found(version: u64, value: &[u8]) -> Response<'_> {
    Response::Get {
        found: Some(Found {
            version,
            expires: 0,
            value,
        }),
    }
}
