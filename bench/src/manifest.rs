//! What a run of the generator sent, for the verifier to compare with what arrived.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::orders::Timeline;

/// Offsets by partition.
pub type Offsets = BTreeMap<i32, i64>;

/// What a run of the generator sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Order events.
    #[default]
    Orders,
    /// Payments.
    Payments,
}

impl Kind {
    /// The table that they land in, unless told otherwise.
    pub const fn table(self) -> &'static str {
        match self {
            Self::Orders => "orders",
            Self::Payments => "payments",
        }
    }
}

/// A run of the generator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Of what; a manifest that does not say is of orders.
    #[serde(default)]
    pub kind: Kind,
    /// Events 0..events of this seed were sent at least once.
    pub seed: u64,
    /// How many.
    pub events: u64,
    /// When they happened.
    #[serde(flatten)]
    pub timeline: Timeline,
    /// Topic of the events.
    pub topic: String,
    /// Topic of their dead letters.
    pub dead_letter_topic: String,
    /// Events that were sent once more.
    pub duplicates: u64,
    /// Times that the producer was closed and made anew.
    pub restarts: u64,
    /// Records that are no events.
    pub poison: Vec<Poison>,
    /// Acknowledged by the broker: events, duplicates and poison together.
    pub delivered: u64,
    /// First offset of each partition that this run may have written; what lies before is of an earlier run.
    pub begin_offsets: Offsets,
    /// One past the last offset.
    pub end_offsets: Offsets,
    /// How long sending took.
    pub seconds: f64,
    /// Processor time of the generator, all threads; null where the system does not tell.
    pub cpu_seconds: Option<f64>,
}

/// A record that is no event, and where it lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Poison {
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// What is wrong with it.
    pub kind: String,
    /// Reason code that its dead letter must carry; null where more than one may be right.
    pub reason: Option<String>,
    /// [`record_hash`] of its key and value.
    pub hash: String,
}

impl Manifest {
    /// Reads a manifest.
    pub fn read(file: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(file).with_context(|| format!("read the manifest {}", file.display()))?;
        serde_json::from_str(&text).with_context(|| format!("read the manifest {}", file.display()))
    }

    /// Writes it, whole or not at all.
    pub fn write(&self, file: &Path) -> Result<()> {
        let unfinished = file.with_extension("unfinished");
        let text = serde_json::to_string(self).context("write the manifest")?;
        std::fs::write(&unfinished, text)
            .and_then(|()| std::fs::rename(&unfinished, file))
            .with_context(|| format!("write the manifest {}", file.display()))
    }
}

/// Tells whether key and value of a record are untouched (FNV-1a, 64 bits, over the length of the key, key and value).
pub fn record_hash(key: &[u8], value: &[u8]) -> String {
    let length = (key.len() as u64).to_be_bytes();
    let hash = [length.as_slice(), key, value]
        .into_iter()
        .flatten()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}
