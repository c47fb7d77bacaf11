//! Log lines, metrics and traces: how they are set up, and the names of all metrics. It measures nothing itself but the process.

pub mod catalogue;
pub mod logs;
pub mod metrics;
mod process;
pub mod readings;
pub mod recent;
pub mod series;
pub mod spans;
pub mod stages;
pub mod traces;
