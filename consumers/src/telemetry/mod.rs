//! Log lines and metrics: how they are set up, and the names of all metrics. It measures nothing itself but the process.

pub mod logs;
pub mod metrics;
mod process;
