//! The bugs that `tests/plants/run` plants still fit the tree: each patch applies, as it is, to every file it names.

#![allow(clippy::disallowed_methods, reason = "it reads the repository and runs git")]

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use ostrakon_tests::tidy::repository;

fn patches() -> Vec<PathBuf> {
    let folder = repository::root().join("tests/plants");
    let entries = fs::read_dir(&folder).expect("the plants are there");
    let paths = entries.map(|entry| entry.expect("it can be listed").path());
    let mut patches: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "patch"))
        .collect();
    patches.sort();
    patches
}

/// Why git would not apply a patch to the tree as it is; `None` if it would, or if there is no git.
fn objection(patch: &Path) -> Option<String> {
    let root = repository::root();
    let text = fs::read_to_string(patch).expect("it can be read");
    let files = text
        .lines()
        .filter(|line| line.starts_with("diff --git "))
        .count();
    // Needs no repository. In a folder of another one git would skip every file without a word: it must not find that.
    let output = Command::new("git")
        .args(["apply", "--check", "--verbose"])
        .arg(patch)
        .env("GIT_CEILING_DIRECTORIES", root.parent().unwrap_or(&root))
        .env("LC_ALL", "C")
        .current_dir(&root)
        .output();
    let output = match output {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            println!("skipped: there is no git");
            return None;
        }
        output => output.expect("git runs"),
    };
    let said = String::from_utf8_lossy(&output.stderr);
    let checked = said
        .lines()
        .filter(|line| line.starts_with("Checking patch "))
        .count();
    let applies = output.status.success() && files > 0 && checked == files;
    (!applies).then(|| format!("{}: {checked} of {files} files checked\n{said}", patch.display()))
}

#[test]
fn every_plant_applies_to_the_tree() {
    let patches = patches();
    assert!(patches.len() >= 13, "{patches:?}");
    let objections: Vec<String> = patches.iter().filter_map(|patch| objection(patch)).collect();
    assert!(
        objections.is_empty(),
        "adapt these patches to the code that they break:\n{}",
        objections.join("\n")
    );
}

#[test]
fn every_plant_opens_with_a_sentence_that_says_what_it_breaks() {
    for patch in patches() {
        let text = fs::read_to_string(&patch).expect("it can be read");
        let (sentence, _) = text.split_once("\n\ndiff --git ").unwrap_or_default();
        assert!(sentence.ends_with('.'), "{}: {sentence:?}", patch.display());
    }
}
