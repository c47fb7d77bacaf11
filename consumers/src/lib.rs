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
pub mod cli;
pub mod http;
pub mod telemetry;

/// A random number in 0..1, for jitter.
fn random() -> f64 {
    const RANDOM_BITS: u128 = (1 << 53) - 1;
    (uuid::Uuid::new_v4().as_u128() & RANDOM_BITS) as f64 / RANDOM_BITS as f64
}
