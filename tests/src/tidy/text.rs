//! Rules on a single file's text: head, lengths, white space, markers, reasons of lints, machine paths.
//!
//! Markers count in comments and in code, never inside string literals, so that a rule may name them.

use super::lexer::{Lexed, Spot, lex};
use super::{Source, Violation};

/// Hard limit of a file, in lines (the goal is 150 to 500).
pub const FILE_LINES_MAX: usize = 700;
/// Hard limit of a line, in characters (rustfmt's own width is smaller).
pub const LINE_CHARS_MAX: usize = 120;

/// Words that mark unfinished work, in any file, as written here.
const MARKER_WORDS: [&str; 4] = ["TODO", "FIXME", "XXX", "HACK"];
/// Phrases that announce unfinished work, in comments of Rust files, in any case.
const MARKER_PHRASES: [&str; 3] = ["for now", "simplified", "placeholder"];
/// Macros that stand for unfinished work or forgotten output.
const MARKER_MACROS: [&str; 3] = ["todo", "unimplemented", "dbg"];
/// Beginnings of paths that exist on one machine only.
const MACHINE_PATHS: [&str; 5] = ["/home/", "/root/", "/Users/", "/work/", "/tmp/target"];

/// All rules of this module.
pub fn check(source: &Source) -> Vec<Violation> {
    let mut found = machine_paths(source);
    if source.is_written_rust() {
        let lexed = lex(&source.text);
        found.extend(head(source));
        found.extend(lengths(source));
        found.extend(white_space(source));
        found.extend(markers_in_rust(source, &lexed));
        found.extend(lint_attributes(source, &lexed.tokens));
    } else if !source.is_rust() {
        found.extend(white_space(source));
        found.extend(markers_in_text(source));
    }
    found
}

/// Rule `head`: a Rust file opens with what it is for.
fn head(source: &Source) -> Option<Violation> {
    let opens = source
        .text
        .lines()
        .next()
        .is_some_and(|line| line.starts_with("//! ") && line.len() > 20);
    let message = "the first line must be a `//!` sentence: what the file is for, guarantees, never does";
    (!opens).then(|| Violation::new(&source.path, 1, "head", message))
}

/// Rules `file-length` and `line-length`.
fn lengths(source: &Source) -> Vec<Violation> {
    let mut found = Vec::new();
    let lines = source.text.lines().count();
    if lines > FILE_LINES_MAX {
        let message = format!("{lines} lines, at most {FILE_LINES_MAX}: split it by meaning");
        found.push(Violation::new(&source.path, 0, "file-length", message));
    }
    for (index, line) in source.text.lines().enumerate() {
        let chars = line.chars().count();
        if chars > LINE_CHARS_MAX {
            let message = format!("{chars} characters, at most {LINE_CHARS_MAX}");
            found.push(Violation::new(&source.path, index + 1, "line-length", message));
        }
    }
    found
}

/// Rule `white-space`: no tabs in Rust, no blanks at a line's end, one line feed at the file's end.
fn white_space(source: &Source) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut say = |line: usize, message: &str| {
        found.push(Violation::new(&source.path, line, "white-space", message));
    };
    for (index, line) in source.text.split('\n').enumerate() {
        if line.ends_with([' ', '\t', '\r']) {
            say(index + 1, "blank or carriage return at the end of the line");
        }
        if source.is_rust() && line.contains('\t') {
            say(index + 1, "tab; indent with spaces, write \\t in a literal");
        }
    }
    if !source.text.is_empty() && (!source.text.ends_with('\n') || source.text.ends_with("\n\n")) {
        say(
            source.text.lines().count(),
            "the file must end with exactly one line feed",
        );
    }
    found
}

/// Rule `marker` in Rust.
fn markers_in_rust(source: &Source, lexed: &Lexed) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut say = |line: usize, what: &str| {
        let message = format!("`{what}`: finish it, or write an issue and say here what holds today");
        found.push(Violation::new(&source.path, line, "marker", message));
    };
    for comment in &lexed.comments {
        let lower = comment.text.to_lowercase();
        let words = MARKER_WORDS.iter().filter(|word| has_word(&comment.text, word));
        let phrases = MARKER_PHRASES.iter().filter(|phrase| has_word(&lower, phrase));
        for what in words.chain(phrases) {
            say(comment.line, what);
        }
    }
    for pair in lexed.tokens.windows(2) {
        let name = pair[0].word().unwrap_or_default();
        if pair[1].is_punct('!') && MARKER_MACROS.contains(&name) {
            say(pair[0].line, &format!("{name}!"));
        }
    }
    for attribute in attributes(&lexed.tokens) {
        if attribute
            .tokens
            .first()
            .is_some_and(|spot| spot.is_word("ignore"))
        {
            say(attribute.line, "#[ignore]");
        }
    }
    found
}

