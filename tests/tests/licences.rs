//! Everything that is linked in has a licence that `deny.toml` allows and comes from crates.io or from here.

use ostrakon_tests::tidy::{Violation, licences, repository};

#[test]
fn licences_and_sources_are_allowed() {
    let root = repository::root();
    let metadata = repository::linked_packages(&root).unwrap_or_else(|error| panic!("{error}"));
    let sources = repository::sources(&root).unwrap_or_else(|error| panic!("{error}"));
    let deny = sources
        .iter()
        .find(|source| source.path == "deny.toml")
        .expect("deny.toml is in the repository");
    let allowed = licences::Allowed::from_deny_toml(&deny.text);
    assert!(
        !allowed.licences.is_empty(),
        "deny.toml: no `allow` list was found under [licenses]"
    );
    let found: Vec<_> = licences::check(&metadata, &allowed)
        .iter()
        .map(Violation::to_string)
        .collect();
    assert!(
        found.is_empty(),
        "{} violations:\n{}",
        found.len(),
        found.join("\n")
    );
}
