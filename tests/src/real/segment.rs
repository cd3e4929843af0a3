//! Damage to a stopped node's log: one byte of a segment, changed and put back.

use std::fmt;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::crash::random::Random;
use crate::process::Refusal;

/// Batches begin at multiples of this.
const BLOCK_BYTES: usize = 4096;
/// Changed in the byte.
const MASK: u8 = 0x10;

/// A byte to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flip {
    file: PathBuf,
    offset: u64,
}

impl Flip {
    /// Chooses a byte that is not zero, in the older half of what the fullest segment holds: batches after it
    /// prove that it was durable.
    ///
    /// # Errors
    /// When there is no segment with enough in it.
    pub(super) fn choose(data: &Path, seed: u64) -> Result<Flip, String> {
        let said = |error: std::io::Error| format!("could not read the log in {}: {error}", data.display());
        let mut fullest: Option<(usize, PathBuf, Vec<u8>)> = None;
        for log in fs::read_dir(data.join("log")).map_err(said)? {
            for file in fs::read_dir(log.map_err(said)?.path()).map_err(said)? {
                let path = file.map_err(said)?.path();
                if path.extension().is_none_or(|extension| extension != "seg") {
                    continue;
                }
                let bytes = fs::read(&path).map_err(said)?;
                let blocks = bytes
                    .chunks(BLOCK_BYTES)
                    .rposition(|block| block.iter().any(|byte| *byte != 0));
                let blocks = blocks.map_or(0, |last| last + 1);
                if fullest.as_ref().is_none_or(|(most, _, _)| blocks > *most) {
                    fullest = Some((blocks, path, bytes));
                }
            }
        }
        let (blocks, file, bytes) = fullest
            .filter(|(blocks, _, _)| *blocks >= 4)
            .ok_or("no segment holds enough")?;
        let older = &bytes[..blocks / 2 * BLOCK_BYTES];
        let written: Vec<usize> = (0..older.len()).filter(|at| older[*at] != 0).collect();
        let choice = Random::new(seed, 0xF11B).below(written.len() as u64) as usize;
        let offset = written[choice] as u64;
        Ok(Flip { file, offset })
    }

    /// Changes the byte, or puts it back.
    ///
    /// # Errors
    /// When the file can't be read or written.
    pub(super) fn apply(&self) -> Result<(), String> {
        let said = |error: std::io::Error| format!("could not change {}: {error}", self.file.display());
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(&self.file)
            .map_err(said)?;
        let mut byte = [0];
        file.read_exact_at(&mut byte, self.offset).map_err(said)?;
        byte[0] ^= MASK;
        file.write_all_at(&byte, self.offset).map_err(said)?;
        file.sync_all().map_err(said)
    }

    /// Does the refusal of a start name the file, and an offset of a batch that may hold the byte?
    ///
    /// # Errors
    /// What it says instead.
    pub(super) fn is_named_in(&self, refusal: &Refusal) -> Result<(), String> {
        let said = refusal.stderr.trim();
        let code = refusal.status.and_then(|status| status.code());
        let named = format!("log corruption in {} at offset ", self.file.display());
        let offset = said.split_once(&named).and_then(|(_, rest)| {
            let digits = rest.split(|c: char| !c.is_ascii_digit()).next();
            digits.and_then(|digits| digits.parse::<u64>().ok())
        });
        match offset {
            Some(offset) if code == Some(1) && offset <= self.offset => Ok(()),
            _ => Err(format!(
                "{self} is damaged, and the node ended with code {code:?} and said: {said}"
            )),
        }
    }
}

impl fmt::Display for Flip {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "byte {} of {}", self.offset, self.file.display())
    }
}
