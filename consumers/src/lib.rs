//! The talking part of Millrace: Kafka, the registry, ClickHouse, dead letters, HTTP and the `millrace` binary.
//! What to do with an event is decided in `millrace-pipeline`, never here.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod config;
pub mod clickhouse;
pub mod http;
pub mod telemetry;
