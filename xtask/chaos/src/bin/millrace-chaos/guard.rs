//! The parts of the protocol that a negative control leaves out.

use clap::ValueEnum;
use serde::Serialize;

/// A part of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Guard {
    /// Inserts look at the claims.
    Fence,
    /// An insert is sent again under its token.
    Token,
    /// Ids are read back at a take-over.
    Load,
    /// Ids are remembered.
    Dedup,
    /// Rollups are completed at a take-over.
    Rollups,
}

impl Guard {
    pub(crate) const ALL: [Self; 5] = [Self::Fence, Self::Token, Self::Load, Self::Dedup, Self::Rollups];

    /// Value of `MILLRACE_WITHOUT`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Fence => "fence",
            Self::Token => "token",
            Self::Load => "load",
            Self::Dedup => "dedup",
            Self::Rollups => "rollups",
        }
    }
}