/// Rule `marker` in files that are not Rust.
fn markers_in_text(source: &Source) -> Vec<Violation> {
    let mut found = Vec::new();
    for (index, line) in source.text.lines().enumerate() {
        for word in MARKER_WORDS.iter().filter(|word| has_word(line, word)) {
            found.push(Violation::new(
                &source.path,
                index + 1,
                "marker",
                format!("`{word}`: finish it"),
            ));
        }
    }
    found
}

/// Rules `lint-reason` (each `allow` and `expect` says why) and `blanket-length` (no crate or module may
/// allow long functions as a whole).
fn lint_attributes(source: &Source, tokens: &[Spot]) -> Vec<Violation> {
    let mut found = Vec::new();
    for attribute in attributes(tokens) {
        if !attribute.lifts_a_lint() {
            continue;
        }
        if !attribute.names("reason") {
            let message = "a lint is allowed or expected without `reason = \"...\"`";
            found.push(Violation::new(
                &source.path,
                attribute.line,
                "lint-reason",
                message,
            ));
        }
        if attribute.inner && attribute.names("too_many_lines") {
            let message = "too_many_lines may be expected on one function, never on a whole module";
            found.push(Violation::new(
                &source.path,
                attribute.line,
                "blanket-length",
                message,
            ));
        }
    }
    found
}

/// Rule `machine-path`: nothing names a directory of the machine it was written on.
fn machine_paths(source: &Source) -> Vec<Violation> {
    let mut found = Vec::new();
    for (index, line) in source.text.lines().enumerate() {
        for start in MACHINE_PATHS {
            let inside =
                |at: usize| line[..at].ends_with(|c: char| c.is_alphanumeric() || "./_-}~".contains(c));
            if line.match_indices(start).any(|(at, _)| !inside(at)) {
                let message = format!("a path of one machine (`{start}`)");
                found.push(Violation::new(&source.path, index + 1, "machine-path", message));
            }
        }
    }
    found
}

/// An attribute: `#[...]` or `#![...]`.
pub(super) struct Attribute<'a> {
    /// True for `#![...]`.
    pub(super) inner: bool,
    /// Line of its `#`.
    pub(super) line: usize,
    /// What stands between the brackets.
    pub(super) tokens: &'a [Spot],
    /// Index of the first token after the closing bracket.
    pub(super) end: usize,
}

impl Attribute<'_> {
    /// True when this word stands in it.
    pub(super) fn names(&self, word: &str) -> bool {
        self.tokens.iter().any(|spot| spot.is_word(word))
    }

    /// True for `allow(...)` and `expect(...)`, bare or inside `cfg_attr`.
    pub(super) fn lifts_a_lint(&self) -> bool {
        let bare = self.tokens.first().and_then(Spot::word).unwrap_or_default();
        matches!(bare, "allow" | "expect" | "cfg_attr") && (self.names("allow") || self.names("expect"))
    }
}

/// The attributes of a token list, in order.
pub(super) fn attributes(tokens: &[Spot]) -> Vec<Attribute<'_>> {
    let mut found = Vec::new();
    let is = |at: usize, punct: char| tokens.get(at).is_some_and(|spot| spot.is_punct(punct));
    for at in 0..tokens.len() {
        let inner = is(at + 1, '!');
        let open = at + 1 + usize::from(inner);
        if !is(at, '#') || !is(open, '[') {
            continue;
        }
        let mut depth = 0_usize;
        let close = (open..tokens.len()).find(|&index| {
            depth += usize::from(is(index, '['));
            depth -= usize::from(is(index, ']'));
            depth == 0
        });
        let close = close.unwrap_or(tokens.len());
        found.push(Attribute {
            inner,
            line: tokens[at].line,
            tokens: &tokens[open + 1..close],
            end: close + 1,
        });
    }
    found
}

