//! Rules on the arrows between crates, over the output of `cargo metadata --no-deps`.
//!
//! The table `CRATES` is the whole truth: a package outside it, in another folder than it says, or with a
//! dependency that it does not grant is a violation. Dependencies of tests are exempt, except that nothing ever
//! depends on the crates of tests and benchmarks.

use serde_json::Value;

use super::Violation;

/// What one package may depend on.
struct Grant {
    package: &'static str,
    folder: &'static str,
    /// Crates of this workspace.
    own: &'static [&'static str],
    /// Crates from outside; `None` grants any (but see `PEERS`).
    external: Option<&'static [&'static str]>,
    /// Crates from outside that must be optional.
    optional: &'static [&'static str],
}

const CRATES: [Grant; 7] = [
    Grant {
        package: "ostrakon-core",
        folder: "engine/core",
        own: &[],
        external: Some(&["hashbrown"]),
        optional: &[],
    },
    Grant {
        package: "ostrakon-wire",
        folder: "wire",
        own: &[],
        external: Some(&["flatbuffers", "crc32c", "xxhash-rust"]),
        optional: &[],
    },
    Grant {
        package: "ostrakon-client",
        folder: "wire/client",
        own: &["ostrakon-wire"],
        external: Some(&["rustix"]),
        optional: &["tokio"],
    },
    Grant {
        package: "ostrakon",
        folder: "engine",
        own: &["ostrakon-core", "ostrakon-wire", "ostrakon-client"],
        external: None,
        optional: &[],
    },
    Grant {
        package: "loadgen",
        folder: "loadgen",
        own: &["ostrakon", "ostrakon-wire", "ostrakon-client"],
        external: None,
        optional: &[],
    },
    Grant {
        package: "ostrakon-bench",
        folder: "bench",
        own: &[
            "ostrakon",
            "ostrakon-core",
            "ostrakon-wire",
            "ostrakon-client",
            "loadgen",
        ],
        external: None,
        optional: &[],
    },
    Grant {
        package: "ostrakon-tests",
        folder: "tests",
        own: &[
            "ostrakon",
            "ostrakon-core",
            "ostrakon-wire",
            "ostrakon-client",
            "loadgen",
        ],
        external: None,
        optional: &[],
    },
];

/// Packages that nothing may depend on, not even a test.
const LEAVES: [&str; 2] = ["ostrakon-tests", "ostrakon-bench"];
/// Engines to compare with: in the benchmarks only, so that a plain build needs no C++.
const PEERS: [&str; 7] = ["rocksdb", "fjall", "redb", "sled", "heed", "redis", "etcd-client"];

/// Rules `crate-arrow`, `crate-unknown` and `bench-default` over the metadata's JSON.
pub fn check(metadata: &Value) -> Vec<Violation> {
    let mut found = Vec::new();
    for package in list(metadata, "packages") {
        let name = text(package, "name");
        let manifest = relative(metadata, text(package, "manifest_path"));
        let Some(grant) = CRATES.iter().find(|grant| grant.package == name) else {
            let message = format!("package `{name}` is not in the table of tests/src/tidy/crates.rs");
            found.push(Violation::new(&manifest, 0, "crate-unknown", message));
            continue;
        };
        if manifest != format!("{}/Cargo.toml", grant.folder) {
            let message = format!("package `{name}` belongs into `{}`", grant.folder);
            found.push(Violation::new(&manifest, 0, "crate-unknown", message));
        }
        for dependency in list(package, "dependencies") {
            if let Some(message) = refusal(grant, dependency) {
                found.push(Violation::new(&manifest, 0, "crate-arrow", message));
            }
        }
    }
    found.extend(bench_default(metadata));
    found
}

/// Why this dependency is not granted, if it is not.
fn refusal(grant: &Grant, dependency: &Value) -> Option<String> {
    let (package, name) = (grant.package, text(dependency, "name"));
    if LEAVES.contains(&name) {
        return Some(format!(
            "`{package}` depends on `{name}`, on which nothing may depend"
        ));
    }
    if PEERS.contains(&name) && package != "ostrakon-bench" {
        return Some(format!(
            "`{package}` depends on `{name}`: engines to compare with belong into bench only"
        ));
    }
    if text(dependency, "kind") == "dev" {
        return None;
    }
    let optional = dependency["optional"] == Value::Bool(true) && grant.optional.contains(&name);
    let granted = match (dependency["path"].is_string(), grant.external) {
        (true, _) => grant.own.contains(&name),
        (false, None) => true,
        (false, Some(external)) => optional || external.contains(&name),
    };
    (!granted).then(|| format!("`{package}` may not depend on `{name}`"))
}

