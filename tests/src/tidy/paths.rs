//! Finds the paths (`a::b::c`) in a token list, with `use` groups written out and `mod` nesting counted.
//!
//! Guarantees: `use std::{fs, time::{self, Instant}};` gives `std::fs`, `std::time::self` and
//! `std::time::Instant`; names after a dot (fields, methods) are not paths; a glob ends in `*`. It resolves no
//! aliases: a rule that forbids `std::fs` sees the `use` that introduces the alias.

use super::lexer::{Spot, Token};

/// One path as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathUse {
    /// The segments, without generic arguments.
    pub segments: Vec<String>,
    /// Line of the last segment, from 1.
    pub line: usize,
    /// How many inline modules (`mod x { ... }`) enclose it.
    pub inline_depth: usize,
}

impl PathUse {
    /// True when the path begins with these segments.
    pub fn starts_with(&self, prefix: &[&str]) -> bool {
        self.segments.len() >= prefix.len()
            && self
                .segments
                .iter()
                .zip(prefix)
                .all(|(own, wanted)| own == wanted)
    }

    /// The path with its separators.
    pub fn joined(&self) -> String {
        self.segments.join("::")
    }
}

/// All paths in `tokens`, single words included.
pub fn paths(tokens: &[Spot]) -> Vec<PathUse> {
    let mut reader = Reader {
        tokens,
        at: 0,
        inline_depth: 0,
        out: Vec::new(),
    };
    let mut braces: Vec<bool> = Vec::new();
    while reader.at < tokens.len() {
        let at = reader.at;
        match &tokens[at].token {
            Token::Punct('{') => {
                let module = at >= 2 && tokens[at - 2].is_word("mod") && tokens[at - 1].word().is_some();
                braces.push(module);
                reader.inline_depth += usize::from(module);
                reader.at += 1;
            }
            Token::Punct('}') => {
                reader.inline_depth -= usize::from(braces.pop().unwrap_or(false));
                reader.at += 1;
            }
            Token::Word(_) if reader.is_path_start() => reader.path(&[]),
            _ => reader.at += 1,
        }
    }
    reader.out
}

struct Reader<'a> {
    tokens: &'a [Spot],
    at: usize,
    inline_depth: usize,
    out: Vec<PathUse>,
}

impl Reader<'_> {
    fn token(&self, at: usize) -> Option<&Token> {
        self.tokens.get(at).map(|spot| &spot.token)
    }

    fn is_path_start(&self) -> bool {
        let before = |back: usize| self.at.checked_sub(back).and_then(|at| self.token(at));
        match before(1) {
            // `0..path` is a range, `value.name` is a field.
            Some(Token::Punct('.')) => before(2) == Some(&Token::Punct('.')),
            Some(Token::PathSeparator) => !matches!(before(2), Some(Token::Word(_) | Token::Punct('>'))),
            _ => true,
        }
    }

    /// Reads one path from the current word on; `prefix` comes from the groups around it.
    fn path(&mut self, prefix: &[String]) {
        let mut segments = prefix.to_vec();
        let mut line = self.tokens[self.at].line;
        loop {
            match self.token(self.at) {
                Some(Token::Word(word)) => segments.push(word.clone()),
                Some(Token::Punct('*')) => segments.push("*".into()),
                Some(Token::Punct('{')) => return self.group(&segments),
                _ => break,
            }
            line = self.tokens[self.at].line;
            self.at += 1;
            if self.token(self.at) != Some(&Token::PathSeparator) {
                break;
            }
            self.at += 1;
        }
        self.out.push(PathUse {
            segments,
            line,
            inline_depth: self.inline_depth,
        });
    }

    fn group(&mut self, prefix: &[String]) {
        self.at += 1;
        while let Some(token) = self.token(self.at) {
            match token {
                Token::Punct('}') => {
                    self.at += 1;
                    return;
                }
                Token::Word(word) if word == "as" => self.at += 2,
                Token::Word(_) | Token::Punct('*' | '{') => self.path(prefix),
                _ => self.at += 1,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::lexer::lex;
    use super::*;

    fn joined(text: &str) -> Vec<String> {
        paths(&lex(text).tokens).iter().map(PathUse::joined).collect()
    }

    #[test]
    fn groups_are_written_out() {
        assert_eq!(
            joined("use std::{fs as f, time::{self, Instant}, io::*};"),
            [
                "use",
                "std::fs",
                "std::time::self",
                "std::time::Instant",
                "std::io::*"
            ]
        );
    }

    #[test]
    fn fields_are_not_paths_and_turbofish_ends_one() {
        assert_eq!(
            joined("x.log.read(); Vec::<crate::log::A>::new()"),
            ["x", "Vec", "crate::log::A"]
        );
        assert_eq!(
            joined("::std::fs::read(0..std::u8::MAX)"),
            ["std::fs::read", "std::u8::MAX"]
        );
    }

    #[test]
    fn inline_modules_are_counted() {
        let found = paths(&lex("mod a { fn f() { b } mod c { d } } e").tokens);
        let depth = |name: &str| {
            found
                .iter()
                .find(|path| path.joined() == name)
                .map(|path| path.inline_depth)
        };
        assert_eq!((depth("b"), depth("d"), depth("e")), (Some(1), Some(2), Some(0)));
    }
}
