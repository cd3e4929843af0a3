//! Bodies that are well-formed tables and yet break a rule, and bodies that lie about their size: each is refused with
//! the error that names the rule. They are made by flatbuffers' builder or by changes of good bytes, since the encoder
//! makes none.

use flatbuffers::FlatBufferBuilder;

use super::layout_tests::{body, encoded};
use super::request::{Request, ScanRequest};
use super::response::{Response, ScanEntry, ScanReply};
use super::{DecodeError, Kind};
use crate::generated::client_generated::ostrakon::wire as tables;
use crate::limits::{MULTI_MAX, SCAN_LIMIT_MAX};

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
            expires: 0,
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

    let bomb = shared_entries(20, 100_000);
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
            expires: 0,
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

/// What reading a delete with this condition on the wire says.
fn delete_on(condition: u8, expected_version: u64, expected_value: Option<&[u8]>) -> Result<(), DecodeError> {
    let mut builder = FlatBufferBuilder::new();
    let args = tables::DeleteArgs {
        key: Some(builder.create_vector(b"k")),
        condition: tables::Condition(condition),
        expected_version,
        expected_value: expected_value.map(|value| builder.create_vector(value)),
        retry: None,
    };
    let root = tables::Delete::create(&mut builder, &args);
    builder.finish_minimal(root);
    Request::decode(Kind::Delete as u16, builder.finished_data()).map(drop)
}

#[test]
fn conditions_that_break_a_rule_get_refused() {
    assert_eq!(delete_on(3, 9, None), Ok(()));
    assert_eq!(delete_on(4, 0, Some(b"")), Ok(()));
    assert_eq!(
        delete_on(5, 0, None),
        Err(DecodeError::UnknownCondition { condition: 5 })
    );
    for (condition, version) in [(3, 0), (0, 9), (1, 9), (2, 9)] {
        assert_eq!(
            delete_on(condition, version, None),
            Err(DecodeError::ExpectedVersion { condition, version })
        );
    }
    assert_eq!(
        delete_on(4, 9, Some(b"")),
        Err(DecodeError::ExpectedVersion {
            condition: 4,
            version: 9
        })
    );
    assert_eq!(
        delete_on(4, 0, None),
        Err(DecodeError::ExpectedValue { condition: 4 })
    );
    for (condition, version) in [(0, 0), (1, 0), (2, 0), (3, 9)] {
        assert_eq!(
            delete_on(condition, version, Some(b"")),
            Err(DecodeError::ExpectedValue { condition })
        );
    }
}

/// What reading a batch of this one operation says; the key and a value, if wanted, are put in.
fn batch_of(args: &tables::BatchOperationArgs<'_>, has_value: bool) -> Result<(), DecodeError> {
    let mut builder = FlatBufferBuilder::new();
    let args = tables::BatchOperationArgs {
        key: Some(builder.create_vector(b"k")),
        value: has_value.then(|| builder.create_vector(b"v")),
        expected_value: None,
        ..*args
    };
    let operation = tables::BatchOperation::create(&mut builder, &args);
    let operations = Some(builder.create_vector(&[operation]));
    let args = tables::BatchArgs {
        operations,
        retry: None,
    };
    let root = tables::Batch::create(&mut builder, &args);
    builder.finish_minimal(root);
    let body = builder.finished_data();
    let decoded = Request::decode(Kind::Batch as u16, body);
    if let Ok(Request::Batch { operations, .. }) = decoded {
        // What was accepted can be read.
        assert_eq!((operations.at(0).key, operations.iter().count()), (&b"k"[..], 1));
    }
    decoded.map(drop)
}

