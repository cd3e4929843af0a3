//! Texts of people and of other programs: keys on the command line, histories.

use ostrakon::process::cli::{escape, unescape};

use crate::check::history::History;

/// Reads the bytes as an escaped key, and escapes them as a key.
pub fn key(data: &[u8]) {
    if let Ok(key) = unescape(data) {
        assert!(key.len() <= data.len());
        assert_eq!(unescape(escape(&key).as_bytes()), Ok(key));
    }
    assert_eq!(unescape(escape(data).as_bytes()).as_deref(), Ok(data));
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