/// Benchmarks stay outside `default-members`.
fn bench_default(metadata: &Value) -> Vec<Violation> {
    let bench = list(metadata, "packages")
        .iter()
        .find(|package| text(package, "name") == "ostrakon-bench");
    let by_default =
        bench.is_some_and(|bench| list(metadata, "workspace_default_members").contains(&bench["id"]));
    let message = "bench must stay outside default-members, so that a plain build needs no C++";
    if by_default {
        vec![Violation::new("Cargo.toml", 0, "bench-default", message)]
    } else {
        Vec::new()
    }
}

/// The files where the workspace's crates begin, from the repository's root.
pub fn roots(metadata: &Value) -> Vec<String> {
    let targets = list(metadata, "packages")
        .iter()
        .flat_map(|package| list(package, "targets"));
    targets
        .map(|target| relative(metadata, text(target, "src_path")))
        .collect()
}

pub(super) fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

pub(super) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn relative(metadata: &Value, path: &str) -> String {
    let root = text(metadata, "workspace_root");
    path.strip_prefix(root)
        .unwrap_or(path)
        .trim_start_matches('/')
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn workspace(name: &str, folder: &str, dependencies: &Value) -> Value {
        json!({
            "workspace_root": "/w",
            "workspace_default_members": ["default"],
            "packages": [{
                "id": "own",
                "name": name,
                "manifest_path": format!("/w/{folder}/Cargo.toml"),
                "dependencies": dependencies,
                "targets": [{ "src_path": format!("/w/{folder}/src/lib.rs") }],
            }],
        })
    }

    fn rules(name: &str, folder: &str, dependencies: &Value) -> Vec<&'static str> {
        check(&workspace(name, folder, dependencies))
            .iter()
            .map(|violation| violation.rule)
            .collect()
    }

    #[test]
    fn arrows_that_no_table_grants_are_found() {
        let own = |name: &str| json!([{ "name": name, "path": "/w/x" }]);
        let external = |name: &str| json!([{ "name": name, "source": "registry" }]);
        let dev = |name: &str| json!([{ "name": name, "kind": "dev" }]);
        for (package, folder, dependencies) in [
            ("ostrakon-core", "engine/core", own("ostrakon-wire")),
            ("ostrakon-core", "engine/core", external("rand")),
            ("ostrakon-wire", "wire", own("ostrakon")),
            ("ostrakon-client", "wire/client", own("ostrakon")),
            ("ostrakon-client", "wire/client", external("tokio")),
            ("ostrakon", "engine", own("loadgen")),
            ("ostrakon", "engine", external("rocksdb")),
            ("ostrakon", "engine", dev("ostrakon-tests")),
            ("loadgen", "loadgen", own("ostrakon-core")),
            (
                "loadgen",
                "loadgen",
                json!([{ "name": "ostrakon-core", "path": "/w/x", "kind": "build" }]),
            ),
        ] {
            assert_eq!(
                rules(package, folder, &dependencies),
                ["crate-arrow"],
                "{package}: {dependencies}"
            );
        }
    }

    #[test]
    fn granted_arrows_pass() {
        assert!(rules("ostrakon-core", "engine/core", &json!([{ "name": "hashbrown" }])).is_empty());
        assert!(
            rules(
                "ostrakon-core",
                "engine/core",
                &json!([{ "name": "proptest", "kind": "dev" }])
            )
            .is_empty()
        );
        assert!(
            rules(
                "ostrakon-client",
                "wire/client",
                &json!([{ "name": "tokio", "optional": true }])
            )
            .is_empty()
        );
        assert!(rules("ostrakon-bench", "bench", &json!([{ "name": "rocksdb" }])).is_empty());
    }

    #[test]
    fn unknown_packages_and_folders_are_found() {
        assert_eq!(rules("ostrakon-util", "util", &json!([])), ["crate-unknown"]);
        assert_eq!(rules("ostrakon-core", "core", &json!([])), ["crate-unknown"]);
    }

    #[test]
    fn benchmarks_among_the_default_members_are_found() {
        let mut metadata = workspace("ostrakon-bench", "bench", &json!([]));
        assert!(check(&metadata).is_empty());
        metadata["workspace_default_members"] = json!(["own"]);
        assert_eq!(check(&metadata)[0].rule, "bench-default");
    }

    #[test]
    fn roots_are_relative() {
        assert_eq!(
            roots(&workspace("loadgen", "loadgen", &json!([]))),
            ["loadgen/src/lib.rs"]
        );
    }
}
