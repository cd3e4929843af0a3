//! The words of a command that was typed into the shell, or stands in a file of operations.
//!
//! 1. Words are separated by white space. `#` at the start of a command makes all of its line a comment.
//! 2. Within `'...'` everything stands for itself. Within `"..."` and outside of quotes a backslash begins an escape:
//!    `\xNN` (any byte), `\n`, `\r`, `\t`, `\0`, or one of the space and the ASCII punctuation, which then stands for
//!    itself. Any other is refused.
//! 3. `<<END` as the last word of a line stands for the lines below, byte for byte, up to a line that is `END`. The
//!    line end before that line is no part of it.
//! 4. A command ends with its line, unless a quote is open there or lines of a `<<` are still to come. What is behind
//!    it is the next command.
//!
//! Words come out in the form of [`escape`]: text, whatever the bytes. A word that began with a quote or comes from
//! `<<` never looks like an option: if it begins with a dash, that is escaped too.

use std::convert::Infallible;
use std::fmt;

use super::key::escape;

/// Longest text of a command, in bytes.
pub(super) const COMMAND_BYTES_MAX: usize = 64 << 20;

/// What the text of a command is so far.
#[derive(Debug, PartialEq, Eq)]
pub enum Words {
    /// All of a command; no word at all for an empty line or a comment.
    Complete(Vec<String>),
    /// The command goes on with the next line: a quote or the lines of a `<<` have not ended.
    Open,
}

/// A command as it was read, line by line.
#[derive(Debug)]
pub struct CommandText {
    /// All of its lines, with ends between them.
    pub text: Vec<u8>,
    /// How many they are.
    pub lines: u64,
    /// The first word, also of a command that makes no sense behind it.
    pub name: Option<String>,
    /// Its words; [`Words::Open`] if the input ended before the command.
    pub words: Result<Words, WordsError>,
}

/// Reads the commands of a text, one behind the other.
pub fn read_commands(text: &[u8]) -> Vec<CommandText> {
    let mut lines = text.split(|byte| *byte == b'\n').map(<[u8]>::to_vec);
    let next = || match read_command(|_| Ok::<_, Infallible>(lines.next())) {
        Ok(command) => command,
    };
    std::iter::from_fn(next).collect()
}

/// Reads lines up to the end of a command, in time linear in their length. `next_line` is told whether it is asked for
/// the first one; `None`: there was no line at all.
///
/// # Errors
/// Those of `next_line`.
pub(super) fn read_command<E>(
    mut next_line: impl FnMut(bool) -> Result<Option<Vec<u8>>, E>,
) -> Result<Option<CommandText>, E> {
    let Some(mut line) = next_line(true)? else {
        return Ok(None);
    };
    let mut text = Vec::new();
    let mut lines = 1;
    let mut splitter = Splitter::default();
    loop {
        text.extend_from_slice(&line);
        if text.len() > COMMAND_BYTES_MAX {
            splitter.error = Some(WordsError::Long);
            break;
        }
        if splitter.take(&line) {
            break;
        }
        match next_line(false)? {
            None => break,
            Some(next) => line = next,
        }
        text.push(b'\n');
        lines += 1;
    }
    Ok(Some(CommandText {
        text,
        lines,
        name: splitter.words.first().cloned(),
        words: splitter.end(),
    }))
}

/// Do these commands, one behind the other, leave the last one open?
pub(super) fn is_open(text: &[u8]) -> bool {
    let mut splitter = Splitter::default();
    let mut has_ended = true;
    for line in text.split(|byte| *byte == b'\n') {
        has_ended = splitter.take(line);
        if has_ended {
            splitter = Splitter::default();
        }
    }
    !has_ended
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
                "the backslash at byte {offset} begins none of \\xNN (two hexadecimal digits), \\n, \\r, \\t and \\0, \
                 nor stands before a space or a punctuation mark; write \\\\ for a backslash, or put the word into \
                 single quotes"
            ),
            WordsError::Here => f.write_str(
                "`<<` needs a name behind it, and ends its line: `put KEY <<END`, then lines, then a line that is END",
            ),
        }
    }
}

/// Takes a command line by line. A mistake in it does not end it before its quotes and lines do, so that nothing in
/// them passes for a command.
#[derive(Debug, Default)]
struct Splitter {
    words: Vec<String>,
    /// The word that the last line has left open.
    word: Option<Word>,
    /// The lines of a `<<` that has not ended.
    here: Option<Here>,
    /// The first mistake.
    error: Option<WordsError>,
    /// Length of the lines before the one that is taken, their ends included.
    bytes_before: usize,
}

