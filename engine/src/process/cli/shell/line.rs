//! The commands of the shell: those for a node and a few of its own, and what completes and explains them.

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum, error::ErrorKind};

use super::super::arguments::with_common_options;
use super::super::failure::Failure;
use super::super::output::{self, Format};
use super::super::requests::{ClientCommand, PrintArguments};

const HELP: &str = "\
{subcommands}

`help COMMAND` says more of one. Words are separated by spaces. '...' takes all
as it is; elsewhere \\xNN is any byte and \\\\ a backslash. An open quote goes on
on the next line, and so does `put KEY <<END`, up to a line that is END.
Tab completes. Ctrl-C ends the running command, Ctrl-D the shell.
";

/// One line of the shell.
#[derive(Debug, Parser)]
#[command(name = "", no_binary_name = true, disable_help_flag = true, help_template = HELP, max_term_width = 110)]
struct Line {
    #[command(subcommand)]
    command: ShellCommand,
}

/// The commands of the shell.
#[derive(Debug, Subcommand)]
pub(super) enum ShellCommand {
    /// One for the node.
    #[command(flatten)]
    Client(ClientCommand),
    /// Print after each command where its time went, or no longer.
    Timing {
        /// What from now on; without it, how it is.
        switch: Option<Switch>,
    },
    /// Choose how results are printed.
    Output {
        /// What from now on; without it, how it is.
        format: Option<Format>,
    },
    /// Go to another node.
    Connect {
        /// Where it listens.
        #[arg(value_name = "HOST:PORT")]
        address: String,
    },
    /// End the shell, as Ctrl-D does.
    #[command(alias = "exit")]
    Quit,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Switch {
    On,
    Off,
}

/// A line that makes sense.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) command: ShellCommand,
    /// For this command only.
    pub(super) print: PrintArguments,
}

/// Reads the words of a line. Prints the help that is asked for; then there is nothing left to do.
pub(super) fn parse(words: &[String]) -> Result<Option<Parsed>, Failure> {
    let parsed = definition().try_get_matches_from(words).and_then(|matches| {
        let command = Line::from_arg_matches(&matches)?.command;
        // Only these have the options.
        let print = match (&command, matches.subcommand()) {
            (ShellCommand::Client(_), Some((_, matches))) => PrintArguments::from_arg_matches(matches)?,
            _ => PrintArguments::default(),
        };
        Ok(Parsed { command, print })
    });
    match parsed {
        Ok(parsed) => Ok(Some(parsed)),
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp) => {
            output::text(&error.to_string()).map(|()| None)
        }
        Err(error) => Err(Failure::Usage(sentence(&error))),
    }
}

/// All commands with all their options.
pub(super) fn definition() -> clap::Command {
    with_common_options(Line::command(), PrintArguments::augment_args)
}

/// A refusal without the frame that is for command lines.
fn sentence(error: &clap::Error) -> String {
    let text = error.to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let lines = text
        .lines()
        .filter(|line| !line.starts_with("For more information"));
    lines.collect::<Vec<_>>().join("\n").trim_end().to_owned()
}

/// What can stand where the cursor is: its start in the line, and the candidates in order.
pub(super) fn complete(line: &str) -> (usize, Vec<String>) {
    let start = line.rfind(char::is_whitespace).map_or(0, |space| space + 1);
    let (before, begun) = line.split_at(start);
    let mut words = before.split_whitespace();
    let definition = definition();
    let mut candidates: Vec<String> = match words.next() {
        None | Some("help") => names(&definition),
        Some(name) => definition
            .find_subcommand(name)
            .map(|command| options_and_values(command, begun, words.count()))
            .unwrap_or_default(),
    };
    candidates.retain(|candidate| candidate.starts_with(begun));
    candidates.sort();
    (start, candidates)
}

fn names(definition: &clap::Command) -> Vec<String> {
    let names = definition
        .get_subcommands()
        .map(|command| command.get_name().to_owned());
    names.chain(std::iter::once("help".to_owned())).collect()
}

/// Options of a command for a word that begins as one, else the values of its argument at a position.
fn options_and_values(command: &clap::Command, begun: &str, position: usize) -> Vec<String> {
    if begun.starts_with('-') {
        let options = command.get_arguments().filter_map(clap::Arg::get_long);
        return options.map(|name| format!("--{name}")).collect();
    }
    let argument = command.get_positionals().nth(position);
    let values = argument.map(clap::Arg::get_possible_values).unwrap_or_default();
    values.iter().map(|value| value.get_name().to_owned()).collect()
}

