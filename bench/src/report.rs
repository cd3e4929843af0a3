//! What a benchmark found, as tables for people and as one JSON document for programs.
//!
//! Both say the same. Notes carry what a reader must know to believe the figures: the machine's load,
//! errors, goals.

use std::fmt::{self, Write as _};

use serde_json::{Value, json};

/// One benchmark's outcome.
#[derive(Debug)]
pub struct Report {
    title: String,
    setting: Vec<(&'static str, String)>,
    tables: Vec<Table>,
    notes: Vec<String>,
    /// The figures for programs.
    figures: Value,
    /// Has something that was promised not come true?
    has_failed: bool,
}

/// Rows of text; the first column is set to the left, the others to the right.
#[derive(Debug, Default)]
pub struct Table {
    heading: String,
    rows: Vec<Vec<String>>,
}

impl Report {
    /// An empty report.
    pub fn new(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            setting: Vec::new(),
            tables: Vec::new(),
            notes: Vec::new(),
            figures: Value::Null,
            has_failed: false,
        }
    }

    /// Adds a fact about how it was measured.
    pub fn setting(&mut self, name: &'static str, value: impl Into<String>) {
        self.setting.push((name, value.into()));
    }

    /// Adds a table.
    pub fn table(&mut self, table: Table) {
        self.tables.push(table);
    }

    /// Adds a sentence below the tables.
    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Adds a sentence about something that was promised and has not come true: the benchmark has failed.
    pub fn fail(&mut self, sentence: impl Into<String>) {
        self.notes.push(format!("FAILED: {}", sentence.into()));
        self.has_failed = true;
    }

    /// Has something that was promised not come true?
    pub fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// Sets the figures for programs.
    pub fn figures(&mut self, figures: Value) {
        self.figures = figures;
    }

    /// The whole as JSON, one line.
    pub fn to_json(&self) -> String {
        let setting: serde_json::Map<_, _> = (self.setting.iter())
            .map(|(name, value)| ((*name).to_owned(), json!(value)))
            .collect();
        let whole = json!({
            "benchmark": self.title,
            "setting": setting,
            "figures": self.figures,
            "notes": self.notes,
            "failed": self.has_failed,
        });
        format!("{whole}\n")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{}", self.title)?;
        for (name, value) in &self.setting {
            writeln!(formatter, "  {name:<12} {value}")?;
        }
        for table in &self.tables {
            write!(formatter, "\n{table}")?;
        }
        if !self.notes.is_empty() {
            writeln!(formatter)?;
        }
        for note in &self.notes {
            writeln!(formatter, "{note}")?;
        }
        Ok(())
    }
}

impl Table {
    /// A table with a heading and the names of its columns.
    pub fn new(heading: impl Into<String>, columns: &[&str]) -> Self {
        Self {
            heading: heading.into(),
            rows: vec![columns.iter().map(|&column| column.to_owned()).collect()],
        }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        writeln!(formatter, "{}", self.heading)?;
        for row in &self.rows {
            let mut line = String::from(" ");
            for (column, cell) in row.iter().enumerate() {
                let width = widths[column];
                if column == 0 {
                    write!(line, " {cell:<width$}")?;
                } else {
                    write!(line, "  {cell:>width$}")?;
                }
            }
            writeln!(formatter, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A number with thousands separated and so many decimals; a dash where there is none.
pub fn number(value: f64, decimals: usize) -> String {
    if !value.is_finite() {
        return "-".to_owned();
    }
    let plain = format!("{:.decimals$}", value.abs());
    let (whole, fraction) = plain.split_at(plain.find('.').unwrap_or(plain.len()));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let sign = if value < 0.0 { "-" } else { "" };
    format!("{sign}{grouped}{fraction}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        for (value, decimals, text) in [
            (0.0, 0, "0"),
            (999.0, 0, "999"),
            (1000.0, 0, "1,000"),
            (1_234_567.891, 1, "1,234,567.9"),
            (-1234.5, 2, "-1,234.50"),
            (f64::NAN, 0, "-"),
        ] {
            assert_eq!(number(value, decimals), text);
        }
    }

    #[test]
    fn columns_line_up() {
        let mut table = Table::new("figures", &["what", "value"]);
        table.row(["puts".to_owned(), "12".to_owned()]);
        table.row(["a longer name".to_owned(), "1,234".to_owned()]);
        let expected = "figures\n  what           value\n  puts              12\n  a longer name  1,234\n";
        assert_eq!(table.to_string(), expected);
    }

    #[test]
    fn json_holds_what_the_text_says() {
        let mut report = Report::new("a benchmark");
        report.setting("cpu", "0");
        report.note("a note");
        assert!(!report.has_failed());
        report.fail("a promise");
        report.figures(json!({ "ratio": 1.5 }));
        let parsed: Value = serde_json::from_str(&report.to_json()).unwrap();
        assert_eq!(parsed["setting"]["cpu"], "0");
        assert_eq!(parsed["figures"]["ratio"], 1.5);
        assert_eq!(parsed["notes"][0], "a note");
        assert_eq!(parsed["notes"][1], "FAILED: a promise");
        assert_eq!(parsed["failed"], true);
    }
}
