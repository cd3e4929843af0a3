//! Commands that read keys: `get`, `mget`, `scan`, `ttl`.

use ostrakon_client::{Entry, Error, ScanOptions, Value};
use serde_json::{Map, Value as Json};

use super::super::failure::Failure;
use super::super::key::escape;
use super::super::link::{Stopped, timestamp_us};
use super::super::output::{self, Format, Grid};
use super::super::requests::{KeyArgument, MgetArguments, ScanArguments};
use super::{Caller, Context};

/// Entries that are printed together. On a terminal, the caller is asked before the next ones.
const SCAN_CHUNK: usize = 1_000;

/// `get`: on the command line the value and nothing else, so that `get KEY > file` is exact.
pub(super) fn get(
    arguments: &KeyArgument,
    context: &mut Context,
    caller: &dyn Caller,
) -> Result<(), Failure> {
    let key = &arguments.key.0;
    let found = context.link.call(|client| client.get(key))?;
    if context.format == Format::Json {
        output::json_line(&found_as_json(found.as_ref()))?;
    }
    let value = found.ok_or_else(|| no_key(key))?;
    match context.format {
        Format::Json => Ok(()),
        Format::Table => {
            output::shown(&value.value)?;
            eprintln!("version {}{}", value.version, lifetime(value.expires, context));
            Ok(())
        }
        Format::Text if caller.owns_stdin() => output::raw(&value.value),
        Format::Text => output::text(&(escape(&value.value) + "\n")),
    }
}

/// `mget`: lines of key, tab, value.
pub(super) fn mget(arguments: &MgetArguments, context: &mut Context) -> Result<(), Failure> {
    let keys: Vec<&[u8]> = arguments.keys.iter().map(|key| &key.0[..]).collect();
    let values = context.link.call(|client| client.multi_get(&keys))?;
    let mut grid = Grid::new(&["key", "value", "version", "expires"]);
    for (key, value) in keys.iter().zip(&values) {
        match (context.format, value) {
            (Format::Json, value) => {
                let mut object = Map::new();
                output::insert_bytes(&mut object, "key", key);
                object.append(&mut found_as_json(value.as_ref()));
                output::json_line(&object)?;
            }
            (Format::Table, None) => {
                grid.row([
                    escape(key),
                    "(no such key)".to_owned(),
                    String::new(),
                    String::new(),
                ]);
            }
            (Format::Table, Some(value)) => grid.row([
                escape(key),
                output::cell(&value.value),
                value.version.to_string(),
                expiry(value.expires, context),
            ]),
            (Format::Text, None) => {}
            (Format::Text, Some(value)) => {
                output::text(&format!("{}\t{}\n", escape(key), escape(&value.value)))?;
            }
        }
    }
    if context.format == Format::Table {
        grid.prefer(0);
        grid.print()?;
    }
    let mut absent = keys.iter().zip(&values).filter(|(_, value)| value.is_none());
    match (absent.next(), absent.count()) {
        (None, _) => Ok(()),
        (Some((key, _)), 0) => Err(no_key(key)),
        (Some((key, _)), more) => Err(Failure::NotFound(format!(
            "there is no key '{}', nor {more} more of these",
            escape(key)
        ))),
    }
}

/// `ttl`.
pub(super) fn ttl(arguments: &KeyArgument, context: &mut Context) -> Result<(), Failure> {
    let key = &arguments.key.0;
    let found = context.link.call(|client| client.get(key))?;
    let left_ms = found.as_ref().and_then(|value| left_ms(value.expires, context));
    if context.format == Format::Json {
        let mut object = Map::new();
        object.insert("found".to_owned(), found.is_some().into());
        if let Some(value) = &found {
            output::insert_expiry(&mut object, value.expires);
            object.insert("ttl_ms".to_owned(), left_ms.into());
        }
        output::json_line(&object)?;
    }
    if found.is_none() {
        return Err(no_key(key));
    }
    match (context.format, left_ms) {
        (Format::Json, _) => Ok(()),
        (_, Some(left_ms)) => output::text(&format!("{left_ms} ms\n")),
        (_, None) => output::text("never expires\n"),
    }
}

