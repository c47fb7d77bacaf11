//! Marks: by which a log is known again. An offset says nothing of the log it belongs to: a topic that is deleted and
//! made anew starts over at 0, librdkafka 2.12 goes on fetching at the old offset (`rd_kafka_topic_metadata_update2`,
//! "an offset reset must be triggered"), and what lies below is skipped without a word. So each commit carries the mark
//! of a record that was read before it; if the log holds another record there, it is another log.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use millrace_identity::Tokens;
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
};

use super::Telling;

/// First field of a mark in the metadata of a commit.
const FORM: &str = "millrace1";
const POLL: Duration = Duration::from_millis(100);

/// A record that was read: its offset, and what tells it from another at that offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Offset of the record.
    pub offset: i64,
    /// Kafka timestamp of the record, in milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Digest of its key and value.
    pub digest: u64,
}

/// What became of a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// The record is there: it is the same log.
    Same,
    /// Another record is there, or the log ends before it: it is another log, or has lost its end.
    Other,
    /// Retention or compaction has removed the record, so there is no telling.
    Gone,
}

impl Mark {
    /// The mark of a record.
    pub fn of(message: &impl Message) -> Self {
        Self {
            offset: message.offset(),
            timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
            digest: digest(&[message.key(), message.payload()]),
        }
    }

    /// What became of it in a log from `low` to `high` whose first record at or past the mark is `found`.
    pub fn seen(self, low: i64, high: i64, found: Option<Self>) -> Seen {
        match found {
            _ if self.offset >= high => Seen::Other,
            _ if self.offset < low => Seen::Gone,
            Some(found) if found.offset == self.offset => {
                if found == self {
                    Seen::Same
                } else {
                    Seen::Other
                }
            }
            _ => Seen::Gone,
        }
    }
}

/// As the metadata of a commit.
impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{FORM}:{}:{}:{:016x}", self.offset, self.timestamp_ms, self.digest)
    }
}

/// From the metadata of a commit; what others have written there is none.
impl FromStr for Mark {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut fields = text.split(':');
        let (Some(FORM), Some(offset), Some(timestamp_ms), Some(digest), None) =
            (fields.next(), fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return Err(());
        };
        Ok(Self {
            offset: offset.parse().map_err(|_| ())?,
            timestamp_ms: timestamp_ms.parse().map_err(|_| ())?,
            digest: u64::from_str_radix(digest, 16).map_err(|_| ())?,
        })
    }
}

/// The first record at or past each offset, `None` where there is none; reads as a consumer of its own that joins no
/// group. `client` is the configuration of the consumer that reads the topic.
///
/// # Errors
/// When Kafka does not answer within `timeout`.
pub(super) fn read_at(
    client: &ClientConfig,
    tokens: Option<&Arc<Tokens>>,
    topic: &str,
    offsets: &BTreeMap<i32, i64>,
    timeout: Duration,
) -> Result<BTreeMap<i32, Option<Mark>>> {
    let mut found = BTreeMap::new();
    if offsets.is_empty() {
        return Ok(found);
    }
    let until = Instant::now() + timeout;
    let mut client = client.clone();
    client
        .set("client.id", "millrace-mark")
        .set("enable.partition.eof", "true")
        .set("statistics.interval.ms", "0")
        // One record of each partition is wanted. A fetch must hold a batch of the producer whole: of one that is larger, a
        // broker returns nothing as long as other partitions have something.
        .set("queued.min.messages", "1")
        .set("fetch.wait.max.ms", "50");
    let consumer: BaseConsumer<Telling> = client
        .create_with_context(Telling { role: "mark", tokens: tokens.cloned() })
        .context("set the consumer of single records up")?;
    let mut list = TopicPartitionList::new();
    for (partition, offset) in offsets {
        list.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
    }
    consumer.assign(&list)?;
    let mut wanted: BTreeSet<i32> = offsets.keys().copied().collect();
    while !wanted.is_empty() {
        if Instant::now() >= until {
            bail!("no answer for records of partitions {wanted:?} within {timeout:?}");
        }
        match consumer.poll(POLL) {
            Some(Ok(message)) if wanted.remove(&message.partition()) => {
                // The others are waiting for their turn.
                let mut answered = TopicPartitionList::new();
                answered.add_partition(topic, message.partition());
                consumer.pause(&answered)?;
                found.insert(message.partition(), Some(Mark::of(&message)));
            }
            Some(Err(KafkaError::PartitionEOF(partition))) if wanted.remove(&partition) => {
                found.insert(partition, None);
            }
            // What can be mended librdkafka mends; what cannot ends in the timeout.
            Some(Err(error)) => tracing::debug!(%error, topic, "a single record was not read yet"),
            Some(Ok(_)) | None => {}
        }
    }
    Ok(found)
}

/// FNV-1a, 64 bits, <http://www.isthe.com/chongo/tech/comp/fnv/>; each part is preceded by its length.
fn digest(parts: &[Option<&[u8]>]) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut take = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    for part in parts {
        take(&part.map_or(-1, |part| part.len() as i64).to_le_bytes());
        take(part.unwrap_or_default());
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: Mark = Mark { offset: 41, timestamp_ms: 1_700_000_000_000, digest: 0xab };

    #[test]
    fn a_mark_comes_back_from_the_metadata_of_a_commit_and_nothing_else_is_taken_for_one() {
        assert_eq!(MARK.to_string(), "millrace1:41:1700000000000:00000000000000ab");
        assert_eq!(MARK.to_string().parse(), Ok(MARK));
        for other in ["", "millrace1", "millrace2:1:2:3", "millrace1:1:2:x", "millrace1:1:2:3:4", "by hand"] {
            assert_eq!(other.parse::<Mark>(), Err(()), "{other}");
        }
    }

    #[test]
    fn a_log_is_known_again_by_the_record_at_the_mark() {
        let other = Mark { digest: 0xac, ..MARK };
        let later = Mark { offset: 42, ..MARK };
        assert_eq!(MARK.seen(0, 50, Some(MARK)), Seen::Same);
        assert_eq!(MARK.seen(0, 50, Some(other)), Seen::Other);
        assert_eq!(MARK.seen(0, 41, None), Seen::Other, "the log ends before it");
        assert_eq!(MARK.seen(0, 50, Some(later)), Seen::Gone, "compacted");
        assert_eq!(MARK.seen(0, 50, None), Seen::Gone);
        assert_eq!(MARK.seen(42, 50, None), Seen::Gone, "retention has passed it");
    }

    #[test]
    fn the_digest_tells_where_key_and_value_end() {
        let parts: [[Option<&[u8]>; 2]; 4] =
            [[Some(b"ab"), Some(b"c")], [Some(b"a"), Some(b"bc")], [None, Some(b"abc")], [Some(b""), Some(b"abc")]];
        let digests: BTreeSet<u64> = parts.iter().map(|parts| digest(parts)).collect();
        assert_eq!(digests.len(), parts.len());
    }
}