#[test]
fn operations_that_contradict_themselves_get_refused() {
    use tables::Operation;
    let plain = |operation| tables::BatchOperationArgs {
        operation,
        ..Default::default()
    };
    let refused = |what| Err(DecodeError::BatchFields { what });
    let present = tables::Condition::Present;

    assert_eq!(batch_of(&plain(Operation::Put), true), Ok(()));
    assert_eq!(batch_of(&plain(Operation::Delete), false), Ok(()));
    assert_eq!(batch_of(&plain(Operation::Add), false), Ok(()));
    let check = tables::BatchOperationArgs {
        condition: present,
        ..plain(Operation::Check)
    };
    assert_eq!(batch_of(&check, false), Ok(()));

    assert_eq!(
        batch_of(&plain(Operation::Put), false),
        refused("a put without a value")
    );
    assert_eq!(
        batch_of(&plain(Operation::Check), false),
        refused("a check without a condition")
    );
    for operation in [Operation::Delete, Operation::Add] {
        assert_eq!(
            batch_of(&plain(operation), true),
            refused("a value where nothing is put")
        );
    }
    assert_eq!(batch_of(&check, true), refused("a value where nothing is put"));
    for (operation, has_value) in [(Operation::Put, true), (Operation::Delete, false)] {
        let args = tables::BatchOperationArgs {
            delta: 1,
            ..plain(operation)
        };
        assert_eq!(
            batch_of(&args, has_value),
            refused("a delta where nothing is added")
        );
    }
    for args in [plain(Operation::Delete), check] {
        let args = tables::BatchOperationArgs { ttl_ms: 1, ..args };
        assert_eq!(
            batch_of(&args, false),
            refused("a time to live where nothing is written")
        );
    }
    let unknown = plain(Operation(4));
    assert_eq!(
        batch_of(&unknown, false),
        Err(DecodeError::UnknownOperation { operation: 4 })
    );
    let condition = tables::BatchOperationArgs {
        condition: tables::Condition(9),
        ..plain(Operation::Add)
    };
    assert_eq!(
        batch_of(&condition, false),
        Err(DecodeError::UnknownCondition { condition: 9 })
    );
}

/// What reading a multi-put says whose entries are one and the same table, so often.
fn shared_multi_put(count: usize, value_bytes: usize) -> Result<(), DecodeError> {
    let mut builder = FlatBufferBuilder::new();
    let args = tables::PutEntryArgs {
        key: Some(builder.create_vector(b"k")),
        value: Some(builder.create_vector(&vec![0_u8; value_bytes])),
        ttl_ms: 0,
    };
    let entry = tables::PutEntry::create(&mut builder, &args);
    let entries = Some(builder.create_vector(&vec![entry; count]));
    let root = tables::MultiPut::create(&mut builder, &tables::MultiPutArgs { entries, retry: None });
    builder.finish_minimal(root);
    Request::decode(Kind::MultiPut as u16, builder.finished_data()).map(drop)
}

#[test]
fn entries_that_share_their_bytes_get_refused() {
    use flatbuffers::InvalidFlatbuffer::ApparentSizeTooLarge;
    let kind = Kind::MultiPut;
    assert_eq!(shared_multi_put(1, 100_000), Ok(()));
    assert_eq!(shared_multi_put(2, 100), Err(DecodeError::KeyTwice { kind }));
    let refused = DecodeError::Malformed {
        kind,
        source: ApparentSizeTooLarge,
    };
    assert_eq!(shared_multi_put(MULTI_MAX, 100_000), Err(refused));
}

#[test]
fn lists_of_far_too_many_tables_are_not_walked_to_their_end() {
    use flatbuffers::InvalidFlatbuffer::TooManyTables;
    let mut builder = FlatBufferBuilder::new();
    let keys: Vec<_> = (0..MULTI_MAX + 2)
        .map(|key: usize| {
            let key = Some(builder.create_vector(&key.to_be_bytes()));
            tables::Key::create(&mut builder, &tables::KeyArgs { key })
        })
        .collect();
    let decode = |count: usize, mut builder: FlatBufferBuilder<'static>| {
        let keys = Some(builder.create_vector(&keys[..count]));
        let root = tables::MultiGet::create(&mut builder, &tables::MultiGetArgs { keys });
        builder.finish_minimal(root);
        Request::decode(Kind::MultiGet as u16, builder.finished_data()).map(drop)
    };
    let kind = Kind::MultiGet;
    let malformed = DecodeError::Malformed {
        kind,
        source: TooManyTables,
    };
    assert_eq!(decode(MULTI_MAX + 2, builder), Err(malformed));
}

