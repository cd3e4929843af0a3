//! The command `loadgen`: reads the command line, runs, and turns the outcome into an exit code.

use std::process::ExitCode;

use clap::Parser;
use loadgen::cli::Arguments;
use loadgen::kernel;
use loadgen::report::Outcome;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // A closed standard output leaves nobody to tell.
            let _unread = error.print();
            return if error.use_stderr() {
                Outcome::Failed.exit_code()
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let configuration = kernel::allowed_cpus().and_then(|allowed| arguments.into_configuration(&allowed));
    match configuration.and_then(|configuration| loadgen::run::run(&configuration)) {
        Ok(outcome) => outcome.exit_code(),
        Err(sentence) => {
            eprintln!("loadgen: {sentence}");
            Outcome::Failed.exit_code()
        }
    }
}
