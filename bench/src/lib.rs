//! Load generator and verifier. Everything that is sent is a pure function of a seed and a number, so the verifier
//! recomputes what must be in the table instead of remembering it. It never uses the consumer's code; only the
//! benchmarks of single stages do.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]
#![allow(clippy::print_stderr, clippy::print_stdout, reason = "the runner of scenarios talks to who waits for it")]

pub mod random;
pub mod zipf;

pub mod identity;
pub mod lifecycle;
pub mod orders;
pub mod payments;
pub mod reference;

pub mod cost;
pub mod cpu;
mod events;
pub mod exposition;
pub mod generate;
pub mod manifest;
mod pacing;
mod poison;
pub mod replay;
mod second_version;
pub mod setup;
pub mod stack;
pub mod stages;
pub mod window;

pub mod verify;

pub mod panels;
pub mod report;
pub mod scaling;
pub mod scenario;
