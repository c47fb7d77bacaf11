//! Log lines and traces, the same way in every program of Millrace. It decides nothing about events, and installs nothing
//! unless told to.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod limiter;
pub mod lines;
mod otlp;
pub mod traces;
