//! `EventPublisher` and `millrace-publish` against a real broker and a real registry. Run by `cargo xtask test`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod stack;

mod command_line;
mod delivery;
mod limits;
mod registry;
mod secured;
