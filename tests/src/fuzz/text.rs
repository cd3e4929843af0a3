//! Texts of people and files of other programs: keys on the command line, commands of the shell, files to import,
//! histories.

use ostrakon::process::cli::{
    BinaryReader, BinaryWriter, CommandText, Expiry, JsonReader, Record, Words, escape, read_commands,
    unescape, write_json_line,
};

use crate::check::history::History;

/// Reads the bytes as an escaped key, and escapes them as a key.
pub fn key(data: &[u8]) {
    if let Ok(key) = unescape(data) {
        assert!(key.len() <= data.len());
        assert_eq!(unescape(escape(&key).as_bytes()), Ok(key));
    }
    assert_eq!(unescape(escape(data).as_bytes()).as_deref(), Ok(data));
}

/// Reads the bytes as commands of the shell, which together are all of them. Words are in escaped form, and each alone
/// is the same word again.
pub fn words(data: &[u8]) {
    let commands = read_commands(data);
    let texts: Vec<&[u8]> = commands.iter().map(|command| &command.text[..]).collect();
    assert_eq!(texts.join(&b'\n'), data);
    for command in commands {
        let Ok(Words::Complete(words)) = command.words else {
            continue;
        };
        assert_eq!(command.name.as_ref(), words.first());
        for word in words {
            let bytes = unescape(word.as_bytes()).expect("words are in escaped form");
            let again = read_commands(format!("\"{}\"", escape(&bytes).replace('"', "\\\"")).as_bytes());
            let [
                CommandText {
                    words: Ok(Words::Complete(again)),
                    ..
                },
            ] = &again[..]
            else {
                panic!("{word} is one command");
            };
            let [again] = &again[..] else {
                panic!("{word} is one word");
            };
            assert_eq!(unescape(again.as_bytes()), Ok(bytes));
        }
    }
}

/// Reads the bytes as an exported file in binary form, as they are and with all checksums put right. What is accepted
/// is written, and that is read as the same.
pub fn import_binary(data: &[u8]) {
    read_binary(data);
    read_binary(&with_checksums(data));
}

fn read_binary(data: &[u8]) {
    let Ok(records) = BinaryReader::new(data).collect::<Result<Vec<Record>, _>>() else {
        return;
    };
    let mut written = Vec::new();
    let mut writer = BinaryWriter::new(&mut written, 0).expect("memory takes all");
    for record in &records {
        let expires_us = match record.expiry {
            Expiry::Never => 0,
            Expiry::AtUs(at_us) => at_us,
            Expiry::AfterMs(_) => panic!("the form has no times to live"),
        };
        assert_eq!(record.check(), Ok(()));
        writer
            .write(&record.key, &record.value, expires_us)
            .expect("memory takes all");
    }
    writer.finish().expect("memory takes all");
    let again: Result<Vec<Record>, _> = BinaryReader::new(&written[..]).collect();
    assert_eq!(again, Ok(records));
}

/// The bytes with the checksums that the header, each record and the end would have.
fn with_checksums(data: &[u8]) -> Vec<u8> {
    const HEAD_BYTES: usize = 24;
    let mut data = data.to_vec();
    if data.len() < HEAD_BYTES {
        return data;
    }
    let header = crc32c::crc32c_append(crc32c::crc32c(&data[..12]), &data[16..HEAD_BYTES]);
    data[12..16].copy_from_slice(&header.to_le_bytes());
    let mut rest = &mut data[HEAD_BYTES..];
    while rest.len() >= HEAD_BYTES {
        let length = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().expect("4 bytes")) as usize;
        let (key_bytes, value_bytes) = (length(4), length(8));
        let end = (HEAD_BYTES
            + if key_bytes == 0 {
                0
            } else {
                key_bytes + value_bytes
            })
        .min(rest.len());
        let (record, behind) = rest.split_at_mut(end);
        let checksum = crc32c::crc32c(&record[4..]);
        record[..4].copy_from_slice(&checksum.to_le_bytes());
        rest = behind;
    }
    data
}

/// Reads the bytes as lines of JSON to import. What is accepted is written, and that is read as the same.
pub fn import_json(data: &[u8]) {
    for record in JsonReader::new(data) {
        let Ok(record) = record else {
            return;
        };
        assert_eq!(record.check(), Ok(()));
        let expires_us = match record.expiry {
            Expiry::Never => 0,
            Expiry::AtUs(at_us) if at_us != 0 => at_us,
            _ => continue,
        };
        let mut line = Vec::new();
        write_json_line(&mut line, &record.key, &record.value, expires_us).expect("memory takes all");
        let again: Result<Vec<Record>, _> = JsonReader::new(&line[..]).collect();
        assert_eq!(again, Ok(vec![record]));
    }
}

/// Reads the bytes as a history. What is accepted is written, and that is read as the same.
pub fn history(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match History::parse(text) {
        Ok(history) => {
            let written = history.to_edn();
            let again = History::parse(&written).expect("what was written can be read");
            assert_eq!(again.to_edn(), written);
            let _ = history.operations();
        }
        Err(error) => assert!(error.line >= 1 && !error.reason.is_empty()),
    }
}
