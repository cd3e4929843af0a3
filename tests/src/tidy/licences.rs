//! Rules on what is linked in: its licence, and where it comes from. Over `cargo metadata` and `deny.toml`.
//!
//! `deny.toml` stays the one list of what is allowed; this is the check for machines without cargo-deny. It
//! understands SPDX expressions with `AND`, `OR`, `WITH`, parentheses, the old `/` for `OR` and a trailing `+`.

use serde_json::Value;

use super::Violation;
use super::crates::{list, text};

/// The only registry that packages may come from.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// What `deny.toml` allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Licences for every package.
    pub licences: Vec<String>,
    /// Licences for one package: (package, licence).
    pub exceptions: Vec<(String, String)>,
}

impl Allowed {
    /// Reads the `[licenses]` part of `deny.toml`, which keeps one entry to a line.
    pub fn from_deny_toml(deny: &str) -> Allowed {
        let mut allowed = Allowed::default();
        let section = deny.split("\n[licenses]").nth(1).unwrap_or_default();
        let lines = section
            .lines()
            .map(|line| line.split('#').next().unwrap_or_default().trim());
        for line in lines.take_while(|line| !(line.starts_with('[') && line.ends_with(']'))) {
            let quoted: Vec<_> = line.split('"').skip(1).step_by(2).collect();
            match quoted.as_slice() {
                [licence] if line.starts_with('"') => allowed.licences.push((*licence).into()),
                [package, licences @ ..] if line.starts_with("{ crate") => {
                    allowed.exceptions.extend(
                        licences
                            .iter()
                            .map(|licence| ((*package).into(), (*licence).into())),
                    );
                }
                _ => {}
            }
        }
        allowed
    }

    fn grants(&self, package: &str, licence: &str) -> bool {
        let plain = licence.trim_end_matches('+');
        self.licences.iter().any(|own| own == plain)
            || self
                .exceptions
                .iter()
                .any(|(named, own)| named == package && own == plain)
    }
}

/// Rules `licence`, `source` and `licence-exception-unused` over the metadata of all linked packages.
pub fn check(metadata: &Value, allowed: &Allowed) -> Vec<Violation> {
    let mut found = Vec::new();
    let packages = list(metadata, "packages");
    for package in packages {
        let name = text(package, "name");
        let label = format!("{name} {}", text(package, "version"));
        let expression = text(package, "license");
        match satisfied(expression, &|licence| allowed.grants(name, licence)) {
            Ok(true) => {}
            Ok(false) => {
                let message =
                    format!("`{label}` has the licence `{expression}`, which deny.toml does not allow");
                found.push(Violation::new("Cargo.lock", 0, "licence", message));
            }
            Err(reason) => {
                let message =
                    format!("`{label}` has the licence `{expression}`, which cannot be judged: {reason}");
                found.push(Violation::new("Cargo.lock", 0, "licence", message));
            }
        }
        if !comes_from_a_known_place(metadata, package) {
            let place = package["source"]
                .as_str()
                .unwrap_or_else(|| text(package, "manifest_path"));
            let message =
                format!("`{label}` comes from {place}; only crates.io and this repository are known");
            found.push(Violation::new("Cargo.lock", 0, "source", message));
        }
    }
    for (package, licence) in &allowed.exceptions {
        if !packages.iter().any(|other| text(other, "name") == package) {
            let message = format!("the exception ({package}, {licence}) is of no use any more");
            found.push(Violation::new(
                "deny.toml",
                0,
                "licence-exception-unused",
                message,
            ));
        }
    }
    found
}

fn comes_from_a_known_place(metadata: &Value, package: &Value) -> bool {
    let root = format!("{}/", text(metadata, "workspace_root"));
    let own = || text(package, "manifest_path").starts_with(&root);
    package["source"]
        .as_str()
        .map_or_else(own, |source| source == REGISTRY)
}

/// Whether `expression` can be met with licences for which `granted` is true.
///
/// # Errors
/// A sentence that says what is wrong with the expression.
pub fn satisfied(expression: &str, granted: &dyn Fn(&str) -> bool) -> Result<bool, String> {
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser {
        words: &words,
        at: 0,
        granted,
    };
    let met = parser.any()?;
    match parser.next() {
        None => Ok(met),
        Some(word) => Err(format!("unexpected `{word}`")),
    }
}

struct Parser<'a> {
    words: &'a [&'a str],
    at: usize,
    granted: &'a dyn Fn(&str) -> bool,
}

