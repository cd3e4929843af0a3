//! The words of a command that was typed into the shell, or stands in a file of operations.
//!
//! 1. Words are separated by white space. `#` at the start of a command makes all of its line a comment.
//! 2. Within `'...'` everything stands for itself. Within `"..."` and outside of quotes a backslash begins an escape:
//!    `\xNN` (any byte), `\\`, `\n`, `\r`, `\t`, `\0`, `\'`, `\"`, `\ `. Any other is refused.
//! 3. `<<END` as the last word of a line stands for the lines below, byte for byte, up to a line that is `END`. The
//!    line end before that line is no part of it.
//! 4. A command ends with its line, unless a quote is open there or lines of a `<<` are still to come.
//!
//! Words come out in the form of [`escape`]: text, whatever the bytes. A word that began with a quote or comes from
//! `<<` never looks like an option: if it begins with a dash, that is escaped too.

use std::fmt;

use super::key::escape;

/// Longest text of a command, in bytes.
pub(super) const COMMAND_BYTES_MAX: usize = 64 << 20;

/// What the text of a command is so far.
#[derive(Debug, PartialEq, Eq)]
pub enum Words {
    /// All of a command; no word at all for an empty line or a comment.
    Complete(Vec<String>),
    /// The command goes on with the next line.
    Open(Opened),
}

/// What has not ended in a command that goes on.
#[derive(Debug, PartialEq, Eq)]
pub enum Opened {
    /// A quote; this byte ends it.
    Quote(u8),
    /// The lines of a `<<`; a line of these bytes ends them.
    Lines(Vec<u8>),
}

impl Opened {
    /// Can this line be what ends it? If not, it need not be looked at again.
    fn may_end_in(&self, line: &[u8]) -> bool {
        match self {
            Opened::Quote(quote) => line.contains(quote),
            Opened::Lines(name) => line.trim_ascii_end() == name,
        }
    }
}

/// A command as it was read, line by line.
#[derive(Debug)]
pub(super) struct CommandText {
    pub(super) text: Vec<u8>,
    pub(super) lines: u64,
    /// Its words; [`Words::Open`] if the input ended before the command.
    pub(super) words: Result<Words, WordsError>,
}

/// Reads lines up to the end of a command. `next_line` is told whether it is asked for the first one; `None`: there was
/// no line at all.
///
/// # Errors
/// Those of `next_line`.
pub(super) fn read_command<E>(
    mut next_line: impl FnMut(bool) -> Result<Option<Vec<u8>>, E>,
) -> Result<Option<CommandText>, E> {
    let Some(mut text) = next_line(true)? else {
        return Ok(None);
    };
    let mut lines = 1;
    let words = loop {
        if text.len() > COMMAND_BYTES_MAX {
            break Err(WordsError::Long);
        }
        let opened = match split(&text) {
            Ok(Words::Open(opened)) => opened,
            words => break words,
        };
        let may_have_ended = loop {
            let Some(line) = next_line(false)? else {
                break false;
            };
            lines += 1;
            text.push(b'\n');
            text.extend_from_slice(&line);
            if opened.may_end_in(&line) || text.len() > COMMAND_BYTES_MAX {
                break true;
            }
        };
        if !may_have_ended {
            break Ok(Words::Open(opened));
        }
    };
    Ok(Some(CommandText { text, lines, words }))
}

/// Why a text is no command.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum WordsError {
    /// It is longer than a command may be.
    Long,
    /// A backslash that begins no escape, at this byte.
    Escape(usize),
    /// `<<` without a name behind it, or not at the end of its line.
    Here,
}

impl fmt::Display for WordsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WordsError::Long => write!(
                f,
                "the command is longer than {} MiB: a quote or a `<<` in it has no end, or the value belongs into a \
                 file for `import`",
                COMMAND_BYTES_MAX >> 20
            ),
            WordsError::Escape(offset) => write!(
                f,
                "the backslash at byte {offset} begins none of \\xNN (two hexadecimal digits), \\\\, \\n, \\r, \\t, \
                 \\0, \\', \\\" or \\ and a space; write \\\\ for a backslash, or put the word into single quotes"
            ),
            WordsError::Here => f.write_str(
                "`<<` needs a name behind it, and ends its line: `put KEY <<END`, then lines, then a line that is END",
            ),
        }
    }
}

/// Reads the words of a command.
///
/// # Errors
/// If an escape or a `<<` makes no sense.
pub fn split(text: &[u8]) -> Result<Words, WordsError> {
    Splitter {
        text,
        place: 0,
        words: Vec::new(),
    }
    .split()
}

