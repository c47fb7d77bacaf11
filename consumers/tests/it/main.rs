//! Drives the built `millrace` against a running stack: `MILLRACE_STACK` names its stack.json.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod admin;
mod admin_tls;
mod attacks;
mod audit;
mod check;
mod clickhouse_faults;
mod cluster;
mod container;
mod dead_letters;
mod described;
mod disaster;
mod door;
mod drift;
mod fates;
mod issuer;
mod metrics;
mod migrate;
mod operators;
mod orders;
mod overlap;
mod payments;
mod protocol;
mod query;
mod references;
mod replay;
mod rollups;
mod secured;
mod second_clickhouse;
mod secrets;
mod sections;
mod shards;
mod small;
mod topic_life;
mod trace_event;
mod traces;
mod types;
mod watch;
mod world;
