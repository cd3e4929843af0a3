//! Commands that write keys: `put`, `delete`, `delete-range`, `add`, `mput`.

use std::io::{self, Read};

use ostrakon_client::{ErrorCode, MultiWritten, PutEntry, PutOptions, Written};
use ostrakon_wire::limits::VALUE_BYTES_MAX;
use serde_json::Map;

use super::super::failure::Failure;
use super::super::key::escape;
use super::super::output::{self, Format, Grid};
use super::super::requests::{
    AddArguments, DeleteArguments, DeleteRangeArguments, Key, MputArguments, PutArguments, Spelling,
    parse_key,
};
use super::{Caller, Context, announce_stdin};
use std::os::unix::ffi::OsStrExt;

/// `put`.
pub(super) fn put(
    arguments: &PutArguments,
    context: &mut Context,
    caller: &dyn Caller,
) -> Result<(), Failure> {
    let value = match &arguments.value {
        Some(value) => context.spelling.bytes(value)?,
        None if caller.owns_stdin() => {
            announce_stdin("the value");
            read_value(io::stdin())?
        }
        None => {
            return Err(Failure::Usage(
                "put needs a value: `put KEY VALUE`, or `put KEY <<END`, then lines, then a line that is END"
                    .to_owned(),
            ));
        }
    };
    let expected = arguments.condition.expected_value(context.spelling)?;
    let options = PutOptions {
        condition: arguments.condition.condition(expected.as_deref()),
        ttl_ms: arguments.ttl.as_ms(),
    };
    let key = &arguments.key.0;
    let written = context
        .link
        .call(|client| client.put_with(key, &value, options))?;
    report(written, key, context.format)
}

/// `delete`.
pub(super) fn delete(arguments: &DeleteArguments, context: &mut Context) -> Result<(), Failure> {
    let expected = arguments.condition.expected_value(context.spelling)?;
    let condition = arguments.condition.condition(expected.as_deref());
    let key = &arguments.key.0;
    let written = context.link.call(|client| client.delete_if(key, condition))?;
    report(written, key, context.format)
}

/// `delete-range`.
pub(super) fn delete_range(arguments: &DeleteRangeArguments, context: &mut Context) -> Result<(), Failure> {
    let start = arguments.start.as_ref().map_or(&[][..], |start| &start.0);
    let end = arguments.end.as_ref().map(|end| end.0.as_slice());
    if end.is_some_and(|end| start >= end) {
        return Err(Failure::Usage(
            "no key lies in the range: END, which is excluded, has to come after START in the order of bytes"
                .to_owned(),
        ));
    }
    let version = match &arguments.prefix {
        Some(prefix) => context.link.call(|client| client.delete_prefix(&prefix.0))?,
        None => context.link.call(|client| client.delete_range(start, end))?,
    };
    if context.format != Format::Json {
        return output::text(&format!("version {version}\n"));
    }
    let mut object = Map::new();
    output::insert_version(&mut object, version);
    output::json_line(&object)
}

/// `add`: prints the sum.
pub(super) fn add(arguments: &AddArguments, context: &mut Context) -> Result<(), Failure> {
    let AddArguments { key, delta, ttl } = arguments;
    let (version, number) = context
        .link
        .call(|client| client.add_with(&key.0, *delta, ttl.as_ms()))?;
    if context.format != Format::Json {
        return output::text(&format!("{number}\n"));
    }
    let mut object = Map::new();
    object.insert("number".to_owned(), number.into());
    output::insert_version(&mut object, version);
    output::json_line(&object)
}

/// `mput`: lines of key, tab, version.
pub(super) fn mput(arguments: &MputArguments, context: &mut Context) -> Result<(), Failure> {
    let pairs = pairs(arguments, context.spelling)?;
    let entries: Vec<PutEntry<'_>> = pairs
        .iter()
        .map(|(key, value)| PutEntry {
            key: &key.0,
            value,
            ttl_ms: arguments.ttl.as_ms(),
        })
        .collect();
    let written = context.link.call(|client| client.multi_put(&entries))?;
    let mut grid = Grid::new(&["key", "version"]);
    for (entry, result) in entries.iter().zip(&written.results) {
        let said = match result {
            Ok(version) => version.to_string(),
            Err(code) => format!("not written: {code}"),
        };
        match context.format {
            Format::Table => grid.row([escape(entry.key), said]),
            Format::Text => output::text(&format!("{}\t{said}\n", escape(entry.key)))?,
            Format::Json => {
                let mut object = Map::new();
                output::insert_bytes(&mut object, "key", entry.key);
                match result {
                    Ok(version) => output::insert_version(&mut object, *version),
                    Err(code) => drop(object.insert("error".to_owned(), code.to_string().into())),
                }
                output::json_line(&object)?;
            }
        }
    }
    if context.format == Format::Table {
        grid.print()?;
    }
    check_all(&written)
}