/// May the word at the end of the line be the name of a file?
pub(super) fn wants_file(line: &str) -> bool {
    let Some((name, _)) = line.trim_start().split_once(char::is_whitespace) else {
        return false;
    };
    let definition = definition();
    let command = definition.find_subcommand(name);
    let mut arguments = command.into_iter().flat_map(clap::Command::get_arguments);
    arguments.any(|argument| argument.get_value_hint() == clap::ValueHint::FilePath)
}

/// The arguments of a command whose name is all that stands in the line.
pub(super) fn hint(line: &str) -> Option<String> {
    let name = line.strip_suffix(' ')?;
    let definition = definition();
    let command = definition.find_subcommand(name)?;
    let positionals = command.get_positionals().map(|argument| {
        let names: Vec<String> = match argument.get_value_names() {
            Some(names) => names.iter().map(ToString::to_string).collect(),
            None => vec![argument.get_id().to_string().to_uppercase()],
        };
        let names = names.join(" ");
        let several = match argument.get_num_args() {
            Some(range) if range.max_values() > 2 => " ...",
            _ => "",
        };
        if argument.is_required_set() {
            format!("{names}{several}")
        } else {
            format!("[{names}]{several}")
        }
    });
    let options = command
        .get_opts()
        .filter(|option| option.get_action().takes_values());
    let options = options.filter_map(|option| {
        let value = option.get_value_names().and_then(|names| names.first());
        Some(format!("[--{} {}]", option.get_long()?, value?))
    });
    Some(positionals.chain(options).collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn the_definition_is_consistent() {
        definition().debug_assert();
    }

    #[test]
    fn commands_of_the_node_and_of_the_shell_are_read() {
        let parsed = parse(&words("get a --json")).unwrap().unwrap();
        assert!(matches!(
            parsed.command,
            ShellCommand::Client(ClientCommand::Get(_))
        ));
        assert!(parsed.print.json && !parsed.print.timing);
        let parsed = parse(&words("timing on")).unwrap().unwrap();
        assert!(matches!(
            parsed.command,
            ShellCommand::Timing {
                switch: Some(Switch::On)
            }
        ));
        assert!(matches!(
            parse(&words("exit")).unwrap().unwrap().command,
            ShellCommand::Quit
        ));
    }

    #[test]
    fn nonsense_is_refused_in_words() {
        for (line, refusal) in [
            ("gte a", "unrecognized subcommand 'gte'"),
            ("get", "required"),
            ("get a --connect x:1", "unexpected argument"),
            ("output pictures", "invalid value 'pictures'"),
        ] {
            let failure = parse(&words(line)).unwrap_err();
            assert!(failure.to_string().contains(refusal), "{failure}");
            assert!(!failure.to_string().contains("For more information"), "{failure}");
            assert_eq!(failure.exit_code(), 2);
        }
    }

    #[test]
    fn names_options_and_values_are_completed() {
        for (line, start, candidates) in [
            ("st", 0, &["stats", "status"][..]),
            ("help pu", 5, &["put"]),
            ("put a b --if-v", 8, &["--if-value", "--if-version"]),
            ("timing o", 7, &["off", "on"]),
            ("output ", 7, &["json", "table", "text"]),
            ("get a", 4, &[]),
            ("nonsense --", 9, &[]),
        ] {
            assert_eq!(complete(line), (start, words(&candidates.join(" "))), "{line}");
        }
        assert!(complete("").1.contains(&"help".to_owned()));
    }

    #[test]
    fn arguments_are_hinted_behind_a_name() {
        assert_eq!(hint("get ").as_deref(), Some("KEY"));
        assert_eq!(hint("mget ").as_deref(), Some("KEY ..."));
        assert_eq!(hint("add ").as_deref(), Some("KEY [DELTA] [--ttl TIME]"));
        assert_eq!(hint("mput ").as_deref(), Some("KEY VALUE ... [--ttl TIME]"));
        assert_eq!(hint("get a "), None);
        assert_eq!(hint("nonsense "), None);
    }

    #[test]
    fn files_are_named_to_imports_only() {
        assert!(wants_file("import dat"));
        assert!(wants_file("export "));
        assert!(!wants_file("import"));
        assert!(!wants_file("get x"));
    }
}
