//! Hostile bytes for whatever reads bytes of others. Each target is a plain function that panics when a promise is broken:
//! `cargo xtask fuzz` lets libFuzzer drive it with an eye on coverage, and a plain test (`tests/driver.rs`) with changes
//! from a seed. Both begin with the inputs in `corpus/`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a harness of tests: what panics is what is looked for"
)]

mod config;
mod decode;
mod registry;

use millrace_pipeline::{
    reason::Reason,
    wire::{self, HEADER_LEN},
};

pub use self::{config::config, decode::decode, registry::registry};

/// What is given bytes.
pub type Target = fn(&[u8]);

/// Every target, by the name of its folder in `corpus/`.
pub const TARGETS: [(&str, Target); 4] =
    [("header", header), ("decode", decode), ("registry", registry), ("config", config)];

/// The Confluent header: it is all there and taken off, or the reason is the right one.
pub fn header(data: &[u8]) {
    match wire::split(Some(data)) {
        Ok((id, datum)) => {
            let whole = [&[0][..], &id.to_be_bytes(), datum].concat();
            assert_eq!(whole, data);
        }
        Err(rejection) => {
            let expected = match data {
                [] => Reason::EmptyValue,
                [0, ..] => Reason::TruncatedHeader,
                _ => Reason::BadMagic,
            };
            assert_eq!(rejection.reason, expected);
            assert!(data.len() < HEADER_LEN || data[0] != 0);
        }
    }
}
