//! The one list of excused violations, `tests/tidy-exemptions.txt`.
//!
//! One exemption to a line: `file | rule | reason`. It excuses every violation of the rule in the file. Lines
//! that begin with `#` and empty lines are comments. An exemption that excuses nothing is itself a violation,
//! so that the list only ever holds what is needed.

use super::Violation;

/// Where the list lies.
pub const LIST: &str = "tests/tidy-exemptions.txt";
/// A reason shorter than this explains nothing.
const REASON_CHARS_MIN: usize = 20;

/// Takes the excused violations out of `found`, and adds the list's own faults: rules `exemption-form` and
/// `exemption-unused`.
pub fn apply(list: &str, found: Vec<Violation>) -> Vec<Violation> {
    let mut kept = found;
    let mut faults = Vec::new();
    for (index, line) in list.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let parts: Vec<_> = line.split('|').map(str::trim).collect();
        let [file, rule, reason] = parts.as_slice() else {
            let message = "expected `file | rule | reason`";
            faults.push(Violation::new(LIST, index + 1, "exemption-form", message));
            continue;
        };
        if reason.chars().count() < REASON_CHARS_MIN {
            let message = format!("a reason has at least {REASON_CHARS_MIN} characters");
            faults.push(Violation::new(LIST, index + 1, "exemption-form", message));
        }
        let before = kept.len();
        kept.retain(|violation| violation.path != *file || violation.rule != *rule);
        if kept.len() == before {
            let message = format!("nothing in `{file}` breaks `{rule}`: delete this line");
            faults.push(Violation::new(LIST, index + 1, "exemption-unused", message));
        }
    }
    kept.extend(faults);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    const REASON: &str = "a reason that is long enough";

    fn rules(list: &str) -> Vec<&'static str> {
        let found = vec![
            Violation::new("a.rs", 1, "head", ""),
            Violation::new("b.rs", 1, "head", ""),
        ];
        apply(list, found)
            .iter()
            .map(|violation| violation.rule)
            .collect()
    }

    #[test]
    fn an_exemption_excuses_its_file_and_rule_only() {
        assert_eq!(rules(&format!("# list\n\na.rs | head | {REASON}\n")), ["head"]);
        assert!(rules(&format!("a.rs|head|{REASON}\nb.rs|head|{REASON}\n")).is_empty());
    }

    #[test]
    fn faults_of_the_list_are_found() {
        assert_eq!(
            rules(&format!("c.rs | head | {REASON}\n")),
            ["head", "head", "exemption-unused"]
        );
        assert_eq!(
            rules(&format!("a.rs | marker | {REASON}\n")),
            ["head", "head", "exemption-unused"]
        );
        assert_eq!(rules("a.rs | head\n"), ["head", "head", "exemption-form"]);
        assert_eq!(rules("a.rs | head | so\n"), ["head", "exemption-form"]);
    }
}
