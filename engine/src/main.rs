//! The program `ostrakon`: everything it does is in the library, starting at [`ostrakon::process::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    ostrakon::process::cli::run()
}
