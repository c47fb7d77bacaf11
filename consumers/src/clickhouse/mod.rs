//! ClickHouse: its client, its errors by code, and what a table looks like.

pub mod client;
pub mod errors;
pub mod table;
