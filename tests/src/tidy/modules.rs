//! Rule `dead-file`: every Rust file of the repository is part of a crate.
//!
//! The walk starts at the files where crates begin (libraries, binaries, integration tests, build scripts) and
//! follows `mod name;`, `#[path = "..."] mod name;` and `include!("...")`. A file that no walk reaches is dead:
//! the compiler never reads it, so it rots.

use std::collections::{BTreeMap, BTreeSet};

use super::lexer::{Lexed, Token, lex};
use super::text::attributes;
use super::{Source, Violation};

/// Checks that each Rust file in `sources` is reached from one of `roots`, and that each `mod` has its file.
pub fn check(sources: &[Source], roots: &[String]) -> Vec<Violation> {
    let texts: BTreeMap<&str, &str> = sources
        .iter()
        .filter(|source| source.is_rust())
        .map(|source| (source.path.as_str(), source.text.as_str()))
        .collect();
    let mut found = Vec::new();
    let mut reached = BTreeSet::new();
    let mut waiting: Vec<(String, bool)> = roots.iter().map(|root| (root.clone(), true)).collect();
    while let Some((path, is_root)) = waiting.pop() {
        let Some(text) = texts.get(path.as_str()) else {
            continue;
        };
        if !reached.insert(path.clone()) {
            continue;
        }
        for named in files_named_by(&path, is_root, &lex(text)) {
            if let Some(file) = named
                .candidates
                .iter()
                .find(|file| texts.contains_key(file.as_str()))
            {
                waiting.push((file.clone(), false));
            } else {
                let message = format!(
                    "names a file that is not there: {}",
                    named.candidates.join(" or ")
                );
                found.push(Violation::new(&path, named.line, "dead-file", message));
            }
        }
    }
    for path in texts.keys().filter(|path| !reached.contains(**path)) {
        found.push(Violation::new(
            path,
            0,
            "dead-file",
            "no crate reaches this file: declare or delete it",
        ));
    }
    found
}

/// A file that code names, with the places where it may lie.
struct Named {
    candidates: Vec<String>,
    line: usize,
}

fn files_named_by(path: &str, is_root: bool, lexed: &Lexed) -> Vec<Named> {
    let tokens = &lexed.tokens;
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let stem = name.trim_end_matches(".rs");
    let own_folder = if is_root || stem == "mod" {
        folder.to_string()
    } else {
        join(folder, stem)
    };
    let attributes = attributes(tokens);
    let mut found = Vec::new();
    let mut scopes: Vec<Option<&str>> = Vec::new();
    for at in 0..tokens.len() {
        let next = |ahead: usize| tokens.get(at + ahead);
        let line = tokens[at].line;
        match &tokens[at].token {
            Token::Punct('{') => {
                let inline = at >= 2 && tokens[at - 2].is_word("mod");
                scopes.push(if inline { tokens[at - 1].word() } else { None });
            }
            Token::Punct('}') => drop(scopes.pop()),
            Token::Word(word) if word == "mod" && next(2).is_some_and(|spot| spot.is_punct(';')) => {
                let Some(module) = next(1).and_then(|spot| spot.word()) else {
                    continue;
                };
                let inner = scopes
                    .iter()
                    .flatten()
                    .fold(own_folder.clone(), |folder, scope| join(&folder, scope));
                // Attributes stand directly before the declaration and its visibility.
                let before = attributes
                    .iter()
                    .rfind(|attribute| attribute.end <= at && at - attribute.end <= 4)
                    // The one of the declaration before is not its own.
                    .filter(|attribute| !tokens[attribute.end..at].iter().any(|spot| spot.is_punct(';')));
                let explicit = before
                    .filter(|attribute| attribute.names("path"))
                    .and_then(|attribute| {
                        attribute.tokens.iter().find_map(|spot| match &spot.token {
                            Token::Text(text) => Some(join(folder, text)),
                            _ => None,
                        })
                    });
                let usual = || {
                    vec![
                        join(&inner, &format!("{module}.rs")),
                        join(&inner, &format!("{module}/mod.rs")),
                    ]
                };
                found.push(Named {
                    candidates: explicit.map_or_else(usual, |file| vec![file]),
                    line,
                });
            }
            Token::Word(word) if word == "include" && next(1).is_some_and(|spot| spot.is_punct('!')) => {
                if let Some(Token::Text(text)) = next(3).map(|spot| &spot.token) {
                    found.push(Named {
                        candidates: vec![join(folder, text)],
                        line,
                    });
                }
            }
            _ => {}
        }
    }
    found
}

/// `folder` and `name` as one path, with `..` and `.` resolved.
pub(super) fn join(folder: &str, name: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in folder.split('/').chain(name.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let sources: Vec<_> = files.iter().map(|(path, text)| Source::new(path, text)).collect();
        let roots = ["a/src/lib.rs".to_string(), "a/tests/t.rs".to_string()];
        check(&sources, &roots)
            .into_iter()
            .map(|violation| violation.path)
            .collect()
    }

    #[test]
    fn declared_files_are_alive() {
        let files = [
            (
                "a/src/lib.rs",
                "pub mod b; mod c { mod d; } #[path = \"odd/e.rs\"] pub(crate) mod e;",
            ),
            ("a/src/b/mod.rs", "mod f;"),
            ("a/src/b/f.rs", "mod g; include!(\"../made.rs\");"),
            ("a/src/b/f/g.rs", ""),
            ("a/src/made.rs", ""),
            ("a/src/c/d.rs", ""),
            ("a/src/odd/e.rs", ""),
            ("a/tests/t.rs", "mod help;"),
            ("a/tests/help/mod.rs", ""),
            ("a/readme.md", ""),
        ];
        assert_eq!(found(&files), [""; 0]);
    }

    #[test]
    fn dead_files_are_found() {
        assert_eq!(
            found(&[("a/src/lib.rs", "// mod b;"), ("a/src/b.rs", "")]),
            ["a/src/b.rs"]
        );
        assert_eq!(
            found(&[("a/src/lib.rs", "mod b { }"), ("a/src/b.rs", "")]),
            ["a/src/b.rs"]
        );
        assert_eq!(found(&[("tools/x.rs", "")]), ["tools/x.rs"]);
    }

    #[test]
    fn declarations_without_a_file_are_found() {
        assert_eq!(found(&[("a/src/lib.rs", "mod missing;")]), ["a/src/lib.rs"]);
    }
}
