//! Why an event cannot be read: the closed list of dead-letter reasons.

use std::fmt;

/// Why an event went to the dead-letter topic.
///
/// The codes are part of the contract with whoever reads `millrace.reason`: never renamed, only added to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The record has no value (a tombstone) or an empty one.
    EmptyValue,
    /// The first byte is not the Confluent magic 0x00.
    BadMagic,
    /// Fewer than the five bytes of the Confluent header.
    TruncatedHeader,
    /// The registry answers that it has no schema of this id.
    UnknownSchemaId,
    /// The datum ends in the middle of a value.
    Truncated,
    /// Bytes are left after the datum.
    TrailingBytes,
    /// A length or count is negative, or larger than the bytes that are left.
    BadLength,
    /// A string is not UTF-8.
    BadUtf8,
    /// An enum index names no symbol of the writer's schema.
    BadEnumIndex,
    /// A union index names no branch of the writer's schema.
    BadUnionIndex,
    /// A value of logical type `uuid` is no UUID.
    BadUuid,
    /// A boolean byte is neither 0 nor 1.
    BadBoolean,
    /// A variable-length integer does not fit its type.
    BadVarint,
    /// A decimal, date or timestamp lies beyond what the column's type can hold.
    OutOfRange,
    /// The record, or something in it, is larger than a configured limit.
    TooLarge,
    /// The writer's schema cannot be resolved to the reader's for this datum.
    Unreadable,
    /// A lookup with policy `dead_letter` found nothing.
    LookupMissed,
    /// No section of the topic is for records of this type.
    UnexpectedRecord,
}

impl Reason {
    /// Every reason, in the order of the documentation.
    pub const ALL: [Self; 18] = [
        Self::EmptyValue,
        Self::BadMagic,
        Self::TruncatedHeader,
        Self::UnknownSchemaId,
        Self::Truncated,
        Self::TrailingBytes,
        Self::BadLength,
        Self::BadUtf8,
        Self::BadEnumIndex,
        Self::BadUnionIndex,
        Self::BadUuid,
        Self::BadBoolean,
        Self::BadVarint,
        Self::OutOfRange,
        Self::TooLarge,
        Self::Unreadable,
        Self::LookupMissed,
        Self::UnexpectedRecord,
    ];

    /// The code in the `millrace.reason` header and the `reason` label of metrics.
    pub const fn code(self) -> &'static str {
        match self {
            Self::EmptyValue => "empty_value",
            Self::BadMagic => "bad_magic",
            Self::TruncatedHeader => "truncated_header",
            Self::UnknownSchemaId => "unknown_schema_id",
            Self::Truncated => "truncated",
            Self::TrailingBytes => "trailing_bytes",
            Self::BadLength => "bad_length",
            Self::BadUtf8 => "bad_utf8",
            Self::BadEnumIndex => "bad_enum_index",
            Self::BadUnionIndex => "bad_union_index",
            Self::BadUuid => "bad_uuid",
            Self::BadBoolean => "bad_boolean",
            Self::BadVarint => "bad_varint",
            Self::OutOfRange => "out_of_range",
            Self::TooLarge => "too_large",
            Self::Unreadable => "unreadable",
            Self::LookupMissed => "lookup_missed",
            Self::UnexpectedRecord => "unexpected_record",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// Longest explanation in bytes: schemas name their types as they like, and headers count toward the size of a dead letter.
const DETAIL_BYTES: usize = 1000;

/// An event that cannot become a row, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct Rejection {
    /// The code.
    pub reason: Reason,
    /// What was expected and what was found, for a person; never holds the event's own values.
    pub detail: String,
}

impl Rejection {
    /// A rejection with its explanation, which is cut off after 1,000 bytes.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        let mut detail = detail.into();
        if detail.len() > DETAIL_BYTES {
            detail.truncate(detail.floor_char_boundary(DETAIL_BYTES));
            detail.push('…');
        }
        Self { reason, detail }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explanation_is_short_whatever_a_schema_calls_its_types() {
        let rejection = Rejection::new(Reason::Unreadable, "é".repeat(600));
        assert_eq!(rejection.detail, "é".repeat(500) + "…");
        assert_eq!(Rejection::new(Reason::Unreadable, "x".repeat(1000)).detail.len(), 1000);
    }
}
