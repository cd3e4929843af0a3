//! The events of each load thread in a file of their own, and the merge of these files.
//!
//! The files have no names: they are gone when they are closed, however the run ends. A line is written
//! behind a header of its place in time and its length. The lines of one part are in order, so the merge
//! reads each file once and holds one line of each.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::path::Path;

/// Time, whether it is an answer, length of the line.
const HEADER_BYTES: usize = 8 + 1 + 4;
const BUFFER_BYTES: usize = 256 << 10;

/// Where a line belongs: time in nanoseconds, then calls before answers.
pub(super) type Order = (u64, bool);

/// One file per load thread.
#[derive(Debug)]
pub(super) struct Parts {
    files: Vec<BufWriter<File>>,
}

/// A part that is being read; `next` is the line that comes next.
#[derive(Debug)]
struct Reading {
    file: BufReader<File>,
    next: Order,
    line: Vec<u8>,
}

impl Parts {
    /// Empty parts, on the file system of `directory`.
    pub(super) fn create(directory: &Path, threads: usize) -> io::Result<Self> {
        let file = |_| {
            Ok(BufWriter::with_capacity(
                BUFFER_BYTES,
                tempfile::tempfile_in(directory)?,
            ))
        };
        let files = (0..threads).map(file).collect::<io::Result<_>>()?;
        Ok(Self { files })
    }

    /// Appends a line to a part. The order of a part's lines never falls.
    pub(super) fn append(&mut self, part: usize, (time_ns, is_answer): Order, line: &[u8]) -> io::Result<()> {
        let file = &mut self.files[part];
        let length = u32::try_from(line.len()).expect("a line holds one request");
        file.write_all(&time_ns.to_le_bytes())?;
        file.write_all(&[u8::from(is_answer)])?;
        file.write_all(&length.to_le_bytes())?;
        file.write_all(line)
    }

    /// Gives the lines of all parts in order.
    pub(super) fn merge(self, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut readings = Vec::with_capacity(self.files.len());
        for part in self.files {
            let mut file = part.into_inner().map_err(io::IntoInnerError::into_error)?;
            file.rewind()?;
            let reading = Reading {
                file: BufReader::with_capacity(BUFFER_BYTES, file),
                next: (0, false),
                line: Vec::new(),
            };
            readings.extend(reading.advance()?);
        }
        // Load threads are few, so a search among them beats a heap.
        while let Some(first) = (0..readings.len()).min_by_key(|index| readings[*index].next) {
            take(&readings[first].line)?;
            let reading = readings.swap_remove(first);
            readings.extend(reading.advance()?);
        }
        Ok(())
    }
}

impl Reading {
    /// Reads the next line; none at the end of the part.
    fn advance(mut self) -> io::Result<Option<Self>> {
        let mut header = [0; HEADER_BYTES];
        match self.file.read_exact(&mut header) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let time_ns = u64::from_le_bytes(header[..8].try_into().expect("eight bytes"));
        let length = u32::from_le_bytes(header[9..].try_into().expect("four bytes"));
        self.next = (time_ns, header[8] != 0);
        self.line.resize(length as usize, 0);
        self.file.read_exact(&mut self.line)?;
        Ok(Some(self))
    }
}
