//! `millrace-window`: measures the deduplication index, without Kafka and ClickHouse. A program of its own, for it must
//! have the allocator that `millrace` has: `millrace-bench` has another.

#![allow(clippy::print_stdout, reason = "a command line talks to its user")]

use anyhow::Result;
use clap::Parser;

/// Measures the deduplication index, without Kafka and ClickHouse; one line of JSON.
#[derive(Parser)]
#[command(name = "millrace-window", version)]
struct Cli {
    /// Ids in the index
    #[arg(long, default_value_t = 1_000_000)]
    ids: usize,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    println!("{}", serde_json::to_string(&millrace_bench::window::measure(cli.ids))?);
    Ok(())
}
