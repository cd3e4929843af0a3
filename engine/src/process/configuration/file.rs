//! The configuration file: TOML, whose keys are the names of the flags.

use std::collections::BTreeMap;
use std::path::Path;

use toml::{Spanned, Value};

use super::settings::{SETTINGS, Setting, Shape};

/// A setting as the file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileValue {
    /// In the form of a flag's value.
    pub(super) text: String,
    /// From 1.
    pub(super) line: usize,
}

/// Reads a file.
///
/// # Errors
/// A sentence with file and line: it can't be read, it is no TOML, it has an unknown key or a value of a wrong type.
pub(super) fn read(path: &Path) -> Result<BTreeMap<&'static str, FileValue>, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("the configuration file {} can't be read: {error}", path.display()))?;
    parse(&text).map_err(|(line, sentence)| format!("{}, line {line}: {sentence}", path.display()))
}

/// Values by name; or a line and what is wrong with it.
fn parse(text: &str) -> Result<BTreeMap<&'static str, FileValue>, (usize, String)> {
    let line_of = |offset: usize| 1 + text[..offset].matches('\n').count();
    let entries: BTreeMap<Spanned<String>, Spanned<Value>> = toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(span.start));
        (line, format!("it is not TOML: {}", error.message()))
    })?;
    let mut values = BTreeMap::new();
    for (key, value) in entries {
        let line = line_of(key.span().start);
        let Some(setting) = Setting::named(key.get_ref()) else {
            let names: Vec<&str> = SETTINGS.iter().map(|setting| setting.name).collect();
            let (name, allowed) = (key.get_ref(), names.join(", "));
            return Err((line, format!("there is no setting '{name}'; there are {allowed}")));
        };
        let text = written(setting, value.get_ref()).map_err(|sentence| (line, sentence))?;
        values.insert(setting.name, FileValue { text, line });
    }
    Ok(values)
}

/// The value as a flag would have it.
fn written(setting: &Setting, value: &Value) -> Result<String, String> {
    match (setting.shape, value) {
        (Shape::Text, Value::String(text)) => Ok(text.clone()),
        (Shape::Number, Value::Integer(number)) => Ok(number.to_string()),
        (Shape::Switch, Value::Boolean(switch)) => Ok(switch.to_string()),
        (shape, value) => {
            let wanted = match shape {
                Shape::Text => "a string",
                Shape::Number => "an integer",
                Shape::Switch => "true or false",
            };
            Err(format!(
                "{name} is {wanted}, such as {name} = {example}; here it is of type {found}",
                name = setting.name,
                example = setting.example,
                found = value.type_str(),
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_refused(text: &str, line: usize, words: &[&str]) {
        let (found, sentence) = parse(text).expect_err(text);
        assert_eq!(found, line, "{sentence}");
        for word in words {
            assert!(sentence.contains(word), "no '{word}' in: {sentence}");
        }
    }

    #[test]
    fn values_keep_their_lines() {
        let values = parse("# a comment\n\ncores = 4\nspin = true\n\nlisten = \"[::1]:1\" # here\n").unwrap();
        let found: Vec<_> = values
            .iter()
            .map(|(name, value)| (*name, value.text.as_str(), value.line))
            .collect();
        assert_eq!(
            found,
            [("cores", "4", 3), ("listen", "[::1]:1", 6), ("spin", "true", 4)]
        );
        assert!(parse("").unwrap().is_empty());
    }

    #[test]
    fn unknown_keys_and_wrong_types_are_refused_with_their_line() {
        assert_refused(
            "cores = 1\ncore = 2\n",
            2,
            &["'core'", "data, listen, http", "cores"],
        );
        assert_refused("\n[server]\ncores = 1\n", 2, &["'server'"]);
        assert_refused(
            "cores = \"4\"",
            1,
            &["cores is an integer", "cores = 4", "string"],
        );
        assert_refused(
            "memory = 1",
            1,
            &["memory is a string", "memory = \"8GiB\"", "integer"],
        );
        assert_refused("\nspin = 1", 2, &["true or false", "integer"]);
        assert_refused("http = false", 1, &["http is a string", "boolean"]);
        assert_refused("log = [\"info\"]", 1, &["array"]);
    }

    #[test]
    fn what_is_no_toml_is_refused_with_its_line() {
        assert_refused("cores = 1\nspin\n", 2, &["not TOML"]);
        assert_refused("cores = 1\ncores = 2\n", 2, &["duplicate key"]);
    }

    #[test]
    fn every_example_is_of_its_settings_type() {
        for setting in &SETTINGS {
            let line = format!("{} = {}", setting.name, setting.example);
            assert!(parse(&line).is_ok(), "{line}");
        }
    }
}
