//! Cuts Rust text into words, punctuation and comments, well enough for the tidy rules.
//!
//! Guarantees: what stands inside string and character literals never appears as a word or a comment, and
//! what stands inside comments never appears as a word; lines are counted from 1. It never fails: text that
//! is not Rust gives tokens of some kind, and the compiler says the rest.

/// One token of code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// An identifier or keyword.
    Word(String),
    /// `::`.
    PathSeparator,
    /// Any other single character of punctuation.
    Punct(char),
    /// A string literal, with its content as written between the quotes.
    Text(String),
    /// A number, character or lifetime; no rule needs its content.
    Other,
}

/// A token with its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spot {
    /// The token.
    pub token: Token,
    /// Line, from 1.
    pub line: usize,
}

impl Spot {
    /// True for exactly this word.
    pub fn is_word(&self, word: &str) -> bool {
        matches!(&self.token, Token::Word(own) if own == word)
    }

    /// True for exactly this punctuation.
    pub fn is_punct(&self, punct: char) -> bool {
        self.token == Token::Punct(punct)
    }

    /// The word, if it is one.
    pub fn word(&self) -> Option<&str> {
        match &self.token {
            Token::Word(word) => Some(word),
            _ => None,
        }
    }
}

/// One line of a comment, without its markers' meaning: the text still holds the slashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommentLine {
    /// The text of this line.
    pub text: String,
    /// Line, from 1.
    pub line: usize,
}

/// A file cut into code and comments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lexed {
    /// The code, in order.
    pub tokens: Vec<Spot>,
    /// The comments, one element per line.
    pub comments: Vec<CommentLine>,
}

/// Cuts `text` into tokens and comments.
pub fn lex(text: &str) -> Lexed {
    let mut cursor = Cursor {
        chars: text.chars().collect(),
        at: 0,
        line: 1,
        out: Lexed::default(),
    };
    while let Some(c) = cursor.peek(0) {
        cursor.step(c);
    }
    cursor.out
}

struct Cursor {
    chars: Vec<char>,
    at: usize,
    line: usize,
    out: Lexed,
}

impl Cursor {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek(0)?;
        self.at += 1;
        if c == '\n' {
            self.line += 1;
        }
        Some(c)
    }

    fn push(&mut self, token: Token, line: usize) {
        self.out.tokens.push(Spot { token, line });
    }

    fn step(&mut self, c: char) {
        let line = self.line;
        match (c, self.peek(1)) {
            ('/', Some('/')) => self.line_comment(),
            ('/', Some('*')) => self.block_comment(),
            ('"', _) => self.quoted(line),
            ('\'', _) => self.tick(line),
            (':', Some(':')) => {
                self.at += 2;
                self.push(Token::PathSeparator, line);
            }
            _ if c.is_alphabetic() || c == '_' => self.word_or_prefixed_literal(line),
            _ if c.is_ascii_digit() => self.number(line),
            _ => {
                self.bump();
                if !c.is_whitespace() {
                    self.push(Token::Punct(c), line);
                }
            }
        }
    }

    fn line_comment(&mut self) {
        let line = self.line;
        let mut text = String::new();
        while let Some(c) = self.peek(0).filter(|&c| c != '\n') {
            text.push(c);
            self.at += 1;
        }
        self.out.comments.push(CommentLine { text, line });
    }

    fn block_comment(&mut self) {
        let mut depth = 0_usize;
        let mut text = String::new();
        let mut line = self.line;
        while let Some(c) = self.bump() {
            match (c, self.peek(0)) {
                ('/', Some('*')) => {
                    depth += 1;
                    self.at += 1;
                }
                ('*', Some('/')) => {
                    depth -= 1;
                    self.at += 1;
                    if depth == 0 {
                        break;
                    }
                }
                ('\n', _) => {
                    self.out.comments.push(CommentLine {
                        text: std::mem::take(&mut text),
                        line,
                    });
                    line = self.line;
                }
                _ => text.push(c),
            }
        }
        self.out.comments.push(CommentLine { text, line });
    }

    fn quoted(&mut self, line: usize) {
        self.bump();
        let mut text = String::new();
        while let Some(c) = self.bump().filter(|&c| c != '"') {
            text.push(c);
            if c == '\\' {
                text.extend(self.bump());
            }
        }
        self.push(Token::Text(text), line);
    }

    /// A character literal or a lifetime.
    fn tick(&mut self, line: usize) {
        self.bump();
        if self.peek(0) == Some('\\') {
            self.at += 2;
            while self.bump().is_some_and(|c| c != '\'') {}
        } else if self.peek(1) == Some('\'') {
            self.bump();
            self.bump();
        } else {
            self.take_word();
        }
        self.push(Token::Other, line);
    }

    fn number(&mut self, line: usize) {
        self.take_word();
        if self.peek(0) == Some('.') && self.peek(1).is_some_and(|c| c.is_ascii_digit()) {
            self.at += 1;
            self.take_word();
        }
        self.push(Token::Other, line);
    }

    fn take_word(&mut self) -> String {
        let mut word = String::new();
        while let Some(c) = self.peek(0).filter(|&c| c.is_alphanumeric() || c == '_') {
            word.push(c);
            self.at += 1;
        }
        word
    }

    fn word_or_prefixed_literal(&mut self, line: usize) {
        let word = self.take_word();
        let raw = matches!(word.as_str(), "r" | "br" | "cr");
        match self.peek(0) {
            Some('"') if raw => self.raw_text(line, 0),
            Some('"') if matches!(word.as_str(), "b" | "c") => self.quoted(line),
            Some('\'') if word == "b" => self.tick(line),
            Some('#') if raw => {
                let hashes = self.chars[self.at..].iter().take_while(|&&c| c == '#').count();
                self.at += hashes;
                if self.peek(0) == Some('"') {
                    self.raw_text(line, hashes);
                } else {
                    let word = self.take_word();
                    self.push(Token::Word(word), line);
                }
            }
            _ => self.push(Token::Word(word), line),
        }
    }

    fn raw_text(&mut self, line: usize, hashes: usize) {
        self.bump();
        let mut text = String::new();
        while let Some(c) = self.bump() {
            if c == '"' && (0..hashes).all(|ahead| self.peek(ahead) == Some('#')) {
                self.at += hashes;
                break;
            }
            text.push(c);
        }
        self.push(Token::Text(text), line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        lex(text)
            .tokens
            .iter()
            .filter_map(|spot| spot.word().map(String::from))
            .collect()
    }

    #[test]
    fn literals_hide_words_and_comments() {
        assert_eq!(
            words(r##"a("b // c \" d", r#"e " f"#, 'g', b'h', b"i", '\'', j)"##),
            ["a", "j"]
        );
        assert_eq!(lex(r#"let url = "http://x";"#).comments, []);
    }

    #[test]
    fn lifetimes_are_not_character_literals() {
        assert_eq!(
            words("fn f<'a>(x: &'a str, y: &'static u8) {}"),
            ["fn", "f", "x", "str", "y", "u8"]
        );
    }

    #[test]
    fn comments_nest_and_keep_their_lines() {
        let lexed = lex("a\n/* b /* c */\nd */ e // f\n");
        let lines: Vec<_> = lexed.comments.iter().map(|comment| comment.line).collect();
        assert_eq!(lines, [2, 3, 3]);
        assert!(lexed.comments[2].text.contains('f'));
        assert_eq!(words("/* b /* c */ d */ e"), ["e"]);
    }

    #[test]
    fn raw_words_and_numbers_with_ranges() {
        assert_eq!(words("r#type 0..n 1.5e3 2_u8.max"), ["type", "n", "max"]);
    }
}
