//! The developer's commands: `cargo xtask <command>`.
//!
//! Starts, drives and checks the real parts that Millrace talks to. Holds no product code, and links none.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool: what it prints is what it is for")]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod bench;
mod cargo;
mod chaos;
mod clickhouse_serve;
mod demo;
mod instructions;
mod interrupt;
mod stack;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The developer's commands of Millrace.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Kafka, schema registry, ClickHouse and Prometheus on this machine, without Docker
    Stack(stack::cli::Args),
    Demo(demo::Args),
    Test(test::Args),
    Chaos(chaos::Args),
    Instructions(instructions::Args),
    Bench(bench::Args),
    /// Formatting, clippy and documentation as CI wants them
    Lint,
    /// Serve ClickHouse from libchdb, and restart it when it dies
    #[command(hide = true)]
    ClickhouseServe(clickhouse_serve::Args),
    /// The process under `clickhouse-serve` that holds libchdb
    #[command(hide = true)]
    ClickhouseChild(clickhouse_serve::Args),
    /// Become a part of the stack: own session, pid file, then exec
    #[command(hide = true)]
    PartExec(stack::process::ExecArgs),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Stack(args) => stack::cli::run(args),
        Command::Demo(args) => demo::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Chaos(args) => chaos::run(&args),
        Command::Instructions(args) => instructions::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Lint => test::lint(),
        Command::ClickhouseServe(args) => clickhouse_serve::supervise(&args),
        Command::ClickhouseChild(args) => clickhouse_serve::serve(&args),
        Command::PartExec(args) => stack::process::exec(&args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