/// True when `word` occurs with no letter, digit or underscore on either side.
fn has_word(text: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word)
        .any(|(at, _)| !text[..at].ends_with(part) && !text[at + word.len()..].starts_with(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "//! A file for the tests of tidy.\n";

    fn rules(path: &str, text: &str) -> Vec<&'static str> {
        check(&Source::new(path, text))
            .iter()
            .map(|violation| violation.rule)
            .collect()
    }

    fn rules_after_head(text: &str) -> Vec<&'static str> {
        rules("engine/src/log/x.rs", &format!("{HEAD}{text}"))
    }

    #[test]
    fn a_tidy_file_passes() {
        assert!(rules_after_head("/// Adds.\nfn add() {}\n").is_empty());
    }

    #[test]
    fn a_file_without_a_head_is_found() {
        assert_eq!(rules("wire/src/x.rs", "use core::fmt;\n"), ["head"]);
        assert_eq!(rules("wire/src/x.rs", "//! Short.\n"), ["head"]);
    }

    #[test]
    fn long_files_and_lines_are_found() {
        assert_eq!(
            rules_after_head(&"// a\n".repeat(FILE_LINES_MAX)),
            ["file-length"]
        );
        assert!(rules_after_head(&"// a\n".repeat(FILE_LINES_MAX - 1)).is_empty());
        assert_eq!(
            rules_after_head(&format!("// {}\n", "x".repeat(LINE_CHARS_MAX - 2))),
            ["line-length"]
        );
    }

    #[test]
    fn bad_white_space_is_found() {
        for text in [
            "fn f() {} \n",
            "\tfn f() {}\n",
            "fn f() {}",
            "fn f() {}\n\n",
            "fn f() {}\r\n",
        ] {
            assert_eq!(rules_after_head(text), ["white-space"], "{text:?}");
        }
        assert_eq!(rules("docs/x.md", "text \n"), ["white-space"]);
        assert!(rules("docs/x.md", "a\tb\n").is_empty());
    }

    #[test]
    fn markers_are_found_in_comments_and_code_but_not_in_literals() {
        for text in [
            "// TODO finish\n",
            "/* FIXME */\n",
            "/// XXX\n",
            "// a HACK\n",
            "// For now it waits.\n",
            "// A simplified form.\n",
            "// Placeholder.\n",
            "fn f() { todo!() }\n",
            "fn f() { unimplemented!() }\n",
            "fn f() { dbg!(1); }\n",
            "#[test]\n#[ignore]\nfn f() {}\n",
            "#[ignore = \"slow\"]\nfn f() {}\n",
        ] {
            assert_eq!(rules_after_head(text), ["marker"], "{text:?}");
        }
        assert!(
            rules_after_head("const A: &str = \"TODO for now\"; // waits for nowhere, TODOS\n").is_empty()
        );
        assert_eq!(rules("docs/x.md", "TODO\n"), ["marker"]);
    }

    #[test]
    fn lints_need_reasons_and_long_functions_are_excused_singly() {
        assert_eq!(
            rules_after_head("#[allow(dead_code)]\nfn f() {}\n"),
            ["lint-reason"]
        );
        assert_eq!(
            rules_after_head("#[expect(dead_code)]\nfn f() {}\n"),
            ["lint-reason"]
        );
        assert_eq!(
            rules_after_head("#[cfg_attr(test, allow(dead_code))]\nfn f() {}\n"),
            ["lint-reason"]
        );
        assert!(rules_after_head("#[expect(dead_code, reason = \"why\")]\nfn f() {}\n").is_empty());
        let blanket = "#![allow(clippy::too_many_lines, reason = \"why\")]\n";
        assert_eq!(rules_after_head(blanket), ["blanket-length"]);
    }

    #[test]
    fn paths_of_one_machine_are_found() {
        let bad = ["/", "home/anna/x"].concat();
        assert_eq!(rules("docs/x.md", &format!("see {bad}\n")), ["machine-path"]);
        assert_eq!(
            rules_after_head(&format!("const A: &str = \"{bad}\";\n")),
            ["machine-path"]
        );
        assert!(rules("docs/x.md", "see docs/home/x and https://a.example/home/x\n").is_empty());
    }

    #[test]
    fn generated_code_is_exempt() {
        assert!(rules("wire/src/generated.rs", "#[allow(unused)]\nuse x; \n").is_empty());
    }
}
