//! Bodies in exactly the layout that [`layout`](super::layout) gives them, recognised by their first bytes and their
//! length: three comparisons in place of a walk through tables.
//!
//! What is not recognised may be as good; it goes through flatbuffers' verifier. What is recognised means the same as
//! the verifier's reading of it.

use super::layout::align;

/// First bytes of a get, up to the length of its key.
const GET_HEAD: [u8; 20] = [12, 0, 0, 0, 0, 0, 6, 0, 8, 0, 4, 0, 6, 0, 0, 0, 4, 0, 0, 0];
/// First bytes of a put, up to the place of its value.
const PUT_HEAD: [u8; 24] = [
    16, 0, 0, 0, 12, 0, 24, 0, 4, 0, 8, 0, 12, 0, 16, 0, 12, 0, 0, 0, 20, 0, 0, 0,
];
/// Where the key of a put lies.
const PUT_KEY_AT: usize = 44;

/// A put as it was recognised.
pub(super) struct KnownPut<'a> {
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
    /// As on the wire, where it need not be one.
    pub(super) condition: u8,
    pub(super) expected_version: u64,
}

/// The key of a get.
#[inline]
pub(super) fn get(body: &[u8]) -> Option<&[u8]> {
    let (head, rest) = body.split_first_chunk::<{ GET_HEAD.len() }>()?;
    let (length, key) = rest.split_first_chunk()?;
    (*head == GET_HEAD && u32::from_le_bytes(*length) as usize == key.len()).then_some(key)
}

/// A put without the fields that only some have.
#[inline]
pub(super) fn put(body: &[u8]) -> Option<KnownPut<'_>> {
    let (fixed, rest) = body.split_first_chunk::<PUT_KEY_AT>()?;
    let word = |at: usize| u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
    let key_bytes = word(40) as usize;
    let key = rest.get(..key_bytes)?;
    let value_at = align(PUT_KEY_AT + key_bytes, 4);
    let (length, value) = body.get(value_at..)?.split_first_chunk()?;
    let is_known = fixed[..PUT_HEAD.len()] == PUT_HEAD
        && word(24) as usize == value_at - 24
        && u32::from_le_bytes(*length) as usize == value.len();
    is_known.then(|| KnownPut {
        key,
        value,
        condition: fixed[28],
        expected_version: u64::from(word(36)) << 32 | u64::from(word(32)),
    })
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::frame::HEADER_BYTES;
    use crate::generated::client_generated::ostrakon::wire as tables;
    use crate::message::verify::verified_table;
    use crate::message::write::Condition;
    use crate::message::{Kind, layout};

    fn encoded_put(key: &[u8], value: &[u8], condition: Condition<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        layout::put(&mut out, 1, 2, (key, value), condition);
        out.split_off(HEADER_BYTES)
    }

    /// What is recognised is what the verifier reads.
    fn assert_means_the_same(body: &[u8]) {
        if let Some(key) = get(body) {
            let table = verified_table::<tables::Get<'_>>(Kind::Get, body).expect("recognised");
            assert_eq!(table.key().bytes(), key);
        }
        if let Some(known) = put(body) {
            let table = verified_table::<tables::Put<'_>>(Kind::Put, body).expect("recognised");
            assert_eq!(table.key().bytes(), known.key);
            assert_eq!(table.value().bytes(), known.value);
            assert_eq!(table.condition().0, known.condition);
            assert_eq!(table.expected_version(), known.expected_version);
            assert_eq!((table.ttl_ms(), table.retry()), (0, None));
            assert!(table.expected_value().is_none());
        }
    }

    proptest! {
        #[test]
        fn own_layouts_are_recognised(key in vec(any::<u8>(), 0..70), value in vec(any::<u8>(), 0..70), version: u64) {
            let mut out = Vec::new();
            layout::get(&mut out, 1, 2, &key);
            prop_assert_eq!(get(&out[HEADER_BYTES..]), Some(&key[..]));
            let body = encoded_put(&key, &value, Condition::Version(version));
            let known = put(&body).expect("recognised");
            prop_assert_eq!((known.key, known.value, known.expected_version), (&key[..], &value[..], version));
            assert_means_the_same(&body);
        }

        #[test]
        fn changed_bodies_are_refused_or_mean_the_same(
            key in vec(any::<u8>(), 0..9), value in vec(any::<u8>(), 0..9),
            changes in vec((0..60_usize, prop_oneof![any::<u8>(), 0..60_u8]), 0..4), cut in 0..12_usize,
        ) {
            let mut get_body = Vec::new();
            layout::get(&mut get_body, 1, 2, &key);
            for mut body in [get_body.split_off(HEADER_BYTES), encoded_put(&key, &value, Condition::None)] {
                for (at, byte) in &changes {
                    let length = body.len();
                    body[at % length] = *byte;
                }
                body.truncate(body.len().saturating_sub(cut));
                assert_means_the_same(&body);
            }
        }
    }
}
