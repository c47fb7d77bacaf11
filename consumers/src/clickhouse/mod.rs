//! ClickHouse: its client, its errors by code, and what a table looks like.

pub mod claims;
pub mod client;
pub mod dead_letters;
pub mod errors;
#[cfg(test)]
pub(crate) mod fake;
pub mod insert;
pub mod rollups;
pub mod replicas;
pub mod replication;
pub mod shape;
pub mod table;