impl<'a> Parser<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let word = self.words.get(self.at).copied();
        self.at += 1;
        word
    }

    fn take(&mut self, wanted: &str) -> bool {
        let here = self.words.get(self.at) == Some(&wanted);
        self.at += usize::from(here);
        here
    }

    fn any(&mut self) -> Result<bool, String> {
        let mut met = self.all()?;
        while self.take("OR") {
            met |= self.all()?;
        }
        Ok(met)
    }

    fn all(&mut self) -> Result<bool, String> {
        let mut met = self.one()?;
        while self.take("AND") {
            met &= self.one()?;
        }
        Ok(met)
    }

    fn one(&mut self) -> Result<bool, String> {
        match self.next() {
            None => Err("a licence is missing".into()),
            Some("(") => {
                let met = self.any()?;
                if self.take(")") {
                    Ok(met)
                } else {
                    Err("a `)` is missing".into())
                }
            }
            Some(word @ (")" | "AND" | "OR" | "WITH")) => Err(format!("unexpected `{word}`")),
            Some(licence) if self.take("WITH") => {
                let exception = self.next().ok_or("a name after WITH is missing")?;
                Ok((self.granted)(&format!("{licence} WITH {exception}")))
            }
            Some(licence) => Ok((self.granted)(licence)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn expressions_are_judged() {
        let granted = |licence: &str| matches!(licence, "MIT" | "Apache-2.0" | "Unicode-3.0");
        for (expression, wanted) in [
            ("MIT", true),
            ("GPL-3.0", false),
            ("MIT OR GPL-3.0", true),
            ("MIT AND GPL-3.0", false),
            ("MIT/GPL-3.0", true),
            ("GPL-3.0 OR MIT AND Apache-2.0", true),
            ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
            ("(MIT OR Apache-2.0) AND GPL-3.0", false),
            ("Apache-2.0 WITH LLVM-exception", false),
            ("Apache-2.0 WITH LLVM-exception OR MIT", true),
        ] {
            assert_eq!(satisfied(expression, &granted), Ok(wanted), "{expression}");
        }
        for broken in ["", "MIT OR", "MIT Apache-2.0", "(MIT", "MIT)", "AND"] {
            assert!(satisfied(broken, &granted).is_err(), "{broken}");
        }
    }

    #[test]
    fn deny_toml_is_read() {
        let graph = "[graph]\nx = [\n    \"not-a-licence\",\n]\n\n";
        let allow = "[licenses]\nallow = [\n    \"MIT\", # why\n    # \"GPL-3.0\",\n    \"Zlib\",\n]\n";
        let exceptions = "exceptions = [\n    { crate = \"a\", allow = [\"MPL-2.0\"] },\n]\n\n";
        let bans = "[bans]\ny = [\n    \"z\",\n]\n";
        let allowed = Allowed::from_deny_toml(&[graph, allow, exceptions, bans].concat());
        assert_eq!(allowed.licences, ["MIT", "Zlib"]);
        assert_eq!(allowed.exceptions, [("a".to_string(), "MPL-2.0".to_string())]);
    }

    #[test]
    fn bad_licences_sources_and_stale_exceptions_are_found() {
        let package = |name: &str, licence: Value, source: Value| {
            let manifest = "/w/a/Cargo.toml";
            json!({ "name": name, "license": licence, "source": source, "manifest_path": manifest })
        };
        let allowed = Allowed {
            licences: vec!["MIT".into()],
            exceptions: vec![("b".into(), "MPL-2.0".into())],
        };
        let rules = |packages: Value| -> Vec<&str> {
            let metadata = json!({ "workspace_root": "/w", "packages": packages });
            check(&metadata, &allowed)
                .iter()
                .map(|violation| violation.rule)
                .collect()
        };
        let b = package("b", json!("MPL-2.0+"), json!(REGISTRY));
        assert!(rules(json!([b, package("a", json!("MIT"), Value::Null)])).is_empty());
        assert_eq!(
            rules(json!([b, package("a", json!("MPL-2.0"), Value::Null)])),
            ["licence"]
        );
        assert_eq!(
            rules(json!([b, package("a", Value::Null, Value::Null)])),
            ["licence"]
        );
        assert_eq!(
            rules(json!([
                b,
                package("a", json!("MIT"), json!("git+https://a.example"))
            ])),
            ["source"]
        );
        assert_eq!(
            rules(json!([package("a", json!("MIT"), Value::Null)])),
            ["licence-exception-unused"]
        );
        let mut outside = package("a", json!("MIT"), Value::Null);
        outside["manifest_path"] = json!("/elsewhere/Cargo.toml");
        assert_eq!(rules(json!([b, outside])), ["source"]);
    }
}
