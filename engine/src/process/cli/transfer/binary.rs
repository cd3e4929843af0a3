//! Files of entries in binary form; `docs/formats.md` has the same diagrams. All numbers are little-endian.
//!
//! ```text
//! header   0  8  magic "OSTDUMP\n"
//!          8  4  format version, 1
//!         12  4  crc32c over bytes 0..12 and 16..24, in that order
//!         16  8  snapshot: the timestamp whose data this is
//!
//! record   0  4  crc32c over the rest of the record, value included
//!          4  4  length of the key in bytes, 1 to 8192
//!          8  4  length of the value in bytes
//!         12  4  0
//!         16  8  time from which on the key is absent, in microseconds since 1970; 0: never
//!         24     key, value
//!
//! end      0  4  crc32c over bytes 4..24
//!          4 12  0
//!         16  8  number of records
//! ```
//!
//! Nothing follows the end, and a file without it was cut. Records lie in bytewise order of their keys as they are
//! exported; a reader does not ask for that.

use std::io::{self, BufRead, Write};

use ostrakon_wire::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};

use super::record::{BadRecord, Expiry, Record};

const MAGIC: &[u8; 8] = b"OSTDUMP\n";
const VERSION: u32 = 1;
/// Length of the header, of a record without key and value, and of the end.
const HEAD_BYTES: usize = 24;

/// Writes a file, from the header to the end.
#[derive(Debug)]
pub struct BinaryWriter<W> {
    out: W,
    records: u64,
}

impl<W: Write> BinaryWriter<W> {
    /// Writes the header. `snapshot` is the timestamp whose data follows.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn new(mut out: W, snapshot: u64) -> io::Result<BinaryWriter<W>> {
        let mut head = [0; HEAD_BYTES];
        head[..8].copy_from_slice(MAGIC);
        head[8..12].copy_from_slice(&VERSION.to_le_bytes());
        head[16..].copy_from_slice(&snapshot.to_le_bytes());
        let checksum = header_checksum(&head);
        head[12..16].copy_from_slice(&checksum.to_le_bytes());
        out.write_all(&head)?;
        Ok(BinaryWriter { out, records: 0 })
    }

    /// Writes a record; `expires_us`: from when on its key is absent, in microseconds since 1970; 0: never.
    ///
    /// # Errors
    /// Those of the output.
    ///
    /// # Panics
    /// If key or value break the limits that every node keeps.
    pub fn write(&mut self, key: &[u8], value: &[u8], expires_us: u64) -> io::Result<()> {
        assert!((1..=KEY_BYTES_MAX).contains(&key.len()) && value.len() <= VALUE_BYTES_MAX);
        let mut head = [0; HEAD_BYTES];
        head[4..8].copy_from_slice(&(key.len() as u32).to_le_bytes());
        head[8..12].copy_from_slice(&(value.len() as u32).to_le_bytes());
        head[16..].copy_from_slice(&expires_us.to_le_bytes());
        let checksum = record_checksum(&head, key, value);
        head[..4].copy_from_slice(&checksum.to_le_bytes());
        self.records += 1;
        self.out.write_all(&head)?;
        self.out.write_all(key)?;
        self.out.write_all(value)
    }

    /// Writes the end.
    ///
    /// # Errors
    /// Those of the output.
    pub fn finish(mut self) -> io::Result<()> {
        let mut head = [0; HEAD_BYTES];
        head[16..].copy_from_slice(&self.records.to_le_bytes());
        let checksum = record_checksum(&head, &[], &[]);
        head[..4].copy_from_slice(&checksum.to_le_bytes());
        self.out.write_all(&head)
    }
}

/// Reads a file, from the header to the end.
#[derive(Debug)]
pub struct BinaryReader<R> {
    input: R,
    /// Records read so far.
    records: u64,
    /// Where the next one begins.
    offset: u64,
}

impl<R: BufRead> BinaryReader<R> {
    /// Reads from the beginning of a file.
    pub fn new(input: R) -> BinaryReader<R> {
        BinaryReader {
            input,
            records: 0,
            offset: 0,
        }
    }

    fn read(&mut self) -> Result<Option<Record>, String> {
        if self.offset == 0 {
            check_header(&self.head()?)?;
            self.offset = HEAD_BYTES as u64;
        }
        let head = self.head()?;
        let (key_bytes, value_bytes) = (number(&head, 4) as usize, number(&head, 8) as usize);
        let last = u64::from_le_bytes(head[16..].try_into().expect("8 bytes"));
        if key_bytes == 0 {
            self.check_end(&head, last)?;
            return Ok(None);
        }
        if key_bytes > KEY_BYTES_MAX || value_bytes > VALUE_BYTES_MAX || number(&head, 12) != 0 {
            return Err("it is damaged: no record has such lengths".to_owned());
        }
        let key = self.bytes(key_bytes)?;
        let value = self.bytes(value_bytes)?;
        let (found, expected) = (record_checksum(&head, &key, &value), number(&head, 0));
        if found != expected {
            return Err(format!(
                "it is damaged: its checksum is {expected:#010x}, and its bytes have {found:#010x}"
            ));
        }
        self.records += 1;
        self.offset += (HEAD_BYTES + key_bytes + value_bytes) as u64;
        let expiry = if last == 0 {
            Expiry::Never
        } else {
            Expiry::AtUs(last)
        };
        Ok(Some(Record { key, value, expiry }))
    }

