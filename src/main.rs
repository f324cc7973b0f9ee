//! The program `freshet`: start and exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    freshet::cli::main()
}
