//! The rules of this repository that the compiler and clippy do not check, as pure functions over texts.
//!
//! 1. [`repository`] reads the files; it alone touches the disk.
//! 2. [`text`], [`names`], [`layers`], [`modules`], [`crates`] and [`docs`] each hold a family of rules and
//!    return [`Violation`]s.
//! 3. [`exemptions`] takes away what `tests/tidy-exemptions.txt` excuses with a reason, and complains of each
//!    exemption that excused nothing.
//!
//! A rule has a name in small letters with dashes; the exemption file and the messages use it. Nothing here
//! knows another crate of the workspace, so that tidy runs while one of them does not compile.

pub mod crates;
pub mod docs;
pub mod exemptions;
pub mod layers;
pub mod licences;
pub mod modules;
pub mod names;
pub mod repository;
pub mod text;

pub mod lexer;
pub mod paths;

use std::fmt;

/// One file of the repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Path from the repository's root, with `/` between its parts.
    pub path: String,
    /// The whole text.
    pub text: String,
}

impl Source {
    /// A file with this path and text.
    pub fn new(path: &str, text: &str) -> Source {
        Source {
            path: path.into(),
            text: text.into(),
        }
    }

    /// True for Rust code that people write (generated code is exempt from every rule but reachability).
    pub fn is_written_rust(&self) -> bool {
        self.is_rust() && !self.path.starts_with("wire/src/generated")
    }

    /// True for any Rust file.
    pub fn is_rust(&self) -> bool {
        self.has_extension("rs")
    }

    /// True when the name ends in a dot and `extension`.
    pub fn has_extension(&self, extension: &str) -> bool {
        self.path
            .rsplit_once('.')
            .is_some_and(|(_, own)| own == extension)
    }
}

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// File, from the repository's root.
    pub path: String,
    /// Line, from 1; 0 when it concerns the file as a whole.
    pub line: usize,
    /// Name of the rule.
    pub rule: &'static str,
    /// What was found and what to do.
    pub message: String,
}

impl Violation {
    /// A violation of `rule` at `line` of `path`.
    pub fn new(path: &str, line: usize, rule: &'static str, message: impl Into<String>) -> Violation {
        Violation {
            path: path.into(),
            line,
            rule,
            message: message.into(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{}:{}: [{}] {}",
            self.path, self.line, self.rule, self.message
        )
    }
}

/// Runs every rule that needs only the files' texts. `roots` are the files where crates begin.
pub fn check_sources(sources: &[Source], roots: &[String]) -> Vec<Violation> {
    let mut found = Vec::new();
    for source in sources {
        found.extend(text::check(source));
        if source.is_written_rust() {
            found.extend(names::check(source));
            found.extend(layers::check(source));
        }
    }
    found.extend(modules::check(sources, roots));
    found.extend(docs::check(sources));
    found.sort();
    found
}