/// `scan`: lines of key, tab, value; or a table; or one JSON object per entry.
pub(super) fn scan(
    arguments: &ScanArguments,
    context: &mut Context,
    caller: &mut dyn Caller,
) -> Result<(), Failure> {
    let options = ScanOptions {
        limit: arguments.limit.unwrap_or(0),
        reverse: arguments.reverse,
        keys_only: arguments.keys_only,
        ..arguments.range.scan_options(arguments.start.as_ref())
    };
    let Context { link, format, .. } = context;
    let (format, interrupt) = (*format, std::sync::Arc::clone(link.interrupt()));
    let printed = link.run(|client, watch| {
        let mut scan = client.scan(options).peekable();
        let mut printed = 0;
        loop {
            let mut chunk = Vec::new();
            let read = watch.time(|| {
                scan.by_ref().take(SCAN_CHUNK).try_for_each(|entry| {
                    chunk.push(entry?);
                    Ok::<(), Error>(())
                })
            });
            // Whatever has ended the scan, these were read.
            print_entries(&chunk, format, arguments.keys_only)?;
            read?;
            printed += chunk.len() as u64;
            interrupt.check()?;
            if watch.time(|| scan.peek().is_none()) {
                return Ok(printed);
            }
            if !caller.wants_more(printed)? {
                return Err(Stopped::Failure(Failure::Interrupted(format!(
                    "stopped after {printed} entries, as you wished"
                ))));
            }
        }
    });
    match (printed, format) {
        (Ok(0), Format::Table) => {
            eprintln!("no keys");
            Ok(())
        }
        (Ok(printed), Format::Table) => {
            eprintln!("{printed} {}", if printed == 1 { "entry" } else { "entries" });
            Ok(())
        }
        (printed, _) => printed.map(|_| ()),
    }
}

fn print_entries(entries: &[Entry], format: Format, keys_only: bool) -> Result<(), Failure> {
    match format {
        Format::Table if entries.is_empty() => Ok(()),
        Format::Table => {
            let names = ["key", "version", "value"];
            let columns = if keys_only { 2 } else { 3 };
            let mut grid = Grid::new(&names[..columns]);
            for entry in entries {
                let cells = [
                    escape(&entry.key),
                    entry.version.to_string(),
                    output::cell(&entry.value),
                ];
                grid.row(cells.into_iter().take(columns));
            }
            grid.prefer(0);
            grid.prefer(1);
            grid.print()
        }
        Format::Json => output::write(|out| {
            entries
                .iter()
                .try_for_each(|entry| writeln!(out, "{}", entry_as_json(entry, keys_only)))
        }),
        Format::Text => output::write(|out| {
            entries.iter().try_for_each(|entry| {
                if keys_only {
                    writeln!(out, "{}", escape(&entry.key))
                } else {
                    writeln!(out, "{}\t{}", escape(&entry.key), escape(&entry.value))
                }
            })
        }),
    }
}

/// What to say of a key that is not there.
fn no_key(key: &[u8]) -> Failure {
    Failure::NotFound(format!("there is no key '{}'", escape(key)))
}

/// Milliseconds that a key still lives by the node's clock, if it does not stay.
fn left_ms(expires: u64, context: &Context) -> Option<u64> {
    let left_us = timestamp_us(expires).saturating_sub(context.link.node_time_us());
    (expires != 0).then_some(left_us.div_ceil(1_000))
}

/// For a cell: how long a key still lives.
fn expiry(expires: u64, context: &Context) -> String {
    left_ms(expires, context).map_or_else(|| "never".to_owned(), |ms| format!("in {}", seconds(ms)))
}

/// The end of a sentence: how long a key still lives, if it does not stay.
fn lifetime(expires: u64, context: &Context) -> String {
    left_ms(expires, context).map_or_else(String::new, |ms| format!(", expires in {}", seconds(ms)))
}

fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1_000, ms % 1_000 / 100)
}

fn found_as_json(found: Option<&Value>) -> Map<String, Json> {
    let mut object = Map::new();
    object.insert("found".to_owned(), found.is_some().into());
    if let Some(found) = found {
        output::insert_version(&mut object, found.version);
        output::insert_expiry(&mut object, found.expires);
        output::insert_bytes(&mut object, "value", &found.value);
    }
    object
}

fn entry_as_json(entry: &Entry, keys_only: bool) -> Json {
    let mut object = Map::new();
    output::insert_bytes(&mut object, "key", &entry.key);
    output::insert_version(&mut object, entry.version);
    output::insert_expiry(&mut object, entry.expires);
    if !keys_only {
        output::insert_bytes(&mut object, "value", &entry.value);
    }
    Json::Object(object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_of_entries_and_values() {
        let entry = Entry {
            key: b"k".to_vec(),
            value: b"\xff".to_vec(),
            version: 7,
            expires: 5 << 12,
        };
        assert_eq!(
            entry_as_json(&entry, false),
            json!({"key": "k", "value_base64": "/w==", "version": "7", "expires": 5})
        );
        assert_eq!(
            entry_as_json(&entry, true),
            json!({"key": "k", "version": "7", "expires": 5})
        );
        assert_eq!(Json::Object(found_as_json(None)), json!({"found": false}));
        let value = Value {
            version: 7,
            expires: 0,
            value: b"v".to_vec(),
        };
        assert_eq!(
            Json::Object(found_as_json(Some(&value))),
            json!({"found": true, "value": "v", "version": "7"})
        );
    }

    #[test]
    fn a_missing_key_is_named_escaped() {
        let failure = no_key(b"a\0");
        assert_eq!(failure.to_string(), r"there is no key 'a\x00'");
        assert_eq!(failure.exit_code(), 3);
    }
}
