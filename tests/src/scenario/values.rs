//! Keys and values of a run, and the check that a value read is one that was written, whole.
//!
//! A value is either a text that proves itself, or a number in decimal digits, which adds work on. No text of a run
//! looks like a number: it begins with the bytes of a small one.

use ostrakon_wire::routing::{key_hash, shard_of};

use crate::check::history::Datum;

/// Bytes of the number that every value begins with.
const NUMBER_BYTES: usize = 8;

/// The key with this number: most lie anywhere, some share a routing tag, some are long.
pub fn key(number: u32) -> Vec<u8> {
    match number % 7 {
        5 => format!("{{tag{}}}key {number:05}", number % 2).into_bytes(),
        6 => format!("long key {number:05} {}", "x".repeat(200 + number as usize % 300)).into_bytes(),
        _ => format!("key {number:05}").into_bytes(),
    }
}

/// The shard of a key.
pub fn shard(key: &[u8], shards: u32) -> usize {
    shard_of(key_hash(key), shards).0 as usize
}

/// The value that stands for `number`, of at least 8 bytes. Every byte follows from the number and its place.
pub fn value(number: u64, bytes: usize) -> Vec<u8> {
    let mut value = number.to_le_bytes().to_vec();
    value.extend((NUMBER_BYTES..bytes).map(|place| filler(number, place)));
    value
}

/// The number that a value stands for.
///
/// # Errors
/// What is wrong with it, if nobody can have written it.
pub fn number(value: &[u8]) -> Result<u64, String> {
    let Some((head, rest)) = value.split_first_chunk::<NUMBER_BYTES>() else {
        return Err(format!("a value of {} bytes", value.len()));
    };
    let number = u64::from_le_bytes(*head);
    match rest
        .iter()
        .zip(NUMBER_BYTES..)
        .find(|(byte, place)| **byte != filler(number, *place))
    {
        None => Ok(number),
        Some((byte, place)) => Err(format!(
            "byte {place} of the value {number} is {byte:#04x}, expected {:#04x}",
            filler(number, place)
        )),
    }
}

/// What a value is in a history: a number, or the name of a text.
///
/// # Errors
/// As for [`number`].
pub fn datum(value: &[u8]) -> Result<Datum, String> {
    let decimal = std::str::from_utf8(value).ok().and_then(|text| {
        text.parse::<i64>()
            .ok()
            .filter(|number| number.to_string() == text)
    });
    match decimal {
        Some(decimal) => Ok(Datum::from(decimal)),
        None => number(value).map(text_datum),
    }
}

/// The name of the text that stands for `number`.
fn text_datum(number: u64) -> Datum {
    Datum::from(format!("v{number}").as_str())
}

fn filler(number: u64, place: usize) -> u8 {
    (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u8 ^ (place as u8) ^ ((place >> 8) as u8)
}
