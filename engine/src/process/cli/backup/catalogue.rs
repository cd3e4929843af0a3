//! The catalogue of a backup: which tables belong to it, and what they must be like.
//!
//! ```text
//! catalogue
//!  0  8  magic "OSTRNBKP"
//!  8  4  format version, 1
//! 12  4  crc32c over all that follows
//! 16  8  length of the file
//! 24  8  cluster id, high half
//! 32  8  cluster id, low half
//! 40  8  node id
//! 48  8  snapshot: the newest versions at or below this timestamp are the backup's content
//! 56  8  when it was made, in microseconds since 1970 by the clock of the machine
//! 64  4  number of shards
//! 68     shard ...
//!
//! shard = length of its manifest (4) | number of its tables (4) | manifest | table ...
//! table = number (8) | length of the file (8) | xxh3-64 of the file (8) | xxh3-64 of its last 65536 bytes (8)
//! ```

/// First bytes of each catalogue.
const MAGIC: [u8; 8] = *b"OSTRNBKP";
/// The one version of the format.
const VERSION: u32 = 1;
/// Where the bytes begin that the checksum covers.
const CHECKED_FROM: usize = 16;

/// What a backup consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Catalogue {
    /// Both halves.
    pub(super) cluster: (u64, u64),
    pub(super) node: u64,
    /// The newest versions at or below it are the content.
    pub(super) snapshot: u64,
    /// Microseconds since 1970.
    pub(super) made_at_us: u64,
    /// By number.
    pub(super) shards: Vec<BackupShard>,
}

/// One shard of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BackupShard {
    /// The bytes of the checkpoint's manifest, which tells how the tables lie upon each other.
    pub(super) manifest: Vec<u8>,
    pub(super) tables: Vec<BackupTable>,
}

/// One table of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BackupTable {
    /// In its shard.
    pub(super) number: u64,
    /// Length of the file.
    pub(super) bytes: u64,
    /// The xxh3-64 of the file.
    pub(super) checksum: u64,
    /// The xxh3-64 of the file's end, which tells of a table of the node whether it is this one.
    pub(super) end_checksum: u64,
}

impl Catalogue {
    /// Its tables, each with its shard.
    pub(super) fn tables(&self) -> impl Iterator<Item = (u32, &BackupTable)> {
        let shards = (0..).zip(&self.shards);
        shards.flat_map(|(shard, of_shard)| of_shard.tables.iter().map(move |table| (shard, table)))
    }

    /// Length of its tables.
    pub(super) fn table_bytes(&self) -> u64 {
        self.tables().map(|(_, table)| table.bytes).sum()
    }

    /// The bytes of the file.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.resize(24, 0);
        for number in [
            self.cluster.0,
            self.cluster.1,
            self.node,
            self.snapshot,
            self.made_at_us,
        ] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&(self.shards.len() as u32).to_le_bytes());
        for shard in &self.shards {
            bytes.extend_from_slice(&(shard.manifest.len() as u32).to_le_bytes());
            bytes.extend_from_slice(&(shard.tables.len() as u32).to_le_bytes());
            bytes.extend_from_slice(&shard.manifest);
            for table in &shard.tables {
                for number in [table.number, table.bytes, table.checksum, table.end_checksum] {
                    bytes.extend_from_slice(&number.to_le_bytes());
                }
            }
        }
        let length = bytes.len() as u64;
        bytes[CHECKED_FROM..24].copy_from_slice(&length.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes[CHECKED_FROM..]);
        bytes[12..CHECKED_FROM].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads the bytes of a file, which may be any.
    ///
    /// # Errors
    /// What is wrong with them, as the end of a sentence.
    pub(super) fn decode(bytes: &[u8]) -> Result<Catalogue, String> {
        let mut fields = Fields(bytes);
        if fields.take(8) != Some(&MAGIC) {
            return Err("it does not begin as a catalogue does".to_owned());
        }
        let short = || "it is too short".to_owned();
        let version = fields.u32().ok_or_else(short)?;
        if version != VERSION {
            return Err(format!(
                "its format is version {version}, and this program knows version {VERSION} only"
            ));
        }
        let found = fields.u32().ok_or_else(short)?;
        let expected = crc32c::crc32c(&bytes[CHECKED_FROM..]);
        if found != expected {
            return Err(format!(
                "its checksum is {found:#010x}, expected {expected:#010x}"
            ));
        }
        let parsed = fields.body(bytes.len() as u64).filter(|_| fields.0.is_empty());
        parsed.ok_or_else(|| "its fields do not fit its length".to_owned())
    }
}

/// What is left of a file.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn body(&mut self, file_bytes: u64) -> Option<Catalogue> {
        if self.u64()? != file_bytes {
            return None;
        }
        let mut catalogue = Catalogue {
            cluster: (self.u64()?, self.u64()?),
            node: self.u64()?,
            snapshot: self.u64()?,
            made_at_us: self.u64()?,
            shards: Vec::new(),
        };
        for _ in 0..self.u32()? {
            catalogue.shards.push(self.shard()?);
        }
        Some(catalogue)
    }

    fn shard(&mut self) -> Option<BackupShard> {
        let (manifest_bytes, tables) = (self.u32()?, self.u32()?);
        let manifest = self.take(manifest_bytes as usize)?.to_vec();
        let mut shard = BackupShard {
            manifest,
            tables: Vec::new(),
        };
        for _ in 0..tables {
            shard.tables.push(BackupTable {
                number: self.u64()?,
                bytes: self.u64()?,
                checksum: self.u64()?,
                end_checksum: self.u64()?,
            });
        }
        Some(shard)
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    fn sample() -> Catalogue {
        let table = BackupTable {
            number: 3,
            bytes: 8192,
            checksum: 0x0102_0304_0506_0708,
            end_checksum: 0x1112_1314_1516_1718,
        };
        Catalogue {
            cluster: (0xA1, 0xB1),
            node: 0xC1,
            snapshot: 0x2122_2324_2526_2728,
            made_at_us: 7,
            shards: vec![
                BackupShard {
                    manifest: b"manifest".to_vec(),
                    tables: vec![table],
                },
                BackupShard {
                    manifest: vec![],
                    tables: vec![],
                },
            ],
        }
    }

    #[test]
    fn bytes_are_as_they_always_were() {
        let mut text = String::new();
        for byte in sample().encode() {
            write!(text, "{byte:02x}").expect("a string takes all");
        }
        let golden = [
            "4f5354524e424b50", // magic
            "01000000dfeb12aa", // version, checksum
            "7c00000000000000", // length
            "a100000000000000", // cluster
            "b100000000000000",
            "c100000000000000", // node
            "2827262524232221", // snapshot
            "0700000000000000", // made at
            "02000000",         // shards
            "0800000001000000", // manifest and tables of the first
            "6d616e6966657374",
            "0300000000000000", // table
            "0020000000000000",
            "0807060504030201",
            "1817161514131211",
            "0000000000000000", // the second
        ];
        assert_eq!(text, golden.concat());
        assert_eq!(Catalogue::decode(&sample().encode()), Ok(sample()));
    }

    #[test]
    fn no_byte_can_change_unnoticed() {
        let good = sample().encode();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            Catalogue::decode(&bad).unwrap_err();
            Catalogue::decode(&good[..at]).unwrap_err();
        }
        let longer = [&good[..], &[0]].concat();
        Catalogue::decode(&longer).unwrap_err();
    }
}
