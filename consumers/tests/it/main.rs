//! Drives the built `millrace` against a running stack: `MILLRACE_STACK` names its stack.json.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod audit;
mod check;
mod clickhouse_faults;
mod migrate;
mod operators;
mod protocol;
mod small;
mod topic_life;
mod world;
