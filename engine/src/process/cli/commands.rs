//! The one-shot commands: each connects, asks once, prints and ends.

use std::io::{self, IsTerminal, Read};
use std::os::unix::ffi::OsStrExt;

use ostrakon_client::{Client, Condition, Entry, Options, ScanOptions, Value, Written};
use ostrakon_wire::limits::{SCAN_LIMIT_MAX, VALUE_BYTES_MAX};
use serde_json::{Map, Value as Json};

use super::arguments::{
    ConditionArguments, ConnectArguments, DeleteArguments, GetArguments, Key, PutArguments, ScanArguments,
    StatusArguments,
};
use super::failure::Failure;
use super::key::escape;
use super::{Outcome, output};
use crate::process::version::RELEASE;

/// `ostrakon get`: the value and nothing else, so that `get KEY > file` is exact.
pub(super) fn get(arguments: &GetArguments) -> Result<Outcome, Failure> {
    let found = connect(&arguments.connect)?
        .get(&arguments.key.0)
        .map_err(|error| failed(&error))?;
    if arguments.connect.json {
        output::json_line(&found_as_json(found.as_ref()))?;
    }
    match found {
        Some(_) if arguments.connect.json => Ok(Outcome::Done),
        Some(Value { value, .. }) => output::raw(&value).map(|()| Outcome::Done),
        None => {
            eprintln!("ostrakon: there is no key '{}'", escape(&arguments.key.0));
            Ok(Outcome::NotFound)
        }
    }
}

/// `ostrakon put`.
pub(super) fn put(arguments: &PutArguments) -> Result<Outcome, Failure> {
    let value = if let Some(value) = &arguments.value {
        value.as_bytes().to_vec()
    } else {
        if io::stdin().is_terminal() {
            eprintln!("ostrakon: type the value; Ctrl-D at the start of a line ends it");
        }
        read_value(io::stdin())?
    };
    let written = connect(&arguments.connect)?
        .put_if(&arguments.key.0, &value, condition(&arguments.condition))
        .map_err(|error| failed(&error))?;
    report(written, &arguments.key, &arguments.connect)
}

/// `ostrakon delete`.
pub(super) fn delete(arguments: &DeleteArguments) -> Result<Outcome, Failure> {
    let written = connect(&arguments.connect)?
        .delete_if(&arguments.key.0, condition(&arguments.condition))
        .map_err(|error| failed(&error))?;
    report(written, &arguments.key, &arguments.connect)
}

/// `ostrakon scan`: lines of key, tab, value, both escaped; or one JSON object per entry.
pub(super) fn scan(arguments: &ScanArguments) -> Result<Outcome, Failure> {
    let options = scan_options(arguments);
    let limit = arguments
        .limit
        .map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let mut client = connect(&arguments.connect)?;
    let mut failure = None;
    output::write(|out| {
        for entry in client.scan(options).take(limit) {
            match entry {
                Ok(entry) if arguments.connect.json => {
                    writeln!(out, "{}", entry_as_json(&entry, arguments.keys_only))?;
                }
                Ok(entry) if arguments.keys_only => writeln!(out, "{}", escape(&entry.key))?,
                Ok(entry) => writeln!(out, "{}\t{}", escape(&entry.key), escape(&entry.value))?,
                Err(error) => failure = Some(failed(&error)),
            }
        }
        Ok(())
    })?;
    failure.map_or(Ok(Outcome::Done), Err)
}

/// `ostrakon status`.
pub(super) fn status(arguments: &StatusArguments) -> Result<Outcome, Failure> {
    let status = connect(&arguments.connect)?
        .status()
        .map_err(|error| failed(&error))?;
    if arguments.connect.json {
        return output::text(&format!("{status}\n")).map(|()| Outcome::Done);
    }
    let parsed: Json = serde_json::from_str(&status)
        .map_err(|error| Failure::Failed(format!("the status that the node sent is not JSON: {error}")))?;
    output::text(&output::aligned(&parsed)).map(|()| Outcome::Done)
}

fn connect(arguments: &ConnectArguments) -> Result<Client, Failure> {
    let options = Options {
        client: format!("ostrakon/{RELEASE}"),
        ..Options::default()
    };
    Client::connect(&arguments.connect, options).map_err(|error| failed(&error))
}

