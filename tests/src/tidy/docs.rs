//! Rules on the documentation: decisions are numbered without gaps, links lead somewhere.
//!
//! Links to the network are not followed. Text inside code fences and code spans holds no links.

use std::collections::BTreeSet;

use super::modules::join;
use super::{Source, Violation};

const DECISIONS: &str = "docs/decisions/";

/// All rules of this module.
pub fn check(sources: &[Source]) -> Vec<Violation> {
    let mut found = decision_numbers(sources);
    for source in sources.iter().filter(|source| source.has_extension("md")) {
        found.extend(links(source, sources));
    }
    found
}

/// Rule `decision-number`: `docs/decisions/NNN-title.md`, from 001, each number once.
fn decision_numbers(sources: &[Source]) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut names: Vec<_> = sources
        .iter()
        .filter_map(|source| source.path.strip_prefix(DECISIONS))
        .collect();
    names.sort_unstable();
    for (index, name) in names.iter().enumerate() {
        let wanted = format!("{:03}-", index + 1);
        let title = name
            .strip_prefix(&wanted)
            .and_then(|rest| rest.strip_suffix(".md"));
        let plain = |title: &str| {
            title
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        };
        if !title.is_some_and(|title| !title.is_empty() && plain(title)) {
            let message =
                format!("expected `{wanted}title.md` at this place: small letters, no gap, no number twice");
            found.push(Violation::new(
                &format!("{DECISIONS}{name}"),
                0,
                "decision-number",
                message,
            ));
        }
    }
    found
}

/// Rule `link`: a relative link names a file or folder of the repository, and its anchor a heading.
fn links(source: &Source, sources: &[Source]) -> Vec<Violation> {
    let mut found = Vec::new();
    let folder = source.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    for (line, target) in link_targets(&source.text) {
        if target.contains("://") || target.starts_with("mailto:") {
            continue;
        }
        let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
        let path = if file.is_empty() {
            source.path.clone()
        } else {
            join(folder, file)
        };
        let exact = sources.iter().find(|other| other.path == path);
        let is_folder = || {
            path.is_empty()
                || sources
                    .iter()
                    .any(|other| other.path.starts_with(&format!("{path}/")))
        };
        let message = match exact {
            None if is_folder() => continue,
            None => format!("`{target}` leads to no file of the repository"),
            Some(other)
                if !anchor.is_empty()
                    && other.has_extension("md")
                    && !anchors(&other.text).contains(anchor) =>
            {
                format!("`{target}`: `{path}` has no heading `#{anchor}`")
            }
            Some(_) => continue,
        };
        found.push(Violation::new(&source.path, line, "link", message));
    }
    found
}

/// The lines outside code fences, with their numbers from 1.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (!fenced && !fence).then_some((index + 1, line))
    })
}

/// Targets of `[text](target)` and `[label]: target`.
fn link_targets(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        // Every second piece between back ticks is code.
        for piece in line.split('`').step_by(2) {
            for (at, _) in piece.match_indices("](") {
                let rest = &piece[at + 2..];
                let target = rest.split([')', ' ']).next().unwrap_or_default();
                found.push((number, target));
            }
        }
        if let Some((_, target)) = line.split_once("]: ").filter(|_| line.starts_with('[')) {
            found.push((number, target.trim()));
        }
    }
    found
}

/// Anchors of the headings, as code hosts make them: small letters, blanks to dashes, punctuation dropped.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text).filter(|(_, line)| line.starts_with('#'));
    let anchor = |(_, line): (usize, &str)| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title
            .chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(files: &[(&str, &str)]) -> Vec<&'static str> {
        let sources: Vec<_> = files.iter().map(|(path, text)| Source::new(path, text)).collect();
        check(&sources).iter().map(|violation| violation.rule).collect()
    }

    #[test]
    fn gaps_and_bad_names_of_decisions_are_found() {
        let first = ("docs/decisions/001-a.md", "");
        assert!(rules(&[first, ("docs/decisions/002-b-c.md", "")]).is_empty());
        for second in [
            "003-b.md",
            "001-b.md",
            "2-b.md",
            "002-B.md",
            "002-.md",
            "002-b.txt",
            "notes.md",
        ] {
            assert_eq!(
                rules(&[first, (&format!("docs/decisions/{second}"), "")]),
                ["decision-number"],
                "{second}"
            );
        }
    }

    #[test]
    fn links_that_lead_nowhere_are_found() {
        for text in [
            "[a](gone.md)",
            "see [a](../gone/).",
            "[a](b.md#gone)",
            "[a](#gone)",
            "[a]: gone.md",
        ] {
            assert_eq!(
                rules(&[("docs/a.md", text), ("docs/b.md", "# Here\n")]),
                ["link"],
                "{text}"
            );
        }
    }

    #[test]
    fn links_that_lead_somewhere_pass() {
        let text = "# A title: here\n[a](b.md#over-there) [b](../LICENSE) [c](#a-title-here) [d](https://x.example/y)\n\
                    [e](sub) `[f](gone)`\n```\n[g](gone)\n```\n[label]: b.md\n";
        let files = [
            ("docs/a.md", text),
            ("docs/b.md", "## Over there\n"),
            ("LICENSE", ""),
            ("docs/sub/c.md", ""),
        ];
        assert!(rules(&files).is_empty());
    }
}
