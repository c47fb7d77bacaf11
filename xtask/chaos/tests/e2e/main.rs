//! End to end: the built programs `millrace` and `millrace-bench` against a running stack, and what is in ClickHouse and
//! Kafka afterwards. Links no product code.
//!
//! `MILLRACE_STACK` names the stack's stack.json. Each test has topics, a database and a consumer group of its own, so
//! tests can be repeated on a stack that runs. `MILLRACE_SEED` replays a run; the seed is printed by each test.
//! `MILLRACE_BIN` is the folder of the programs, by default the one that this test was built into.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test may panic, and says what it does"
)]

mod alerts;
mod delivery;
mod duplicates;
mod registry_faults;
mod refusals;
