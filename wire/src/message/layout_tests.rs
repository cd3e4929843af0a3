//! Bodies laid out by hand against flatbuffers' own reading and writing of the same tables.

use flatbuffers::{FlatBufferBuilder, VerifierOptions};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::request::Request;
use super::response::{Found, Response, ScanEntry, ScanReply};
use super::write::{Condition, Retry};
use super::{Encoder, Kind};
use crate::frame::{self, HEADER_BYTES};
use crate::generated::client_generated::ostrakon::wire as tables;
use crate::limits::SCAN_ENTRY_OVERHEAD_BYTES_MAX;

/// The frame that `encode` appends.
pub(super) fn encoded(encode: impl FnOnce(&mut Encoder, &mut Vec<u8>)) -> Vec<u8> {
    // A frame must not depend on where in the output it starts.
    let mut out = vec![0xEE; 3];
    encode(&mut Encoder::new(), &mut out);
    out.drain(..3);
    out
}

/// The body of a whole frame.
pub(super) fn body(frame: &[u8]) -> &[u8] {
    let (header, body) = frame::decode(frame, usize::MAX)
        .expect("a good frame")
        .expect("a whole frame");
    assert_eq!(header.frame_bytes(), frame.len());
    body
}

fn strict_root<'a, T>(body: &'a [u8]) -> T::Inner
where
    T: flatbuffers::Follow<'a> + flatbuffers::Verifiable + 'a,
{
    let options = VerifierOptions {
        max_depth: 3,
        ..VerifierOptions::default()
    };
    flatbuffers::root_with_opts::<T>(&options, body).expect("a valid flatbuffer")
}

fn bytes(up_to: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..=up_to)
}

/// Owned, since a condition borrows: its number, expected version and expected value.
type OwnedCondition = (u8, u64, Option<Vec<u8>>);

fn condition() -> impl Strategy<Value = OwnedCondition> {
    prop_oneof![
        (0..3_u8).prop_map(|number| (number, 0, None)),
        (1..=u64::MAX).prop_map(|version| (3, version, None)),
        bytes(70).prop_map(|value| (4, 0, Some(value))),
    ]
}

fn borrowed((number, version, value): &OwnedCondition) -> Condition<'_> {
    Condition::from_wire(*number, *version, value.as_deref()).expect("made to be right")
}

/// Nothing, as in a write that is sent once, or any retry that can be meant.
fn retry() -> impl Strategy<Value = Option<Retry>> {
    proptest::option::of(any::<(u128, u64, u64, u64)>()).prop_map(|retry| {
        retry.map(|(session, one, other, first_sent)| Retry {
            session,
            sequence: one.max(other),
            answered_below: one.min(other),
            first_sent,
        })
    })
}

/// No time to live, or some.
fn ttl_ms() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), 1..=crate::limits::TTL_MS_MAX]
}

/// The same put as flatbuffers' builder makes it.
fn built_put(
    (key, value, ttl_ms): (&[u8], &[u8], u64),
    condition: Condition<'_>,
    retry: Option<Retry>,
) -> Vec<u8> {
    let mut builder = FlatBufferBuilder::new();
    let (condition, expected_version, expected_value) = condition.to_wire();
    let retry = retry.map(Retry::to_wire);
    let args = tables::PutArgs {
        key: Some(builder.create_vector(key)),
        value: Some(builder.create_vector(value)),
        condition: tables::Condition(condition),
        expected_version,
        expected_value: expected_value.map(|value| builder.create_vector(value)),
        ttl_ms,
        retry: retry.as_ref(),
    };
    let put = tables::Put::create(&mut builder, &args);
    builder.finish_minimal(put);
    builder.finished_data().to_vec()
}

fn built_delete(key: &[u8], condition: Condition<'_>, retry: Option<Retry>) -> Vec<u8> {
    let mut builder = FlatBufferBuilder::new();
    let (condition, expected_version, expected_value) = condition.to_wire();
    let retry = retry.map(Retry::to_wire);
    let args = tables::DeleteArgs {
        key: Some(builder.create_vector(key)),
        condition: tables::Condition(condition),
        expected_version,
        expected_value: expected_value.map(|value| builder.create_vector(value)),
        retry: retry.as_ref(),
    };
    let delete = tables::Delete::create(&mut builder, &args);
    builder.finish_minimal(delete);
    builder.finished_data().to_vec()
}