struct Splitter<'a> {
    text: &'a [u8],
    /// Of the next byte.
    place: usize,
    words: Vec<String>,
}

impl Splitter<'_> {
    fn split(mut self) -> Result<Words, WordsError> {
        loop {
            while self.peek().is_some_and(|byte| byte.is_ascii_whitespace()) {
                self.place += 1;
            }
            match self.peek() {
                None => return Ok(Words::Complete(self.words)),
                Some(b'#') if self.words.is_empty() => self.place = self.line_end(),
                Some(b'<') if self.text[self.place..].starts_with(b"<<") => return self.here_lines(),
                Some(_) => {
                    if let Some(quote) = self.word()? {
                        return Ok(Words::Open(Opened::Quote(quote)));
                    }
                }
            }
        }
    }

    /// Reads one word; returns the quote that is open at its end.
    fn word(&mut self) -> Result<Option<u8>, WordsError> {
        let is_quoted = matches!(self.peek(), Some(b'\'' | b'"'));
        let mut quote = None;
        let mut bytes = Vec::new();
        while let Some(byte) = self.peek() {
            match (byte, quote) {
                (b'\\', None | Some(b'"')) => {
                    bytes.push(self.escaped()?);
                    continue;
                }
                (b'\'' | b'"', None) => quote = Some(byte),
                (byte, Some(open)) if byte == open => quote = None,
                (byte, None) if byte.is_ascii_whitespace() => break,
                (byte, _) => bytes.push(byte),
            }
            self.place += 1;
        }
        self.push(&bytes, is_quoted);
        Ok(quote)
    }

    /// Reads an escape, from its backslash on.
    fn escaped(&mut self) -> Result<u8, WordsError> {
        let (byte, length) = match &self.text[self.place + 1..] {
            [b'x', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                let digit = |digit: u8| char::from(digit).to_digit(16).expect("checked above") as u8;
                (digit(*high) << 4 | digit(*low), 4)
            }
            [b'n', ..] => (b'\n', 2),
            [b'r', ..] => (b'\r', 2),
            [b't', ..] => (b'\t', 2),
            [b'0', ..] => (b'\0', 2),
            [itself @ (b'\\' | b'\'' | b'"' | b' '), ..] => (*itself, 2),
            _ => return Err(WordsError::Escape(self.place)),
        };
        self.place += length;
        Ok(byte)
    }

    /// Reads `<<END` and the lines that belong to it.
    fn here_lines(mut self) -> Result<Words, WordsError> {
        let line_end = self.line_end();
        let name = self.text[self.place + 2..line_end].trim_ascii();
        if name.is_empty() || name.iter().any(u8::is_ascii_whitespace) {
            return Err(WordsError::Here);
        }
        let lines = self.text.get(line_end + 1..).unwrap_or_default();
        let mut start = 0;
        while start <= lines.len() {
            let end = lines[start..]
                .iter()
                .position(|byte| *byte == b'\n')
                .map_or(lines.len(), |length| start + length);
            if lines[start..end].trim_ascii_end() == name {
                self.push(&lines[..start.saturating_sub(1)], true);
                return Ok(Words::Complete(self.words));
            }
            start = end + 1;
        }
        Ok(Words::Open(Opened::Lines(name.to_vec())))
    }

    fn push(&mut self, bytes: &[u8], is_quoted: bool) {
        let word = escape(bytes);
        self.words.push(match word.strip_prefix('-') {
            Some(rest) if is_quoted => format!("\\x2d{rest}"),
            _ => word,
        });
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.place).copied()
    }

    fn line_end(&self) -> usize {
        let rest = &self.text[self.place..];
        let length = rest.iter().position(|byte| *byte == b'\n');
        self.place + length.unwrap_or(rest.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::cli::key::unescape;
    use proptest::prelude::*;

    #[track_caller]
    fn assert_words(text: &str, expected: &[&[u8]]) {
        let Ok(Words::Complete(words)) = split(text.as_bytes()) else {
            panic!("{text:?}: {:?}", split(text.as_bytes()));
        };
        let bytes: Vec<Vec<u8>> = words
            .iter()
            .map(|word| unescape(word.as_bytes()).unwrap())
            .collect();
        assert_eq!(bytes, expected, "{text:?}");
    }

    #[test]
    fn white_space_separates_and_quotes_join() {
        assert_words("", &[]);
        assert_words("  \t\n", &[]);
        assert_words("# put a b", &[]);
        assert_words("# a comment\nget a", &[b"get", b"a"]);
        assert_words("put a#b #c", &[b"put", b"a#b", b"#c"]);
        assert_words("put  k\tv\r", &[b"put", b"k", b"v"]);
        assert_words(r#"put 'a b' "c d"e'f' ''"#, &[b"put", b"a b", b"c def", b""]);
        assert_words("put k 'two\nlines'", &[b"put", b"k", b"two\nlines"]);
    }

    #[test]
    fn escapes_mean_bytes_outside_of_single_quotes() {
        assert_words(
            r#"a\x00\xfF "\n\t\\\"" b\ c '\x00\'"#,
            &[b"a\0\xff", b"\n\t\\\"", b"b c", br"\x00\"],
        );
        assert_eq!(split(br"put a\q"), Err(WordsError::Escape(5)));
        assert_eq!(split(br"a\x0"), Err(WordsError::Escape(1)));
        assert_eq!(split(b"a\\"), Err(WordsError::Escape(1)));
    }

    #[test]
    fn an_open_quote_goes_on() {
        for text in ["put k 'a", "put k \"a\n", "'", "put k \"a\\\""] {
            assert!(matches!(split(text.as_bytes()), Ok(Words::Open(_))), "{text:?}");
        }
    }

    #[test]
    fn here_lines_are_taken_as_they_are() {
        assert_words("put k <<END\na 'b\n\\x00\nEND", &[b"put", b"k", b"a 'b\n\\x00"]);
        assert_words("put k << END\n\nEND \n", &[b"put", b"k", b""]);
        assert_words("put k <<END\nEND", &[b"put", b"k", b""]);
        assert_words("put k <<END\na\n\nEND", &[b"put", b"k", b"a\n"]);
        for text in [
            "put k <<END",
            "put k <<END\n",
            "put k <<END\nENDE",
            "put k <<END\n END",
        ] {
            assert!(matches!(split(text.as_bytes()), Ok(Words::Open(_))), "{text:?}");
        }
        assert_eq!(split(b"put k <<"), Err(WordsError::Here));
        assert_eq!(split(b"put k <<END --ttl 1s"), Err(WordsError::Here));
    }

    /// What [`read_command`] makes of lines: each command's text, and whether it has ended.
    fn commands(text: &str) -> Vec<(String, bool)> {
        let mut lines = text.lines().map(|line| line.as_bytes().to_vec());
        let mut commands = Vec::new();
        while let Some(command) = read_command::<()>(|_| Ok(lines.next())).unwrap() {
            assert_eq!(
                command.lines,
                command.text.split(|byte| *byte == b'\n').count() as u64
            );
            let has_ended = !matches!(command.words, Ok(Words::Open(_)));
            commands.push((String::from_utf8(command.text).unwrap(), has_ended));
        }
        commands
    }

    #[test]
    fn a_command_is_read_up_to_its_end_and_no_further() {
        let command = |text: &str, has_ended| (text.to_owned(), has_ended);
        assert_eq!(commands(""), []);
        assert_eq!(
            commands(
                "get a\n\nput b 'x\n\"\ny' --ttl 1s\nput c <<END\n'\nEND of it\nEND\nget d\nput e \"\n'"
            ),
            [
                command("get a", true),
                command("", true),
                command("put b 'x\n\"\ny' --ttl 1s", true),
                command("put c <<END\n'\nEND of it\nEND", true),
                command("get d", true),
                command("put e \"\n'", false),
            ]
        );
    }

    #[test]
    fn a_command_without_end_is_refused_once_it_is_too_long() {
        let endless = read_command::<()>(|is_first| {
            Ok(Some(if is_first {
                b"put a '".to_vec()
            } else {
                vec![b'x'; 1 << 20]
            }))
        });
        assert_eq!(endless.unwrap().unwrap().words, Err(WordsError::Long));
    }

    #[test]
    fn a_quoted_word_is_no_option() {
        let Ok(Words::Complete(words)) = split(b"put '-a' --ttl \"--x\"") else {
            panic!("a good command")
        };
        assert_eq!(words, ["put", r"\x2da", "--ttl", r"\x2d-x"]);
        let Ok(Words::Complete(words)) = split(b"put k <<E\n--\nE") else {
            panic!("a good command")
        };
        assert_eq!(words, ["put", "k", r"\x2d-"]);
    }

    proptest! {
        #[test]
        fn whatever_is_escaped_in_double_quotes_comes_back(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let text = format!("put \"{}\"", escape(&bytes).replace('"', "\\\""));
            let Ok(Words::Complete(words)) = split(text.as_bytes()) else { panic!("{text}") };
            prop_assert_eq!(unescape(words[1].as_bytes()), Ok(bytes));
        }

        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = split(&bytes);
        }
    }
}
