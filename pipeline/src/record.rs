//! A Kafka record as the core sees it, and one that could not become a row.

use crate::reason::Rejection;

/// A borrowed Kafka record.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Partition it was read from.
    pub partition: i32,
    /// Its offset; offsets grow within a partition but may leave gaps.
    pub offset: i64,
    /// Kafka's timestamp in milliseconds since 1970; when the producer published it, unless the topic says otherwise.
    pub timestamp_ms: i64,
    /// The framed Avro datum; `None` for a tombstone.
    pub value: Option<&'a [u8]>,
}

/// A record on its way to the dead-letter topic: everything the original had, and why.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// Source partition.
    pub partition: i32,
    /// Source offset.
    pub offset: i64,
    /// Source timestamp in milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Original key.
    pub key: Option<Vec<u8>>,
    /// Original value.
    pub value: Option<Vec<u8>>,
    /// Original headers, in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Why it is no row.
    pub rejection: Rejection,
}

impl DeadLetter {
    /// Bytes of the original: key, value and headers.
    pub fn bytes(&self) -> usize {
        let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + length(value)).sum();
        length(&self.key) + length(&self.value) + headers
    }
}
