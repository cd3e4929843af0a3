//! `ostrakon inspect`: what one file says, as lines to read. Damage is told where it lies; what lies behind it is
//! printed all the same, as far as it can be found.
//!
//! Files are read as they are, also those of a node that runs, and wherever they were copied to. What log, shard and
//! number they belong to comes from their names, and if these say nothing from the bytes.

mod log;
mod manifest;
mod source;
mod sstable;

#[cfg(test)]
mod tests;

use std::io::{self, Write};

use super::arguments::InspectedFile;
use super::failure::Failure;
use super::{Outcome, output};
use source::Source;

/// Prints a file.
pub(super) fn inspect(file: &InspectedFile) -> Result<Outcome, Failure> {
    let path = match file {
        InspectedFile::Log(arguments) => &arguments.file,
        InspectedFile::Sstable(arguments) => &arguments.file,
        InspectedFile::Manifest(arguments) => &arguments.file,
    };
    let source = Source::open(path)
        .map_err(|error| Failure::Failed(format!("cannot open {}: {error}", path.display())))?;
    let mut damages = 0;
    output::write(|out| {
        damages = print(file, &source, out)?;
        Ok(())
    })?;
    Ok(if damages == 0 {
        Outcome::Done
    } else {
        Outcome::FoundErrors
    })
}

/// Prints a file, and returns how many places of it are damaged.
fn print(file: &InspectedFile, source: &Source, out: &mut dyn Write) -> io::Result<u64> {
    let mut report = Report { out, damages: 0 };
    report.line(
        0,
        &format!("{}, {} bytes", source.path.display(), source.len_bytes),
    )?;
    match file {
        InspectedFile::Log(arguments) => log::print(source, arguments.entries, &mut report)?,
        InspectedFile::Sstable(arguments) => sstable::print(source, arguments, &mut report)?,
        InspectedFile::Manifest(_) => manifest::print(source, &mut report)?,
    }
    match report.damages {
        0 => report.line(0, "no damage")?,
        1 => report.line(0, "1 place is damaged")?,
        damages => report.line(0, &format!("{damages} places are damaged"))?,
    }
    Ok(report.damages)
}

/// Lines, and how many of them tell of damage.
struct Report<'a> {
    out: &'a mut dyn Write,
    damages: u64,
}

impl Report<'_> {
    /// A line, so many steps further in.
    fn line(&mut self, depth: usize, text: &str) -> io::Result<()> {
        writeln!(self.out, "{:indent$}{text}", "", indent = depth * 2)
    }

    /// A line that tells of damage.
    fn damage(&mut self, depth: usize, offset: u64, what: &str) -> io::Result<()> {
        self.damages += 1;
        self.line(depth, &format!("DAMAGE at offset {offset}: {what}"))
    }
}

/// A moment as a user of timestamps knows it.
fn timestamp(timestamp: ostrakon_core::hlc::Timestamp) -> String {
    timestamp.0.to_string()
}