fn failed(error: &ostrakon_client::Error) -> Failure {
    Failure::Failed(error.to_string())
}

fn condition(arguments: &ConditionArguments) -> Condition<'_> {
    match arguments {
        ConditionArguments { if_absent: true, .. } => Condition::Absent,
        ConditionArguments { if_present: true, .. } => Condition::Present,
        ConditionArguments {
            if_version: Some(version),
            ..
        } => Condition::Version(*version),
        _ => Condition::None,
    }
}

fn scan_options(arguments: &ScanArguments) -> ScanOptions {
    let bounds = match (&arguments.prefix, &arguments.start, &arguments.end) {
        (Some(prefix), _, _) => ScanOptions::prefix(&prefix.0),
        (None, start, end) => ScanOptions {
            start: start.as_ref().map(|key| key.0.clone()).unwrap_or_default(),
            end: end.as_ref().map(|key| key.0.clone()),
            ..ScanOptions::default()
        },
    };
    // No page is longer than what is wanted in all; 0 leaves the length to the server.
    let page_limit = arguments
        .limit
        .and_then(|limit| u32::try_from(limit).ok())
        .filter(|&limit| limit <= SCAN_LIMIT_MAX);
    ScanOptions {
        page_limit: page_limit.unwrap_or(0),
        keys_only: arguments.keys_only,
        ..bounds
    }
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
fn report(written: Written, key: &Key, arguments: &ConnectArguments) -> Result<Outcome, Failure> {
    if arguments.json {
        let mut object = Map::new();
        object.insert("applied".to_owned(), written.applied.into());
        output::insert_version(&mut object, written.version);
        output::json_line(&object)?;
    } else if written.applied {
        output::text(&format!("version {}\n", written.version))?;
    }
    if written.applied {
        return Ok(Outcome::Done);
    }
    let key = escape(&key.0);
    match written.version {
        0 => eprintln!("ostrakon: nothing was written: there is no key '{key}'"),
        version => eprintln!("ostrakon: nothing was written: the key '{key}' is at version {version}"),
    }
    Ok(Outcome::ConditionFailed)
}

fn found_as_json(found: Option<&Value>) -> Map<String, Json> {
    let mut object = Map::new();
    object.insert("found".to_owned(), found.is_some().into());
    if let Some(Value { version, value, .. }) = found {
        output::insert_version(&mut object, *version);
        output::insert_bytes(&mut object, "value", value);
    }
    object
}

fn entry_as_json(entry: &Entry, keys_only: bool) -> Json {
    let mut object = Map::new();
    output::insert_bytes(&mut object, "key", &entry.key);
    output::insert_version(&mut object, entry.version);
    if !keys_only {
        output::insert_bytes(&mut object, "value", &entry.value);
    }
    Json::Object(object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::io::Seek;

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
    fn conditions_become_those_of_the_protocol() {
        let none = || ConditionArguments {
            if_absent: false,
            if_present: false,
            if_version: None,
        };
        assert_eq!(condition(&none()), Condition::None);
        assert_eq!(
            condition(&ConditionArguments {
                if_absent: true,
                ..none()
            }),
            Condition::Absent
        );
        assert_eq!(
            condition(&ConditionArguments {
                if_present: true,
                ..none()
            }),
            Condition::Present
        );
        assert_eq!(
            condition(&ConditionArguments {
                if_version: Some(7),
                ..none()
            }),
            Condition::Version(7)
        );
    }

    #[test]
    fn json_of_entries_and_values() {
        let entry = Entry {
            expires: 0,
            key: b"k".to_vec(),
            value: b"\xff".to_vec(),
            version: 7,
        };
        assert_eq!(
            entry_as_json(&entry, false),
            json!({"key": "k", "value_base64": "/w==", "version": "7"})
        );
        assert_eq!(entry_as_json(&entry, true), json!({"key": "k", "version": "7"}));
        assert_eq!(Json::Object(found_as_json(None)), json!({"found": false}));
        let value = Value {
            expires: 0,
            version: 7,
            value: b"v".to_vec(),
        };
        assert_eq!(
            Json::Object(found_as_json(Some(&value))),
            json!({"found": true, "value": "v", "version": "7"})
        );
    }
}
