//! The `millrace` binary; all of it is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    millrace_consumers::cli::main()
}
