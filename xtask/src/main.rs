//! The developer's commands: `cargo xtask <command>`.
//!
//! Starts, drives and checks the real parts that Millrace talks to. Holds no product code, and links none.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool: what it prints is what it is for")]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod alerts;
mod bench;
mod cargo;
mod chaos;
mod clickhouse_serve;
mod dashboards;
mod demo;
mod fuzz;
mod fuzz_admin;
mod instructions;
mod interrupt;
mod k8s;
mod page;
mod reproducible;
mod sbom;
mod stack;
mod test;
mod upgrade;

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
    Upgrade(upgrade::Args),
    Instructions(instructions::Args),
    Bench(bench::Args),
    Fuzz(fuzz::Args),
    FuzzAdmin(fuzz_admin::Args),
    Dashboards(dashboards::Args),
    K8s(k8s::Args),
    Page(page::Args),
    Reproducible(reproducible::Args),
    Sbom(sbom::Args),
    /// Formatting, clippy and documentation as CI wants them
    Lint,
    /// Serve ClickHouse from libchdb, and restart it when it dies
    #[command(hide = true)]
    ClickhouseServe(clickhouse_serve::Args),
    /// The process under `clickhouse-serve` that holds libchdb
    #[command(hide = true)]
    ClickhouseChild(clickhouse_serve::Args),
    /// Prepare a cluster for hosts of its own, and print how its parts are started
    #[command(hide = true)]
    Cluster(stack::cluster::Args),
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
        Command::Upgrade(args) => upgrade::run(&args),
        Command::Instructions(args) => instructions::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::FuzzAdmin(args) => fuzz_admin::run(&args),
        Command::Dashboards(args) => dashboards::run(&args),
        Command::K8s(args) => k8s::run(&args),
        Command::Page(args) => page::run(&args),
        Command::Reproducible(args) => reproducible::run(&args),
        Command::Sbom(args) => sbom::run(&args),
        Command::Lint => test::lint(),
        Command::ClickhouseServe(args) => clickhouse_serve::supervise(&args),
        Command::ClickhouseChild(args) => clickhouse_serve::serve(&args),
        Command::Cluster(args) => stack::cluster::run(&args),
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
