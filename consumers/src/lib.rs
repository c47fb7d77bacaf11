//! The talking part of Millrace: Kafka, the registry, ClickHouse, dead letters, HTTP and the `millrace` binary.
//! What to do with an event is decided in `millrace-pipeline`, never here.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod config;
mod faults;
pub mod kafka;
pub mod registry;
pub mod clickhouse;
pub mod takeover;
pub mod run;
pub mod check;
pub mod migrate;
pub mod audit;
pub mod dead;
pub mod trace_event;
pub mod bound;
pub mod replay;
pub mod query;
pub mod status;
pub mod top;
pub mod cli;
mod allocator;
pub mod build;
pub mod http;
pub mod admin;
pub mod retry;
pub mod telemetry;
mod sql;
#[cfg(test)]
mod compatibility;
#[cfg(test)]
mod tables;
mod time;
pub mod tls;

/// An error or another text without its line breaks, for a log line or a table.
fn one_line(text: impl std::fmt::Display) -> String {
    text.to_string().replace(['\n', '\r'], " ")
}

/// A random number in 0..1, for jitter.
fn random() -> f64 {
    const RANDOM_BITS: u128 = (1 << 53) - 1;
    (uuid::Uuid::new_v4().as_u128() & RANDOM_BITS) as f64 / RANDOM_BITS as f64
}