    fn check_end(&mut self, head: &[u8; HEAD_BYTES], records: u64) -> Result<(), String> {
        if record_checksum(head, &[], &[]) != number(head, 0) || head[4..16] != [0; 12] {
            return Err("it is damaged: neither a record nor the end of the file".to_owned());
        }
        if records != self.records {
            return Err(format!(
                "the end of the file says that it has {records} records, and it has {}",
                self.records
            ));
        }
        match self.input.fill_buf() {
            Ok([]) => Ok(()),
            Ok(_) => Err("there are bytes behind the end of the file".to_owned()),
            Err(error) => Err(format!("it can't be read: {error}")),
        }
    }

    fn head(&mut self) -> Result<[u8; HEAD_BYTES], String> {
        let mut head = [0; HEAD_BYTES];
        self.input.read_exact(&mut head).map_err(|error| cut_or(&error))?;
        Ok(head)
    }

    fn bytes(&mut self, length: usize) -> Result<Vec<u8>, String> {
        let mut bytes = vec![0; length];
        self.input
            .read_exact(&mut bytes)
            .map_err(|error| cut_or(&error))?;
        Ok(bytes)
    }
}

impl<R: BufRead> Iterator for BinaryReader<R> {
    type Item = Result<Record, BadRecord>;

    fn next(&mut self) -> Option<Result<Record, BadRecord>> {
        let read = self.read().map_err(|detail| BadRecord {
            place: format!("record {} at byte {}", self.records + 1, self.offset),
            detail,
        });
        read.transpose()
    }
}

fn cut_or(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            "the file was cut here: it has no end; export it again, or copy it again".to_owned()
        }
        _ => format!("it can't be read: {error}"),
    }
}

fn check_header(head: &[u8; HEAD_BYTES]) -> Result<(), String> {
    if &head[..8] != MAGIC {
        return Err("this is no export in binary form; for lines of JSON say --format json".to_owned());
    }
    if header_checksum(head) != number(head, 12) {
        return Err("the header of the file is damaged: its checksum is wrong".to_owned());
    }
    match number(head, 8) {
        VERSION => Ok(()),
        other => Err(format!(
            "the file has format version {other}, and this program reads version {VERSION}"
        )),
    }
}

fn header_checksum(head: &[u8; HEAD_BYTES]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&head[..12]), &head[16..])
}

fn record_checksum(head: &[u8; HEAD_BYTES], key: &[u8], value: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(&head[4..]), key), value)
}

fn number(head: &[u8; HEAD_BYTES], offset: usize) -> u32 {
    u32::from_le_bytes(head[offset..offset + 4].try_into().expect("4 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Vec<u8> {
        let mut file = Vec::new();
        let mut writer = BinaryWriter::new(&mut file, 0x0102_0304_0506_0708).unwrap();
        writer.write(b"a", b"one", 0).unwrap();
        writer.write(b"b\0", b"", 9_000_001).unwrap();
        writer.finish().unwrap();
        file
    }

    fn read(file: &[u8]) -> Result<Vec<Record>, BadRecord> {
        BinaryReader::new(file).collect()
    }

    #[test]
    fn golden_bytes() {
        let hex: Vec<String> = file().iter().map(|byte| format!("{byte:02x}")).collect();
        let expected = [
            "4f535444554d500a01000000",
            "048f2448",
            "0807060504030201",
            "e0c6468c",
            "010000000300000000000000",
            "0000000000000000",
            "616f6e65",
            "6af7db9e",
            "020000000000000000000000",
            "4154890000000000",
            "6200",
            "70acbd2e",
            "000000000000000000000000",
            "0200000000000000",
        ];
        assert_eq!(hex.concat(), expected.concat());
    }

    #[test]
    fn what_was_written_is_read() {
        let record = |key: &[u8], value: &[u8], expiry| Record {
            key: key.to_vec(),
            value: value.to_vec(),
            expiry,
        };
        assert_eq!(
            read(&file()).unwrap(),
            [
                record(b"a", b"one", Expiry::Never),
                record(b"b\0", b"", Expiry::AtUs(9_000_001)),
            ]
        );
    }

    #[test]
    fn a_cut_file_is_noticed_wherever_it_was_cut() {
        let file = file();
        for length in 0..file.len() {
            let refusal = read(&file[..length]).unwrap_err();
            assert!(refusal.detail.contains("was cut here"), "at {length}: {refusal}");
        }
    }

    #[test]
    fn a_flipped_bit_is_noticed_wherever_it_is() {
        let file = file();
        for bit in 0..file.len() * 8 {
            let mut damaged = file.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn records_too_many_or_too_few_are_noticed() {
        let mut file = file();
        let end = file.split_off(file.len() - HEAD_BYTES);
        let second = file.split_off(HEAD_BYTES + HEAD_BYTES + 4);
        let without = [file.clone(), end.clone()].concat();
        let refusal = read(&without).unwrap_err();
        assert_eq!(refusal.place, "record 2 at byte 52");
        assert!(
            refusal.detail.contains("has 2 records, and it has 1"),
            "{refusal}"
        );
        let twice = [file.clone(), second.clone(), second.clone(), end.clone()].concat();
        assert!(read(&twice).unwrap_err().detail.contains("and it has 3"));
        let behind = [file, second, end, vec![0]].concat();
        assert!(read(&behind).unwrap_err().detail.contains("behind the end"));
    }

    #[test]
    fn other_files_and_versions_are_refused_in_words() {
        let lines = b"{\"key\": \"a\", \"value\": \"1\"}\n";
        assert!(read(lines).unwrap_err().detail.contains("--format json"));
        let mut newer = file();
        newer[8] = 2;
        let head: [u8; HEAD_BYTES] = newer[..HEAD_BYTES].try_into().unwrap();
        newer[12..16].copy_from_slice(&header_checksum(&head).to_le_bytes());
        assert!(read(&newer).unwrap_err().detail.contains("format version 2"));
    }
}