fn built_scan_reply(reply: &ScanReply<'_>) -> Vec<u8> {
    let mut builder = FlatBufferBuilder::new();
    let mut entries = Vec::new();
    for entry in reply.entries {
        let key = Some(builder.create_vector(entry.key));
        let value = Some(builder.create_vector(entry.value));
        let args = tables::ScanEntryArgs {
            key,
            value,
            version: entry.version,
            expires: entry.expires,
        };
        entries.push(tables::ScanEntry::create(&mut builder, &args));
    }
    let entries = Some(builder.create_vector(&entries));
    let resume_key = reply
        .resume_key
        .map(|resume_key| builder.create_vector(resume_key));
    let args = tables::ScanReplyArgs {
        snapshot: reply.snapshot,
        entries,
        more: reply.more(),
        resume_key,
    };
    let root = tables::ScanReply::create(&mut builder, &args);
    builder.finish_minimal(root);
    builder.finished_data().to_vec()
}

proptest! {
    #[test]
    fn get_reads_back(key in bytes(70)) {
        let frame = encoded(|encoder, out| encoder.request(out, 1, 2, &Request::Get { key: &key }));
        prop_assert_eq!(strict_root::<tables::Get<'_>>(body(&frame)).key().bytes(), &key[..]);
    }

    #[test]
    fn put_reads_back_and_means_what_the_builder_means(
        key in vec(any::<u8>(), 1..70), value in bytes(70), condition in condition(),
        ttl_ms in ttl_ms(), retry in retry(),
    ) {
        let condition = borrowed(&condition);
        let put = Request::Put { key: &key, value: &value, condition, ttl_ms, retry };
        let frame = encoded(|encoder, out| encoder.request(out, 1, 2, &put));
        let table = strict_root::<tables::Put<'_>>(body(&frame));
        prop_assert_eq!((table.key().bytes(), table.value().bytes()), (&key[..], &value[..]));
        let expected_value = table.expected_value().map(|value| value.bytes());
        prop_assert_eq!((table.condition().0, table.expected_version(), expected_value), condition.to_wire());
        prop_assert_eq!(table.ttl_ms(), ttl_ms);
        prop_assert_eq!(table.retry().map(Retry::from_wire), retry);

        let built = built_put((&key, &value, ttl_ms), condition, retry);
        for body in [body(&frame), &built] {
            prop_assert_eq!(Request::decode(Kind::Put as u16, body), Ok(put));
            prop_assert_eq!(Request::decode_trusted(Kind::Put as u16, body), put);
        }
    }

    #[test]
    fn delete_reads_back_and_means_what_the_builder_means(
        key in vec(any::<u8>(), 1..70), condition in condition(), retry in retry(),
    ) {
        let condition = borrowed(&condition);
        let delete = Request::Delete { key: &key, condition, retry };
        let frame = encoded(|encoder, out| encoder.request(out, 1, 2, &delete));
        let table = strict_root::<tables::Delete<'_>>(body(&frame));
        prop_assert_eq!(table.key().bytes(), &key[..]);
        let expected_value = table.expected_value().map(|value| value.bytes());
        prop_assert_eq!((table.condition().0, table.expected_version(), expected_value), condition.to_wire());
        prop_assert_eq!(table.retry().map(Retry::from_wire), retry);

        let built = built_delete(&key, condition, retry);
        for body in [body(&frame), &built] {
            prop_assert_eq!(Request::decode(Kind::Delete as u16, body), Ok(delete));
            prop_assert_eq!(Request::decode_trusted(Kind::Delete as u16, body), delete);
        }
    }

    #[test]
    fn get_reply_reads_back(version: u64, expires in prop_oneof![Just(0), any::<u64>()], value in bytes(70)) {
        let found = Found { version, expires, value: &value };
        let frame = encoded(|encoder, out| encoder.get_reply(out, 1, 2, Some(found)));
        let table = strict_root::<tables::GetReply<'_>>(body(&frame));
        prop_assert!(table.found());
        prop_assert_eq!((table.version(), table.expires()), (version, expires));
        prop_assert_eq!(table.value().map(|value| value.bytes()), Some(&value[..]));

        let mut builder = FlatBufferBuilder::new();
        let vector = Some(builder.create_vector(&value));
        let args = tables::GetReplyArgs { found: true, version, value: vector, expires };
        let root = tables::GetReply::create(&mut builder, &args);
        builder.finish_minimal(root);
        for body in [body(&frame), builder.finished_data()] {
            let expected = Response::Get { found: Some(found) };
            prop_assert_eq!(Response::decode(Kind::GetReply as u16, body), Ok(expected));
        }
    }

    #[test]
    fn add_reply_reads_back(version: u64, number: i64) {
        let frame = encoded(|encoder, out| encoder.add_reply(out, 1, 2, version, number));
        let table = strict_root::<tables::AddReply<'_>>(body(&frame));
        prop_assert_eq!((table.version(), table.number()), (version, number));

        let mut builder = FlatBufferBuilder::new();
        let root = tables::AddReply::create(&mut builder, &tables::AddReplyArgs { version, number });
        builder.finish_minimal(root);
        for body in [body(&frame), builder.finished_data()] {
            let expected = Response::Add { version, number };
            prop_assert_eq!(Response::decode(Kind::AddReply as u16, body), Ok(expected));
        }
    }

    #[test]
    fn write_reply_reads_back(applied: bool, version: u64) {
        let frame = encoded(|encoder, out| encoder.write_reply(out, 1, 2, applied, version));
        let table = strict_root::<tables::WriteReply<'_>>(body(&frame));
        prop_assert_eq!((table.applied(), table.version()), (applied, version));

        let mut builder = FlatBufferBuilder::new();
        let args = tables::WriteReplyArgs { applied, version };
        let root = tables::WriteReply::create(&mut builder, &args);
        builder.finish_minimal(root);
        for body in [body(&frame), builder.finished_data()] {
            let expected = Response::Write { applied, version };
            prop_assert_eq!(Response::decode(Kind::WriteReply as u16, body), Ok(expected));
        }
    }

    #[test]
    fn scan_reply_reads_back_and_means_what_the_builder_means(
        snapshot: u64,
        pairs in btree_map(
            vec(any::<u8>(), 1..20), (bytes(20), any::<u64>(), prop_oneof![9 => Just(0), 1 => any::<u64>()]), 0..12,
        ),
        more: bool,
    ) {
        let entries: Vec<ScanEntry<'_>> = pairs
            .iter()
            .map(|(key, (value, version, expires))| ScanEntry { key, value, version: *version, expires: *expires })
            .collect();
        let after_last = [pairs.keys().next_back().map_or(&[][..], |key| key), &[0]].concat();
        let resume_key = more.then_some(&after_last[..]);
        let reply = ScanReply { snapshot, entries: entries[..].into(), resume_key };
        let frame = encoded(|encoder, out| encoder.scan_reply(out, 1, 2, &reply));

        let table = strict_root::<tables::ScanReply<'_>>(body(&frame));
        prop_assert_eq!((table.snapshot(), table.more()), (snapshot, more));
        prop_assert_eq!(table.resume_key().map(|resume_key| resume_key.bytes()), resume_key);
        let table_entries = table.entries().expect("always written");
        prop_assert_eq!(table_entries.len(), entries.len());
        for (entry, expected) in table_entries.iter().zip(&entries) {
            prop_assert_eq!((entry.version(), entry.expires()), (expected.version, expected.expires));
        }

        let built = built_scan_reply(&reply);
        for body in [body(&frame), &built] {
            let decoded = Response::decode(Kind::ScanReply as u16, body);
            prop_assert_eq!(decoded, Ok(Response::Scan(reply)));
        }

        let payload: usize = entries.iter().map(|entry| entry.key.len() + entry.value.len()).sum();
        let bound = payload + entries.len() * SCAN_ENTRY_OVERHEAD_BYTES_MAX + 128;
        prop_assert!(frame.len() <= HEADER_BYTES + bound, "{} bytes of {bound}", frame.len());
    }
}

#[test]
fn not_found_reads_back() {
    let frame = encoded(|encoder, out| encoder.get_reply(out, 1, 2, None));
    let table = strict_root::<tables::GetReply<'_>>(body(&frame));
    assert_eq!(
        (table.found(), table.version(), table.value().is_none()),
        (false, 0, true)
    );

    let mut builder = FlatBufferBuilder::new();
    let root = tables::GetReply::create(&mut builder, &tables::GetReplyArgs::default());
    builder.finish_minimal(root);
    for body in [body(&frame), builder.finished_data()] {
        let expected = Response::Get { found: None };
        assert_eq!(Response::decode(Kind::GetReply as u16, body), Ok(expected));
    }
}

#[test]
fn hot_kinds_grow_the_output_once() {
    let (key, value) = (&[7; 100], &[8; 1000]);
    let retry = Some(Retry {
        session: 1,
        sequence: 2,
        answered_below: 1,
        first_sent: 3,
    });
    let put = |condition, retry| Request::Put {
        key,
        value,
        condition,
        ttl_ms: 0,
        retry,
    };
    for request in [
        Request::Get { key },
        put(Condition::None, None),
        put(Condition::None, retry),
        put(Condition::Value(value), retry),
        Request::delete(key, Condition::None),
    ] {
        let mut encoder = Encoder::new();
        let mut out = Vec::new();
        encoder.request(&mut out, 1, 2, &request);
        let capacity = out.capacity();
        assert!(
            capacity < out.len() + 8,
            "{capacity} bytes were reserved for {}",
            out.len()
        );
        for _ in 0..3 {
            out.clear();
            encoder.request(&mut out, 1, 2, &request);
            assert_eq!(out.capacity(), capacity);
        }
    }
}