/// A word as far as it is read.
#[derive(Debug)]
struct Word {
    bytes: Vec<u8>,
    /// It began with a quote.
    is_quoted: bool,
    /// The quote that is open.
    quote: Option<u8>,
}

/// `<<` and the lines that belong to it so far.
#[derive(Debug)]
struct Here {
    name: Vec<u8>,
    /// With an end behind each line.
    lines: Vec<u8>,
}

impl Splitter {
    /// Takes the next line, without its end. Does the command end with it?
    fn take(&mut self, line: &[u8]) -> bool {
        let has_ended = match self.here.take() {
            Some(here) => self.take_here_line(here, line),
            None => self.take_words(line),
        };
        self.bytes_before += line.len() + 1;
        has_ended
    }

    /// The command as far as it was taken.
    fn end(self) -> Result<Words, WordsError> {
        match self.error {
            Some(error) => Err(error),
            None if self.word.is_some() || self.here.is_some() => Ok(Words::Open),
            None => Ok(Words::Complete(self.words)),
        }
    }

    /// Were all lines empty or comments?
    fn is_blank(&self) -> bool {
        self.words.is_empty() && self.error.is_none()
    }

    fn take_words(&mut self, line: &[u8]) -> bool {
        let mut place = 0;
        if let Some(word) = &mut self.word {
            word.bytes.push(b'\n');
        }
        loop {
            let mut word = if let Some(word) = self.word.take() {
                word
            } else {
                let rest = line[place..].trim_ascii_start();
                place = line.len() - rest.len();
                match rest {
                    [] => return true,
                    [b'#', ..] if self.is_blank() => return true,
                    [b'<', b'<', name @ ..] => return self.begin_here(name),
                    [first, ..] => Word {
                        bytes: Vec::new(),
                        is_quoted: is_quote(*first),
                        quote: None,
                    },
                }
            };
            place = self.take_word(&mut word, line, place);
            if word.quote.is_some() {
                self.word = Some(word);
                return false;
            }
            self.push(&word.bytes, word.is_quoted);
        }
    }

    /// Reads a word on from a place in the line, up to its end or that of the line; returns that place.
    fn take_word(&mut self, word: &mut Word, line: &[u8], mut place: usize) -> usize {
        while let Some(&byte) = line.get(place) {
            match (byte, word.quote) {
                (b'\\', None | Some(b'"')) => {
                    let (byte, length) = escaped(&line[place + 1..]).unwrap_or_else(|| {
                        self.error
                            .get_or_insert(WordsError::Escape(self.bytes_before + place));
                        (b'\\', 0)
                    });
                    word.bytes.push(byte);
                    place += length;
                }
                (quote, None) if is_quote(quote) => word.quote = Some(quote),
                (byte, Some(open)) if byte == open => word.quote = None,
                (byte, None) if byte.is_ascii_whitespace() => break,
                (byte, _) => word.bytes.push(byte),
            }
            place += 1;
        }
        place
    }

    /// Begins the lines of a `<<`, whose name is the rest of its line.
    fn begin_here(&mut self, rest: &[u8]) -> bool {
        let mut names = rest
            .split(u8::is_ascii_whitespace)
            .filter(|name| !name.is_empty());
        let name = names.next();
        if name.is_none() || names.next().is_some() {
            self.error.get_or_insert(WordsError::Here);
        }
        self.here = name.map(|name| Here {
            name: name.to_vec(),
            lines: Vec::new(),
        });
        self.here.is_none()
    }

    fn take_here_line(&mut self, mut here: Here, line: &[u8]) -> bool {
        if line.trim_ascii_end() == here.name {
            here.lines.pop();
            self.push(&here.lines, true);
            return true;
        }
        here.lines.extend_from_slice(line);
        here.lines.push(b'\n');
        self.here = Some(here);
        false
    }

    fn push(&mut self, bytes: &[u8], is_quoted: bool) {
        let word = escape(bytes);
        self.words.push(match word.strip_prefix('-') {
            Some(rest) if is_quoted => format!("\\x2d{rest}"),
            _ => word,
        });
    }
}

fn is_quote(byte: u8) -> bool {
    matches!(byte, b'\'' | b'"')
}

