//! Range tombstones, held against a walk through all of them.

use proptest::prelude::*;

use super::*;

fn key(number: u8) -> Vec<u8> {
    vec![b'k', number]
}

/// Starts, lengths (0: no end), timestamps in rising order.
fn tombstones() -> impl Strategy<Value = Vec<RangeTombstone>> {
    prop::collection::vec((0..60_u8, 0..40_u8, 1..4_u64), 0..60).prop_map(|all| {
        let mut clock = 0;
        let tombstone = |(start, length, step): (u8, u8, u64)| {
            clock += step;
            RangeTombstone {
                start: key(start).into(),
                end: (length > 0).then(|| key(start + length).into()),
                timestamp: Timestamp(clock),
            }
        };
        all.into_iter().map(tombstone).collect()
    })
}

fn newest(all: &[RangeTombstone], key: &[u8], snapshot: u64) -> Option<Timestamp> {
    let own = all.iter().filter(|tombstone| tombstone.covers(key));
    let timestamps = own.map(|tombstone| tombstone.timestamp);
    timestamps.filter(|timestamp| timestamp.0 <= snapshot).max()
}

proptest! {
    #[test]
    fn the_newest_at_a_snapshot_is_found(all in tombstones()) {
        let mut grown = RangeTombstones::default();
        for (count, tombstone) in all.iter().enumerate() {
            grown.insert(tombstone.clone());
            prop_assert_eq!(grown.len(), count + 1);
            let keys_bytes: usize = grown
                .iter()
                .map(|tombstone| tombstone.start.len() + tombstone.end.as_ref().map_or(0, |end| end.len()))
                .sum();
            prop_assert!(grown.held_bytes() <= grown.len() * TOMBSTONE_BYTES_MAX + keys_bytes);
        }
        let built = RangeTombstones::new(all.clone());
        for number in 0..=101 {
            for snapshot in 0..=181 {
                let expected = newest(&all, &key(number), snapshot);
                for set in [&grown, &built] {
                    prop_assert_eq!(set.newest_over(&key(number), Timestamp(snapshot)), expected);
                }
            }
        }
    }

    #[test]
    fn what_is_said_to_be_covered_is(all in tombstones(), snapshot in 0..181_u64) {
        let mut grown = RangeTombstones::default();
        for tombstone in &all {
            grown.insert(tombstone.clone());
        }
        let is_covered = |number| newest(&all, &key(number), snapshot).is_some();
        for number in (0..=101).filter(|number| is_covered(*number)) {
            let own = key(number);
            let end = grown.covered_up_to(&own, Timestamp(snapshot)).map(<[u8]>::to_vec);
            prop_assert!(end.as_ref().is_none_or(|end| *end > own));
            let start = grown.covered_down_to(&own, Timestamp(snapshot)).to_vec();
            for other in 0..=101 {
                let is_within = key(other) >= start && end.as_ref().is_none_or(|end| key(other) < *end);
                prop_assert!(!is_within || is_covered(other), "{} within that of {}", other, number);
            }
        }
    }

    #[test]
    fn readers_from_the_watermark_on_need_no_more(all in tombstones(), watermark in 0..181_u64) {
        let needed = RangeTombstones::new(all.clone()).needed_from(Timestamp(watermark));
        prop_assert!(needed.is_sorted_by(|one, other| one.start <= other.start));
        let old = needed.iter().filter(|tombstone| tombstone.timestamp.0 <= watermark);
        let old: Vec<&RangeTombstone> = old.collect();
        for pair in old.windows(2) {
            prop_assert!(pair[0].end.as_ref().is_some_and(|end| *end <= pair[1].start));
        }
        for number in 0..=101 {
            for snapshot in watermark..=181 {
                let expected = newest(&all, &key(number), snapshot);
                prop_assert_eq!(newest(&needed, &key(number), snapshot), expected);
            }
        }
    }

    #[test]
    fn an_extent_is_covered_if_all_its_keys_are(
        all in tombstones(),
        first in 0..60_u8,
        length in 1..20_u8,
        version in 0..60_u64,
        snapshot in 0..181_u64,
    ) {
        let needed = RangeTombstones::new(all.clone()).needed_from(Timestamp(snapshot));
        let set = RangeTombstones::new(needed);
        let end = key(first + length);
        let is_whole = set.cover_whole(&key(first), |key| *end <= *key, Timestamp(version), Timestamp(snapshot));
        let is_covered = |number| newest(&all, &key(number), snapshot) > Some(Timestamp(version));
        prop_assert_eq!(is_whole, (first..first + length).all(is_covered));
    }

    #[test]
    fn parts_are_what_lies_between_two_keys(all in tombstones(), low in 0..60_u8, length in 0..40_u8) {
        let (low, high) = (key(low), key(low + length));
        for tombstone in all {
            let part = tombstone.between(Some(&low), Some(&high));
            for number in 0..=101 {
                let own = key(number);
                let expected = tombstone.covers(&own) && low <= own && own < high;
                prop_assert_eq!(part.as_ref().is_some_and(|part| part.covers(&own)), expected);
            }
            prop_assert_eq!(tombstone.between(None, None), Some(tombstone));
        }
    }
}

#[test]
fn many_that_begin_at_one_key_take_little_memory() {
    let mut trimmed = RangeTombstones::default();
    for number in 0..20_000_u32 {
        trimmed.insert(RangeTombstone {
            start: (*b"queue/").into(),
            end: Some([&b"queue/"[..], &number.to_be_bytes()].concat().into()),
            timestamp: Timestamp(u64::from(number) + 1),
        });
    }
    assert!(
        trimmed.held_bytes() < 20_000 * 400,
        "{} bytes",
        trimmed.held_bytes()
    );
    let key = [&b"queue/"[..], &19_000_u32.to_be_bytes()].concat();
    assert_eq!(trimmed.newest_over(&key, Timestamp(19_001)), None);
    assert_eq!(
        trimmed.newest_over(&key, Timestamp(19_002)),
        Some(Timestamp(19_002))
    );
    assert_eq!(trimmed.newest_over(&key, Timestamp::MAX), Some(Timestamp(20_000)));
}

#[test]
fn bytes_of_range_tombstones() {
    let tombstone = RangeTombstone {
        start: (*b"a").into(),
        end: Some((*b"bc").into()),
        timestamp: Timestamp(0x0102),
    };
    let bytes = encode(core::slice::from_ref(&tombstone));
    assert_eq!(bytes, b"\x01\0\0\0\x02\0\0\0\x02\x01\0\0\0\0\0\0abc");
    assert_eq!(decode(&bytes), Some(vec![tombstone.clone()]));
    assert_eq!(decode(&[]), Some(Vec::new()));
    for cut in 1..bytes.len() {
        assert_eq!(decode(&bytes[..cut]), None, "{cut} bytes");
    }
    let empty = RangeTombstone {
        end: Some((*b"a").into()),
        ..tombstone.clone()
    };
    assert_eq!(decode(&encode(&[empty])), None);
    let before = RangeTombstone {
        start: (*b"A").into(),
        ..tombstone.clone()
    };
    assert_eq!(decode(&encode(&[tombstone, before])), None, "out of order");
}