/// What reading a multi-get reply of one value says.
fn multi_get_reply(found: bool, omitted: bool, value: Option<&[u8]>) -> Result<(), DecodeError> {
    let mut builder = FlatBufferBuilder::new();
    let value = value.map(|value| builder.create_vector(value));
    let args = tables::MultiGetValueArgs {
        found,
        omitted,
        value,
        ..Default::default()
    };
    let value = tables::MultiGetValue::create(&mut builder, &args);
    let values = Some(builder.create_vector(&[value]));
    let root = tables::MultiGetReply::create(&mut builder, &tables::MultiGetReplyArgs { values });
    builder.finish_minimal(root);
    Response::decode(Kind::MultiGetReply as u16, builder.finished_data()).map(drop)
}

#[test]
fn values_that_contradict_themselves_get_refused() {
    assert_eq!(multi_get_reply(true, false, Some(b"")), Ok(()));
    assert_eq!(multi_get_reply(false, false, None), Ok(()));
    assert_eq!(multi_get_reply(false, true, None), Ok(()));
    for refused in [
        multi_get_reply(true, false, None),
        multi_get_reply(true, true, Some(b"")),
        multi_get_reply(true, true, None),
        multi_get_reply(false, false, Some(b"")),
        multi_get_reply(false, true, Some(b"")),
    ] {
        assert!(
            matches!(refused, Err(DecodeError::Contradiction { .. })),
            "{refused:?}"
        );
    }
}

/// What reading a multi-put reply says.
fn multi_put_reply(versions: &[u64], codes: Option<&[u16]>) -> Result<(), DecodeError> {
    let mut builder = FlatBufferBuilder::new();
    let args = tables::MultiPutReplyArgs {
        versions: Some(builder.create_vector(versions)),
        codes: codes.map(|codes| builder.create_vector(codes)),
        ..Default::default()
    };
    let root = tables::MultiPutReply::create(&mut builder, &args);
    builder.finish_minimal(root);
    Response::decode(Kind::MultiPutReply as u16, builder.finished_data()).map(drop)
}

#[test]
fn answers_to_several_writes_that_contradict_themselves_get_refused() {
    assert_eq!(multi_put_reply(&[7, 8], None), Ok(()));
    assert_eq!(multi_put_reply(&[7, 0], Some(&[0, 5])), Ok(()));
    for refused in [
        multi_put_reply(&[7, 0], None),
        multi_put_reply(&[7, 8], Some(&[0, 5])),
        multi_put_reply(&[7, 0], Some(&[0, 0])),
        multi_put_reply(&[7, 8], Some(&[0])),
        multi_put_reply(&[7], Some(&[0, 0])),
    ] {
        assert!(
            matches!(refused, Err(DecodeError::Contradiction { .. })),
            "{refused:?}"
        );
    }
    let kind = Kind::MultiPutReply;
    assert_eq!(multi_put_reply(&[], None), Err(DecodeError::Empty { kind }));
    let count = MULTI_MAX + 1;
    assert_eq!(multi_put_reply(&vec![1; MULTI_MAX], None), Ok(()));
    assert_eq!(
        multi_put_reply(&vec![1; count], None),
        Err(DecodeError::TooMany { kind, count })
    );
}

