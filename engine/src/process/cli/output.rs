//! What commands print on stdout: raw values, lines, tables, JSON.
//!
//! Lines and tables show bytes in the form of [`escape`], so that nothing in a key or a value can reach the terminal.
//!
//! In JSON, bytes are a string if they are valid UTF-8, and otherwise base64 under the same name with
//! `_base64` behind it. Versions are strings, because they exceed the 2^53 up to which every JSON reader is
//! exact.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::ValueEnum;
use comfy_table::{Cell, ColumnConstraint, ContentArrangement, LineStyle, Row, Table, TableStyle};
use ostrakon_client::StageTimings;
use serde::Serialize;
use serde_json::{Map, Value};

use super::failure::Failure;
use super::key::escape;
use super::link::timestamp_us;

/// Longest part of a value that a table looks at, in bytes; no terminal is wider.
const CELL_BYTES_MAX: usize = 4096;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Tables as wide as the terminal, for people.
    Table,
    /// Lines, parts separated by tabs.
    Text,
    /// JSON, one object per line.
    Json,
}

/// Rows under names, in columns as wide as their contents. On a terminal too narrow for them, cells end in `…`.
pub(super) struct Grid {
    table: Table,
    width: Option<u16>,
}

impl Grid {
    /// An empty table for stdout.
    pub(super) fn new(names: &[&str]) -> Grid {
        let width = terminal_width();
        let mut table = Table::new();
        table
            .load_style(TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─')))
            .set_truncation_indicator("…")
            .set_header(names);
        if let Some(width) = width {
            table
                .set_content_arrangement(ContentArrangement::Dynamic)
                .set_width(width);
        }
        Grid { table, width }
    }

    /// Adds a row of text without line ends.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let mut row = Row::from(cells.into_iter().map(Cell::new_owned).collect::<Vec<_>>());
        row.max_height(1);
        self.table.add_row(row);
    }

    /// Are there no rows?
    pub(super) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Shows a column whole as long as it leaves the others half of the width.
    pub(super) fn prefer(&mut self, column: usize) {
        let widths = self.table.column_max_content_widths();
        let fits = |width: u16| widths.get(column).is_some_and(|needed| needed + 2 <= width / 2);
        if self.width.is_some_and(fits)
            && let Some(column) = self.table.column_mut(column)
        {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }

    /// Prints it.
    pub(super) fn print(&self) -> Result<(), Failure> {
        write(|out| {
            self.table
                .lines()
                .try_for_each(|line| writeln!(out, "{}", line.trim_end()))
        })
    }
}

/// Columns of the terminal that stdout is, if it is one.
fn terminal_width() -> Option<u16> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    (size.ws_col > 0).then_some(size.ws_col)
}

/// Bytes for a cell: of a long value only the beginning.
pub(super) fn cell(bytes: &[u8]) -> String {
    match bytes.get(..CELL_BYTES_MAX) {
        Some(beginning) if terminal_width().is_some() => escape(beginning),
        _ => escape(bytes),
    }
}

/// Prints text as it is.
pub(super) fn text(text: &str) -> Result<(), Failure> {
    write(|out| out.write_all(text.as_bytes()))
}

/// Prints one line of JSON.
pub(super) fn json_line(value: &impl Serialize) -> Result<(), Failure> {
    let line = serde_json::to_string(value)
        .map_err(|error| Failure::Failed(format!("cannot write JSON: {error}")))?;
    text(&(line + "\n"))
}

/// Prints a value byte for byte; on a terminal with a line end behind it.
pub(super) fn raw(value: &[u8]) -> Result<(), Failure> {
    write(|out| {
        out.write_all(value)?;
        if io::stdout().is_terminal() && !value.ends_with(b"\n") {
            out.write_all(b"\n")?;
        }
        Ok(())
    })
}

/// Prints a value for a person: lines as lines, everything else escaped.
pub(super) fn shown(value: &[u8]) -> Result<(), Failure> {
    write(|out| {
        let lines = value.strip_suffix(b"\n").unwrap_or(value);
        lines
            .split(|byte| *byte == b'\n')
            .try_for_each(|line| writeln!(out, "{}", escape(line)))
    })
}

/// Writes and flushes.
pub(super) fn write(action: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Failure> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    action(&mut out)
        .and_then(|()| out.flush())
        .map_err(|error| Failure::from_output(&error))
}

/// Adds bytes to a JSON object, as text or base64.
pub(super) fn insert_bytes(object: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match str::from_utf8(bytes) {
        Ok(text) => object.insert(name.to_owned(), text.into()),
        Err(_) => object.insert(format!("{name}_base64"), STANDARD.encode(bytes).into()),
    };
}

/// Adds a version to a JSON object.
pub(super) fn insert_version(object: &mut Map<String, Value>, version: u64) {
    object.insert("version".to_owned(), version.to_string().into());
}

/// Adds the moment from which on a key is absent to a JSON object, in microseconds since 1970, if there is one.
pub(super) fn insert_expiry(object: &mut Map<String, Value>, expires: u64) {
    if expires != 0 {
        object.insert("expires".to_owned(), timestamp_us(expires).into());
    }
}

