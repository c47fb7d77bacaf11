//! ClickHouse: its client, its errors by code, and what a table looks like.

pub mod claims;
pub mod client;
pub mod errors;
pub mod insert;
pub mod table;