/// Keys and values out of words in turn.
fn pairs(arguments: &MputArguments, spelling: Spelling) -> Result<Vec<(Key, Vec<u8>)>, Failure> {
    let (pairs, rest) = arguments.pairs.as_chunks::<2>();
    if let [key] = rest {
        return Err(Failure::Usage(format!(
            "the key '{}' has no value: mput needs keys and values in turn",
            key.to_string_lossy()
        )));
    }
    pairs
        .iter()
        .map(|[key, value]| {
            let key = parse_key(key.as_bytes()).map_err(|sentence| {
                Failure::Usage(format!("invalid key '{}': {sentence}", key.to_string_lossy()))
            })?;
            Ok((key, spelling.bytes(value)?))
        })
        .collect()
}

/// A failure if any entry was not written.
fn check_all(written: &MultiWritten) -> Result<(), Failure> {
    let codes: Vec<ErrorCode> = written.results.iter().filter_map(|result| result.err()).collect();
    if codes.is_empty() {
        return Ok(());
    }
    let message = &written.message;
    let unknown = [ErrorCode::CoreFailed, ErrorCode::OutcomeUnknown];
    if codes.iter().any(|code| unknown.contains(code)) {
        return Err(Failure::OutcomeUnknown(format!(
            "of {} entries, {} may or may not be written: {message}; read them to see",
            written.results.len(),
            codes.len()
        )));
    }
    let again = match written.retry_after_ms {
        0 => String::new(),
        retry_after_ms => format!("; try again in {retry_after_ms} ms"),
    };
    Err(Failure::Failed(format!(
        "{} of {} entries are not written: {message}{again}",
        codes.len(),
        written.results.len()
    )))
}

/// All of the input, which must not be longer than a value may be.
fn read_value(input: impl Read) -> Result<Vec<u8>, Failure> {
    let mut value = Vec::new();
    input
        .take(VALUE_BYTES_MAX as u64 + 1)
        .read_to_end(&mut value)
        .map_err(|error| Failure::Failed(format!("cannot read the value from stdin: {error}")))?;
    if value.len() > VALUE_BYTES_MAX {
        return Err(Failure::Failed(format!(
            "the value on stdin is longer than {VALUE_BYTES_MAX} bytes, the most a value can have; nothing \
             was written"
        )));
    }
    Ok(value)
}

/// Prints what became of a write.
fn report(written: Written, key: &[u8], format: Format) -> Result<(), Failure> {
    if format == Format::Json {
        let mut object = Map::new();
        object.insert("applied".to_owned(), written.applied.into());
        output::insert_version(&mut object, written.version);
        output::json_line(&object)?;
    } else if written.applied {
        output::text(&format!("version {}\n", written.version))?;
    }
    if written.applied {
        return Ok(());
    }
    Err(Failure::ConditionFailed(format!(
        "nothing was written: {}",
        state(key, written.version)
    )))
}

/// The end of a sentence: what the key is, whose condition did not hold.
pub(super) fn state(key: &[u8], version: u64) -> String {
    let key = escape(key);
    match version {
        0 => format!("there is no key '{key}'"),
        version => format!("the key '{key}' is at version {version}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;
    use std::io::Seek;

    use crate::process::cli::requests::TtlOption;

    #[test]
    fn a_value_from_a_stream_is_exact_and_bounded() {
        let mut file = tempfile::tempfile().unwrap();
        file.set_len(VALUE_BYTES_MAX as u64).unwrap();
        assert_eq!(read_value(&file).unwrap().len(), VALUE_BYTES_MAX);
        file.set_len(VALUE_BYTES_MAX as u64 + 1).unwrap();
        file.rewind().unwrap();
        assert!(
            read_value(&file)
                .unwrap_err()
                .to_string()
                .contains("longer than 8388608 bytes")
        );
    }

    #[test]
    fn pairs_come_in_twos_and_their_keys_are_unescaped() {
        let arguments = |words: &[&str]| MputArguments {
            pairs: words.iter().map(OsString::from).collect(),
            ttl: TtlOption { ttl_ms: None },
        };
        let read = pairs(&arguments(&[r"a\x00", r"\x01"]), Spelling::Exact).unwrap();
        assert_eq!(read, [(Key(b"a\0".to_vec()), br"\x01".to_vec())]);
        let read = pairs(&arguments(&["a", r"\x01"]), Spelling::Escaped).unwrap();
        assert_eq!(read, [(Key(b"a".to_vec()), b"\x01".to_vec())]);
        let refusal = pairs(&arguments(&["a", "1", "b"]), Spelling::Exact).unwrap_err();
        assert!(refusal.to_string().contains("'b' has no value"), "{refusal}");
        assert_eq!(refusal.exit_code(), 2);
    }

    #[test]
    fn entries_that_were_not_written_are_counted_and_their_outcome_named() {
        let written = |results| MultiWritten {
            results,
            message: "why".to_owned(),
            retry_after_ms: 7,
        };
        assert_eq!(check_all(&written(vec![Ok(1), Ok(2)])), Ok(()));
        let busy = check_all(&written(vec![Ok(1), Err(ErrorCode::Busy)])).unwrap_err();
        assert_eq!(
            busy.to_string(),
            "1 of 2 entries are not written: why; try again in 7 ms"
        );
        assert_eq!(busy.exit_code(), 1);
        let unknown = check_all(&written(vec![Err(ErrorCode::Busy), Err(ErrorCode::CoreFailed)]));
        assert_eq!(unknown.unwrap_err().exit_code(), 5);
    }
}