/// A JSON value as aligned lines `path  value`, one per leaf; the path's parts are separated by dots.
pub(super) fn aligned(value: &Value) -> String {
    let mut leaves = Vec::new();
    collect_leaves("", value, &mut leaves);
    let width = leaves
        .iter()
        .map(|(path, _)| path.chars().count())
        .max()
        .unwrap_or(0);
    let lines: Vec<String> = leaves
        .iter()
        .map(|(path, leaf)| format!("{path:width$}  {leaf}\n"))
        .collect();
    lines.concat()
}

/// A JSON object as a table of its leaves; if it has a list of cores, a second one with a column for each.
pub(super) fn side_by_side(value: &Value) -> Result<(), Failure> {
    let mut rest = value.clone();
    let cores = rest.as_object_mut().and_then(|fields| fields.remove("cores"));
    text(&aligned(&rest))?;
    let Some(Value::Array(cores)) = cores else {
        return Ok(());
    };
    let columns: Vec<Vec<(String, String)>> = cores
        .iter()
        .map(|core| {
            let mut leaves = Vec::new();
            collect_leaves("", core, &mut leaves);
            leaves
        })
        .collect();
    let mut names: Vec<String> = Vec::new();
    for (name, _) in columns.iter().flatten() {
        if name != "core" && !names.contains(name) {
            names.push(name.clone());
        }
    }
    let heads: Vec<String> = (0..cores.len()).map(|core| format!("core {core}")).collect();
    let heads: Vec<&str> = std::iter::once("")
        .chain(heads.iter().map(String::as_str))
        .collect();
    let mut grid = Grid::new(&heads);
    for name in names {
        let of_core = |leaves: &Vec<(String, String)>| {
            let found = leaves.iter().find(|(found, _)| *found == name);
            found.map(|(_, leaf)| leaf.clone()).unwrap_or_default()
        };
        grid.row(std::iter::once(name.clone()).chain(columns.iter().map(of_core)));
    }
    grid.prefer(0);
    text("\n")?;
    grid.print()
}

/// Where the time of a command went: one line, in milliseconds.
pub(super) fn timings(waited: Duration, served: &StageTimings) -> String {
    let ms = |ns: u64| ns as f64 / 1e6;
    let waited_ns = waited.as_nanos() as u64;
    format!(
        "time {:.3} ms = queue {:.3} + hop {:.3} + log {:.3} + apply {:.3} + network {:.3}",
        ms(waited_ns),
        ms(served.queue_ns),
        ms(served.hop_ns),
        ms(served.log_ns),
        ms(served.apply_ns),
        ms(waited_ns.saturating_sub(served.total_ns)),
    )
}

fn collect_leaves(path: &str, value: &Value, leaves: &mut Vec<(String, String)>) {
    let below = |name: &str| {
        if path.is_empty() {
            name.to_owned()
        } else {
            format!("{path}.{name}")
        }
    };
    match value {
        Value::Object(fields) => fields
            .iter()
            .for_each(|(name, field)| collect_leaves(&below(name), field, leaves)),
        Value::Array(items) if items.iter().any(|item| item.is_object() || item.is_array()) => {
            items
                .iter()
                .enumerate()
                .for_each(|(index, item)| collect_leaves(&below(&index.to_string()), item, leaves));
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(leaf).collect();
            leaves.push((path.to_owned(), items.join(" ")));
        }
        other => leaves.push((path.to_owned(), leaf(other))),
    }
}

/// A scalar without the quotes of JSON, without control characters, and without more digits than a person reads.
fn leaf(value: &Value) -> String {
    match value {
        Value::String(text) => escape(text.as_bytes()),
        Value::Number(number) if number.is_f64() => number
            .as_f64()
            .map_or_else(|| number.to_string(), |number| format!("{number:.1}")),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn bytes_are_text_or_base64_and_versions_are_strings() {
        let mut object = Map::new();
        insert_bytes(&mut object, "key", "grün".as_bytes());
        insert_bytes(&mut object, "value", b"\xff\x00");
        insert_version(&mut object, u64::MAX);
        let expected = json!({"key": "grün", "value_base64": "/wA=", "version": "18446744073709551615"});
        assert_eq!(Value::Object(object), expected);
    }

    #[test]
    fn nested_status_becomes_aligned_lines() {
        let status = json!({
            "cores": 2, "mean_us": 1.2345, "cluster": {"id": "ab\n"}, "owners": [0, 1], "per_core": [{"puts": 7}]
        });
        let text = aligned(&status);
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        assert_eq!(
            lines,
            [
                r"cluster.id       ab\x0a",
                "cores            2",
                "mean_us          1.2",
                "owners           0 1",
                "per_core.0.puts  7"
            ]
        );
    }

    #[test]
    fn timings_name_each_stage_and_what_the_node_did_not_use() {
        let served = StageTimings {
            queue_ns: 1_000,
            hop_ns: 20_000,
            log_ns: 300_000,
            apply_ns: 4_000,
            total_ns: 325_000,
        };
        assert_eq!(
            timings(Duration::from_micros(400), &served),
            "time 0.400 ms = queue 0.001 + hop 0.020 + log 0.300 + apply 0.004 + network 0.075"
        );
    }

    #[test]
    fn a_table_has_names_a_line_and_rows_that_end_with_their_text() {
        let mut grid = Grid::new(&["key", "value"]);
        grid.row(["a".to_owned(), "1".to_owned()]);
        grid.row(["long key".to_owned(), "2".to_owned()]);
        let lines: Vec<String> = grid.table.lines().collect();
        assert_eq!(lines.len(), 4);
        assert_eq!(lines[3].trim_end(), " long key   2");
    }
}
