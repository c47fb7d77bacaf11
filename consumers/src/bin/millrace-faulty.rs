//! `millrace` with faults on purpose, for `cargo xtask chaos`; never for production.

use std::process::ExitCode;

fn main() -> ExitCode {
    millrace_consumers::cli::main()
}
