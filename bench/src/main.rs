//! The `ostrakon-bench` binary: parses the command line, runs one benchmark, prints its report.

use std::process::ExitCode;

use clap::Parser;
use ostrakon_bench::cli::Arguments;
use ostrakon_bench::machine;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    machine::catch_signals();
    match arguments.run() {
        Ok(printed) => {
            print!("{}", printed.text);
            if printed.has_failed {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            }
        }
        Err(sentence) => {
            eprintln!("ostrakon-bench: {sentence}");
            ExitCode::FAILURE
        }
    }
}
