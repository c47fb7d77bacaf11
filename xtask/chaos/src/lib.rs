//! The harness that the chaos cases and the end-to-end tests share: the running stack, the built programs, ways to reach
//! the parts that can be made to fail, and the judgement over what arrived. Links no product code.
//!
//! Whatever it cannot have is a panic, since all who use it are tests; a case that panics has failed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::missing_panics_doc,
    reason = "a harness of tests: it panics where a test fails, and says what it does"
)]

pub mod stack;
pub mod kafka;
pub mod topics;
pub mod staged;
pub mod config;
pub mod process;
pub mod parts;
pub mod prometheus;
pub mod proxy;
pub mod wire;
pub mod namespace;
pub mod hosts;
pub mod cluster;
pub mod generator;
pub mod world;
mod builds;
