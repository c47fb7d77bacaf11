//! The deciding part of Millrace, pure: no tokio, no sockets, no clock, no environment.
//!
//! The modules stand in the order in which data flow. Each hop is a named type: [`record::Record`] is decoded into
//! [`decode::Decoded`] columns, deduplicated and enriched inside [`topic::TopicPipeline`], projected to rows and
//! gathered into a [`batch::Batch`], which [`encode`] makes the body of an insert. Between decode and insert everything
//! is an Arrow `RecordBatch`. Times are milliseconds that the caller brings; nothing here sleeps or talks.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod spec;

pub mod record;
pub mod wire;
pub mod route;
pub mod decode;
pub mod dedup;
pub mod reference;
pub mod enrich;
pub mod project;
pub mod dictionary;
pub mod batch;
pub mod encode;

pub mod assignment;
pub mod offsets;
pub mod shard;
pub mod replica;
pub mod retry;
pub mod share;
pub mod topic;

pub mod field;
pub mod reason;