/// What an escape stands for, and its length behind the backslash.
fn escaped(rest: &[u8]) -> Option<(u8, usize)> {
    Some(match rest {
        [b'x', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
            let digit = |digit: u8| char::from(digit).to_digit(16).expect("checked above") as u8;
            (digit(*high) << 4 | digit(*low), 3)
        }
        [b'n', ..] => (b'\n', 1),
        [b'r', ..] => (b'\r', 1),
        [b't', ..] => (b'\t', 1),
        [b'0', ..] => (b'\0', 1),
        [itself, ..] if *itself == b' ' || itself.is_ascii_punctuation() => (*itself, 1),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::cli::key::unescape;
    use proptest::prelude::*;

    /// The words of the only command in a text that is not empty, nor a comment.
    #[track_caller]
    fn split(text: &[u8]) -> Result<Words, WordsError> {
        let mut commands = read_commands(text);
        commands.retain(|command| command.words != Ok(Words::Complete(Vec::new())));
        assert!(commands.len() <= 1, "{commands:?}");
        commands
            .pop()
            .map_or(Ok(Words::Complete(Vec::new())), |command| command.words)
    }

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
        assert_words("# a comment\n \nget a\n\n", &[b"get", b"a"]);
        assert_words("put a#b #c", &[b"put", b"a#b", b"#c"]);
        assert_words("put  k\tv\r", &[b"put", b"k", b"v"]);
        assert_words(r#"put 'a b' "c d"e'f' ''"#, &[b"put", b"a b", b"c def", b""]);
        assert_words("put k 'two\nlines'", &[b"put", b"k", b"two\nlines"]);
    }

    #[test]
    fn escapes_mean_bytes_outside_of_single_quotes() {
        assert_words(
            r#"a\x00\xfF "\n\t\\\"" b\ c '\x00\' \$\(d\'"#,
            &[b"a\0\xff", b"\n\t\\\"", b"b c", br"\x00\", b"$(d'"],
        );
        assert_eq!(split(br"put a\q"), Err(WordsError::Escape(5)));
        assert_eq!(split(br"a\x0"), Err(WordsError::Escape(1)));
        assert_eq!(split(b"a\\"), Err(WordsError::Escape(1)));
        assert_eq!(split(b"put 'a\nb' c\\q"), Err(WordsError::Escape(11)));
    }

    #[test]
    fn a_command_ends_at_a_line_end_outside_of_quotes() {
        for text in ["put a\nput b c", "put a '\n' \nb", "put k <<END\nx\nEND\nget k"] {
            let commands = read_commands(text.as_bytes());
            let are_whole = commands
                .iter()
                .all(|command| matches!(command.words, Ok(Words::Complete(_))));
            assert!(commands.len() == 2 && are_whole, "{text:?}: {commands:?}");
        }
    }

    #[test]
    fn the_name_of_a_command_outlives_its_mistakes() {
        for text in ["batch \"\\q\"", "batch <<", "batch 'a", " batch a\\q b"] {
            let commands = read_commands(text.as_bytes());
            assert_eq!(commands[0].name.as_deref(), Some("batch"), "{text:?}");
        }
        assert_eq!(read_commands(b"# batch")[0].name, None);
    }

    #[test]
    fn an_open_quote_goes_on() {
        for text in ["put k 'a", "put k \"a\n", "'", "put k \"a\\\""] {
            assert!(matches!(split(text.as_bytes()), Ok(Words::Open)), "{text:?}");
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
            assert!(matches!(split(text.as_bytes()), Ok(Words::Open)), "{text:?}");
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
            let has_ended = !matches!(command.words, Ok(Words::Open));
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
    fn a_mistake_does_not_end_a_command_before_its_quotes_and_lines() {
        let command = |text: &str, has_ended| (text.to_owned(), has_ended);
        assert_eq!(
            commands("put a \"\\q\nquit\"\nput b <<END --ttl 1s\ndelete c\nEND\nput d <<\nget e"),
            [
                command("put a \"\\q\nquit\"", true),
                command("put b <<END --ttl 1s\ndelete c\nEND", true),
                command("put d <<", true),
                command("get e", true),
            ]
        );
    }

    #[test]
    fn the_last_of_several_commands_may_be_open() {
        for (text, open) in [
            ("get a\nput b 'c", true),
            ("put b 'c\nd'\nget b", false),
            ("put b <<E\n'\nE\nput b <<E", true),
            ("get a\n", false),
            ("", false),
        ] {
            assert_eq!(is_open(text.as_bytes()), open, "{text:?}");
        }
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
            let _ = read_commands(&bytes);
        }
    }
}
