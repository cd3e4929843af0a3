//! Bodies laid out by hand against flatbuffers' own reading and writing of the same tables.

use flatbuffers::{FlatBufferBuilder, VerifierOptions};
use proptest::collection::vec;
use proptest::prelude::*;

use super::request::{Condition, Request};
use super::response::{Response, ScanEntry, ScanReply};
use super::{DecodeError, Encoder, Kind};
use crate::frame::{self, HEADER_BYTES};
use crate::generated::client_generated::ostrakon::wire as tables;
use crate::limits::{SCAN_ENTRY_OVERHEAD_BYTES_MAX, SCAN_LIMIT_MAX};

fn encoded(encode: impl FnOnce(&mut Encoder, &mut Vec<u8>)) -> Vec<u8> {
    // A frame must not depend on where in the output it starts.
    let mut out = vec![0xEE; 3];
    encode(&mut Encoder::new(), &mut out);
    out.drain(..3);
    out
}

fn body(frame: &[u8]) -> &[u8] {
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

fn condition() -> impl Strategy<Value = Condition> {
    prop_oneof![
        Just(Condition::None),
        Just(Condition::Absent),
        Just(Condition::Present),
        (1..=u64::MAX).prop_map(Condition::Version),
    ]
}

/// The same put as flatbuffers' builder makes it.
fn built_put(key: &[u8], value: &[u8], condition: Condition) -> Vec<u8> {
    let mut builder = FlatBufferBuilder::new();
    let value = Some(builder.create_vector(value));
    let key = Some(builder.create_vector(key));
    let (condition, expected_version) = condition.to_wire();
    let condition = tables::Condition(condition);
    let put = tables::Put::create(
        &mut builder,
        &tables::PutArgs {
            key,
            value,
            condition,
            expected_version,
        },
    );
    builder.finish_minimal(put);
    builder.finished_data().to_vec()
}

fn built_delete(key: &[u8], condition: Condition) -> Vec<u8> {
    let mut builder = FlatBufferBuilder::new();
    let key = Some(builder.create_vector(key));
    let (condition, expected_version) = condition.to_wire();
    let condition = tables::Condition(condition);
    let delete = tables::Delete::create(
        &mut builder,
        &tables::DeleteArgs {
            key,
            condition,
            expected_version,
        },
    );
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
    ) {
        let put = Request::Put { key: &key, value: &value, condition };
        let frame = encoded(|encoder, out| encoder.request(out, 1, 2, &put));
        let table = strict_root::<tables::Put<'_>>(body(&frame));
        prop_assert_eq!(table.key().bytes(), &key[..]);
        prop_assert_eq!(table.value().bytes(), &value[..]);
        prop_assert_eq!((table.condition().0, table.expected_version()), condition.to_wire());

        let built = built_put(&key, &value, condition);
        for body in [body(&frame), &built] {
            prop_assert_eq!(Request::decode(Kind::Put as u16, body), Ok(put));
            prop_assert_eq!(Request::decode_trusted(Kind::Put as u16, body), put);
        }
    }

    #[test]
    fn delete_reads_back_and_means_what_the_builder_means(
        key in vec(any::<u8>(), 1..70), condition in condition(),
    ) {
        let delete = Request::Delete { key: &key, condition };
        let frame = encoded(|encoder, out| encoder.request(out, 1, 2, &delete));
        let table = strict_root::<tables::Delete<'_>>(body(&frame));
        prop_assert_eq!(table.key().bytes(), &key[..]);
        prop_assert_eq!((table.condition().0, table.expected_version()), condition.to_wire());

        let built = built_delete(&key, condition);
        for body in [body(&frame), &built] {
            prop_assert_eq!(Request::decode(Kind::Delete as u16, body), Ok(delete));
            prop_assert_eq!(Request::decode_trusted(Kind::Delete as u16, body), delete);
        }
    }

    #[test]
    fn get_reply_reads_back(version: u64, value in bytes(70)) {
        let frame = encoded(|encoder, out| encoder.get_reply(out, 1, 2, Some((version, &value))));
        let table = strict_root::<tables::GetReply<'_>>(body(&frame));
        prop_assert!(table.found());
        prop_assert_eq!(table.version(), version);
        prop_assert_eq!(table.value().map(|value| value.bytes()), Some(&value[..]));

        let mut builder = FlatBufferBuilder::new();
        let vector = Some(builder.create_vector(&value));
        let args = tables::GetReplyArgs { found: true, version, value: vector };
        let root = tables::GetReply::create(&mut builder, &args);
        builder.finish_minimal(root);
        for body in [body(&frame), builder.finished_data()] {
            let expected = Response::Get { found: Some((version, &value[..])) };
            prop_assert_eq!(Response::decode(Kind::GetReply as u16, body), Ok(expected));
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
        pairs in proptest::collection::btree_map(vec(any::<u8>(), 1..20), (bytes(20), any::<u64>()), 0..12),
        more: bool,
    ) {
        let entries: Vec<ScanEntry<'_>> = pairs
            .iter()
            .map(|(key, (value, version))| ScanEntry { key, value, version: *version })
            .collect();
        let after_last = [pairs.keys().next_back().map_or(&[][..], |key| key), &[0]].concat();
        let resume_key = more.then_some(&after_last[..]);
        let reply = ScanReply { snapshot, entries: entries[..].into(), resume_key };
        let frame = encoded(|encoder, out| encoder.scan_reply(out, 1, 2, &reply));

        let table = strict_root::<tables::ScanReply<'_>>(body(&frame));
        prop_assert_eq!((table.snapshot(), table.more()), (snapshot, more));
        prop_assert_eq!(table.resume_key().map(|resume_key| resume_key.bytes()), resume_key);
        prop_assert_eq!(table.entries().expect("always written").len(), entries.len());

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
    let (key, value) = ([7; 100], [8; 1000]);
    let mut encoder = Encoder::new();
    let mut out = Vec::new();
    let put = Request::Put {
        key: &key,
        value: &value,
        condition: Condition::None,
    };
    encoder.request(&mut out, 1, 2, &put);
    let capacity = out.capacity();
    assert!(
        capacity < out.len() + 8,
        "{capacity} bytes were reserved for {}",
        out.len()
    );
    for _ in 0..3 {
        out.clear();
        encoder.request(&mut out, 1, 2, &put);
        assert_eq!(out.capacity(), capacity);
    }
}

/// A scan reply whose entries are one and the same table, which flatbuffers allow.
fn shared_entries(count: usize, value_bytes: usize) -> Vec<u8> {
    let mut builder = FlatBufferBuilder::new();
    let value = Some(builder.create_vector(&vec![0_u8; value_bytes]));
    let key = Some(builder.create_vector(&[1_u8]));
    let entry = tables::ScanEntry::create(
        &mut builder,
        &tables::ScanEntryArgs {
            key,
            value,
            version: 1,
        },
    );
    let entries = Some(builder.create_vector(&vec![entry; count]));
    let args = tables::ScanReplyArgs {
        entries,
        ..tables::ScanReplyArgs::default()
    };
    let root = tables::ScanReply::create(&mut builder, &args);
    builder.finish_minimal(root);
    builder.finished_data().to_vec()
}

#[test]
fn bytes_that_claim_more_than_they_are_get_refused() {
    use flatbuffers::InvalidFlatbuffer::ApparentSizeTooLarge;
    let small = shared_entries(1, 100_000);
    assert!(matches!(
        Response::decode(Kind::ScanReply as u16, &small),
        Ok(Response::Scan(_))
    ));

    let bomb = shared_entries(5, 100_000);
    let refused = DecodeError::Malformed {
        kind: Kind::ScanReply,
        source: ApparentSizeTooLarge,
    };
    assert_eq!(Response::decode(Kind::ScanReply as u16, &bomb), Err(refused));
}

#[test]
fn a_page_of_more_entries_than_allowed_gets_refused() {
    let keys: Vec<[u8; 4]> = (0..=SCAN_LIMIT_MAX).map(u32::to_be_bytes).collect();
    let entries: Vec<ScanEntry<'_>> = keys
        .iter()
        .map(|key| ScanEntry {
            key,
            value: &[],
            version: 1,
        })
        .collect();
    for (count, expected) in [
        (SCAN_LIMIT_MAX as usize, true),
        (SCAN_LIMIT_MAX as usize + 1, false),
    ] {
        let reply = ScanReply {
            snapshot: 1,
            entries: entries[..count].into(),
            resume_key: None,
        };
        let frame = encoded(|encoder, out| encoder.scan_reply(out, 1, 2, &reply));
        assert_eq!(
            Response::decode(Kind::ScanReply as u16, body(&frame)).is_ok(),
            expected,
            "{count} entries"
        );
    }
}

#[test]
fn a_table_without_its_required_field_gets_refused() {
    let frame = encoded(|encoder, out| encoder.get_reply(out, 1, 2, None));
    let empty_table = body(&frame);
    for kind in [Kind::Get, Kind::Put, Kind::Delete] {
        let refused = Request::decode(kind as u16, empty_table);
        assert!(
            matches!(refused, Err(DecodeError::Malformed { .. })),
            "{refused:?}"
        );
    }
    // Without fields there is nothing to require, and a newer version's fields would be ignored.
    assert_eq!(Request::decode(Kind::Ping as u16, empty_table), Ok(Request::Ping));
    assert_eq!(Request::decode(Kind::Ping as u16, &[]), Ok(Request::Ping));
}

/// The hello of version 1 with these fields.
fn built_hello(args: &tables::HelloArgs<'_>, client: &str) -> Vec<u8> {
    let mut builder = FlatBufferBuilder::new();
    let client = Some(builder.create_string(client));
    let root = tables::Hello::create(&mut builder, &tables::HelloArgs { client, ..*args });
    builder.finish_minimal(root);
    builder.finished_data().to_vec()
}

#[test]
fn hellos_that_break_a_rule_get_refused() {
    use super::request::MAGIC;
    let good = tables::HelloArgs {
        magic: MAGIC,
        version_min: 1,
        version_max: 1,
        ..Default::default()
    };
    let decode = |args: &tables::HelloArgs<'_>, client: &str| {
        Request::decode(Kind::Hello as u16, &built_hello(args, client)).map(drop)
    };
    assert_eq!(decode(&good, &"x".repeat(128)), Ok(()));
    assert_eq!(
        decode(&good, &"x".repeat(129)),
        Err(DecodeError::ClientNameTooLarge { bytes: 129 })
    );
    assert_eq!(
        decode(&tables::HelloArgs { magic: 7, ..good }, ""),
        Err(DecodeError::Magic { found: 7 })
    );
    for (version_min, version_max) in [(0, 1), (2, 1)] {
        let refused = DecodeError::VersionRange {
            version_min,
            version_max,
        };
        assert_eq!(
            decode(
                &tables::HelloArgs {
                    version_min,
                    version_max,
                    ..good
                },
                ""
            ),
            Err(refused)
        );
    }
    for core in [-2, 65_536] {
        assert_eq!(
            decode(&tables::HelloArgs { core, ..good }, ""),
            Err(DecodeError::Core { core })
        );
    }
    let too_large = decode(&good, &"x".repeat(5_000));
    assert!(
        matches!(
            too_large,
            Err(DecodeError::BodyTooLarge {
                kind: Kind::Hello,
                ..
            })
        ),
        "{too_large:?}"
    );
}

#[test]
fn conditions_that_break_a_rule_get_refused() {
    let decode = |number: u8, version: u64| {
        let mut frame = encoded(|encoder, out| {
            encoder.request(
                out,
                1,
                2,
                &Request::Delete {
                    key: b"k",
                    condition: Condition::None,
                },
            );
        });
        frame[HEADER_BYTES + 24..HEADER_BYTES + 32].copy_from_slice(&version.to_le_bytes());
        frame[HEADER_BYTES + 32] = number;
        Request::decode(Kind::Delete as u16, &frame[HEADER_BYTES..]).map(drop)
    };
    assert_eq!(decode(3, 9), Ok(()));
    assert_eq!(decode(4, 0), Err(DecodeError::UnknownCondition { condition: 4 }));
    assert_eq!(
        decode(3, 0),
        Err(DecodeError::ExpectedVersion {
            condition: 3,
            version: 0
        })
    );
    assert_eq!(
        decode(1, 9),
        Err(DecodeError::ExpectedVersion {
            condition: 1,
            version: 9
        })
    );
}

fn page(keys: &[&[u8]], resume_key: Option<&[u8]>) -> Result<(), DecodeError> {
    let entries: Vec<ScanEntry<'_>> = keys
        .iter()
        .map(|key| ScanEntry {
            key,
            value: &[],
            version: 1,
        })
        .collect();
    let reply = ScanReply {
        snapshot: 1,
        entries: entries[..].into(),
        resume_key,
    };
    let frame = encoded(|encoder, out| encoder.scan_reply(out, 1, 2, &reply));
    Response::decode(Kind::ScanReply as u16, body(&frame)).map(drop)
}

#[test]
fn pages_that_contradict_themselves_get_refused() {
    assert_eq!(page(&[b"a", b"b"], Some(b"b\0")), Ok(()));
    assert_eq!(page(&[], Some(b"b")), Ok(()));
    assert_eq!(page(&[], None), Ok(()));
    for refused in [
        page(&[b"b", b"a"], None),
        page(&[b"a", b"a"], None),
        page(&[b"a", b"b"], Some(b"b")),
        page(&[b"a"], Some(b"")),
    ] {
        assert!(
            matches!(refused, Err(DecodeError::Contradiction { .. })),
            "{refused:?}"
        );
    }
    assert_eq!(page(&[b""], None), Err(DecodeError::KeyEmpty));
}