#[test]
fn an_answer_to_a_batch_has_no_more_numbers_than_a_batch_has_operations() {
    let decode = |count: usize| {
        let mut builder = FlatBufferBuilder::new();
        let numbers = Some(builder.create_vector(&vec![1_i64; count]));
        let args = tables::BatchReplyArgs {
            applied: true,
            version: 1,
            failed: 0,
            numbers,
        };
        let root = tables::BatchReply::create(&mut builder, &args);
        builder.finish_minimal(root);
        Response::decode(Kind::BatchReply as u16, builder.finished_data()).map(drop)
    };
    assert_eq!(decode(MULTI_MAX), Ok(()));
    let (kind, count) = (Kind::BatchReply, MULTI_MAX + 1);
    assert_eq!(decode(count), Err(DecodeError::TooMany { kind, count }));
}

fn page(keys: &[&[u8]], resume_key: Option<&[u8]>) -> Result<(), DecodeError> {
    let entries: Vec<ScanEntry<'_>> = keys
        .iter()
        .map(|key| ScanEntry {
            key,
            value: &[],
            version: 1,
            expires: 0,
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
    for accepted in [
        page(&[b"a", b"b"], Some(b"b\0")),
        page(&[b"b", b"a"], Some(b"a")),
        page(&[b"c", b"b", b"a"], None),
        page(&[b"a"], Some(b"a")),
        page(&[], Some(b"b")),
        page(&[], None),
    ] {
        assert_eq!(accepted, Ok(()));
    }
    for refused in [
        page(&[b"a", b"a"], None),
        page(&[b"a", b"c", b"b"], None),
        page(&[b"c", b"a", b"b"], None),
        page(&[b"b", b"a", b"a"], None),
        page(&[b"a", b"b"], Some(b"b")),
        page(&[b"b", b"a"], Some(b"aa")),
        page(&[b"a"], Some(b"")),
        page(&[], Some(b"")),
    ] {
        assert!(
            matches!(refused, Err(DecodeError::Contradiction { .. })),
            "{refused:?}"
        );
    }
    assert_eq!(page(&[b""], None), Err(DecodeError::KeyEmpty));
}

#[test]
fn a_page_fits_the_scan_that_asked_for_it() {
    let entry = |key| ScanEntry {
        key,
        value: &[],
        version: 1,
        expires: 0,
    };
    let fits = |keys: &[&'static [u8]], resume_key: Option<&'static [u8]>, scan: &ScanRequest<'_>| {
        let entries: Vec<ScanEntry<'_>> = keys.iter().map(|&key| entry(key)).collect();
        ScanReply {
            snapshot: 1,
            entries: entries[..].into(),
            resume_key,
        }
        .fits(scan)
    };
    let forward = ScanRequest {
        start: b"b",
        end: Some(b"d"),
        ..ScanRequest::ALL
    };
    let reverse = ScanRequest {
        reverse: true,
        ..forward
    };
    let prefixed = ScanRequest {
        prefix: b"ba",
        ..forward
    };

    assert!(fits(&[b"b", b"c"], Some(b"c\0"), &forward));
    assert!(fits(&[b"c", b"b"], Some(b"b"), &reverse));
    assert!(fits(&[b"ba", b"bab"], None, &prefixed));
    assert!(fits(&[], Some(b"c"), &forward) && fits(&[], Some(b"c"), &reverse));
    assert!(fits(&[b"b"], None, &forward) && fits(&[b"b"], None, &reverse));

    // Out of the range or against its direction.
    assert!(!fits(&[b"a", b"b"], None, &forward) && !fits(&[b"c", b"d"], None, &forward));
    assert!(!fits(&[b"c", b"b"], None, &forward) && !fits(&[b"b", b"c"], None, &reverse));
    assert!(!fits(&[b"ba", b"bb"], None, &prefixed));
    // The next page would repeat this one, or be the same question again.
    assert!(!fits(&[b"c"], Some(b"c"), &forward) && !fits(&[b"b"], Some(b"c"), &reverse));
    assert!(!fits(&[], Some(b"b"), &forward) && !fits(&[], Some(b"d"), &reverse));
}
