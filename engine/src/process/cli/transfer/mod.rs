//! `import` and `export`: entries between a node and a file, as lines of JSON or in binary form.
//!
//! Neither holds more than a few batches in memory. What a file means is in [`json`] and [`binary`].

mod binary;
mod export;
mod import;
mod json;
mod progress;
mod record;
mod stream;

use std::path::Path;

pub use binary::{BinaryReader, BinaryWriter};
pub(super) use export::export;
pub(super) use import::{import, load};
pub use json::{JsonReader, write_line as write_json_line};
pub(super) use progress::Progress;
pub use record::{BadRecord, Expiry, Record};
pub(super) use stream::open_input;

use super::failure::Failure;
use super::requests::FileFormat;

/// Stands for stdin or stdout.
const STANDARD: &str = "-";

/// The format of a file, as asked for or else by its name.
fn format_of(path: &Path, asked: Option<FileFormat>) -> Result<FileFormat, Failure> {
    let by_name = match path.extension().and_then(|extension| extension.to_str()) {
        Some("jsonl" | "json" | "ndjson") => Some(FileFormat::Json),
        Some("bin") => Some(FileFormat::Binary),
        _ if path == Path::new(STANDARD) => Some(FileFormat::Json),
        _ => None,
    };
    asked.or(by_name).ok_or_else(|| {
        Failure::Usage(format!(
            "the name of {} does not say what is in it: add --format json or --format binary, or name it .jsonl \
             or .bin",
            path.display()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_comes_from_the_option_or_the_name() {
        let of = |name: &str, asked| format_of(Path::new(name), asked);
        for (name, format) in [
            ("a.jsonl", FileFormat::Json),
            ("dir.bin/a.json", FileFormat::Json),
            ("a.bin", FileFormat::Binary),
            ("-", FileFormat::Json),
        ] {
            assert_eq!(of(name, None), Ok(format), "{name}");
        }
        assert_eq!(of("a.json", Some(FileFormat::Binary)), Ok(FileFormat::Binary));
        assert!(of("a.txt", None).unwrap_err().to_string().contains("--format"));
    }
}
