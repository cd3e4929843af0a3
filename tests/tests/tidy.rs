//! The repository keeps its own rules: crate and layer arrows, forbidden names, heads, lengths, markers, dead
//! files, links. The rules are in `ostrakon_tests::tidy`, each with its bad examples.

use ostrakon_tests::tidy::{Violation, check_sources, crates, exemptions, repository};

/// The folder of the fuzzers' workspace.
const FUZZERS: &str = "tests/fuzz";

#[test]
fn the_repository_is_tidy() {
    let root = repository::root();
    let metadata = repository::own_packages(&root).unwrap_or_else(|error| panic!("{error}"));
    let sources = repository::sources(&root).unwrap_or_else(|error| panic!("{error}"));
    let mut roots = crates::roots(&metadata);
    // A workspace of its own, since it is built with a fuzzer's instrumentation.
    let fuzzers = repository::own_packages(&root.join(FUZZERS)).unwrap_or_else(|error| panic!("{error}"));
    roots.extend(
        crates::roots(&fuzzers)
            .iter()
            .map(|path| format!("{FUZZERS}/{path}")),
    );
    let mut found = check_sources(&sources, &roots);
    found.extend(crates::check(&metadata));
    let list = sources
        .iter()
        .find(|source| source.path == exemptions::LIST)
        .map_or("", |source| &source.text);
    let kept = exemptions::apply(list, found);
    let lines: Vec<_> = kept.iter().map(Violation::to_string).collect();
    assert!(
        kept.is_empty(),
        "{} violations:\n{}",
        kept.len(),
        lines.join("\n")
    );
}

#[test]
fn tidy_reads_the_repository() {
    let sources = repository::sources(&repository::root()).unwrap_or_else(|error| panic!("{error}"));
    for path in [
        "Cargo.toml",
        "LICENSE",
        ".ci/run",
        "engine/src/lib.rs",
        "engine/core/src/lib.rs",
        "tests/tests/tidy.rs",
    ] {
        assert!(
            sources.iter().any(|source| source.path == path),
            "{path} was not read"
        );
    }
    assert!(sources.iter().all(|source| !source.path.starts_with("target/")));
}
