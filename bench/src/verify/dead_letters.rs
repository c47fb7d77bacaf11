//! Dead letters against the unreadable records that were sent. Reading and judging are apart; judging is pure.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use millrace_schemas::golden::REASONS;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::{Offset, TopicPartitionList};

use super::SAMPLES;
use crate::manifest::{Manifest, Poison, record_hash};
use crate::setup::{plain_consumer, watermarks};
use crate::stack::Stack;

/// A record of the dead-letter topic.
#[derive(Clone, Debug, Default)]
pub struct DeadLetter {
    /// Headers as text.
    pub headers: HashMap<String, String>,
    /// [`record_hash`] of key and value.
    pub hash: String,
    /// Schema id in the header of the value, if it has a whole one.
    pub schema_id: Option<u32>,
    /// Where it lies in the dead-letter topic, for the samples.
    pub offset: i64,
}

/// Looks at each dead letter once.
#[derive(Debug)]
pub struct DeadLetterChecker<'m> {
    manifest: &'m Manifest,
    /// By source coordinates: the record, and whether its dead letter has come.
    expected: HashMap<(i32, i64), (&'m Poison, bool)>,
    counts: LetterCounts,
}

/// What the dead letters say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LetterCounts {
    /// Dead letters of this run.
    pub letters: u64,
    /// Unreadable records without one.
    pub missing: u64,
    /// Of readable records, or beyond the first.
    pub unexpected: u64,
    /// With other bytes, another reason, or unreadable headers.
    pub wrong: u64,
    /// The first few differences of each kind, in words.
    pub samples: Vec<String>,
}

impl<'m> DeadLetterChecker<'m> {
    /// A checker that has seen nothing yet.
    pub fn new(manifest: &'m Manifest) -> Self {
        let coordinates = |poison: &Poison| (poison.partition, poison.offset);
        Self {
            manifest,
            expected: manifest.poison.iter().map(|p| (coordinates(p), (p, false))).collect(),
            counts: LetterCounts::default(),
        }
    }

    /// Looks at a dead letter.
    pub fn check(&mut self, letter: &DeadLetter) {
        let header = |name: &str| letter.headers.get(name).map(String::as_str);
        let number = |name: &str| header(name).and_then(|text| text.parse::<i64>().ok());
        let topic = header("millrace.source.topic");
        if topic.is_some_and(|topic| topic != self.manifest.topic) {
            return;
        }
        let source = number("millrace.source.partition")
            .and_then(|p| i32::try_from(p).ok())
            .zip(number("millrace.source.offset"));
        let (Some(_), Some((partition, offset))) = (topic, source) else {
            self.counts.letters += 1;
            self.wrong(format!("dead letter {}: no source topic, partition and offset in its headers", letter.offset));
            return;
        };
        if self.manifest.begin_offsets.get(&partition).is_some_and(|&begin| offset < begin) {
            return;
        }
        self.counts.letters += 1;
        let place = format!("dead letter {} of partition {partition}, offset {offset}", letter.offset);
        let Some((poison, come)) = self.expected.get_mut(&(partition, offset)) else {
            let reason = header("millrace.reason").unwrap_or("none");
            return self.unexpected(format!("{place}: the record there is readable (reason given: {reason})"));
        };
        if std::mem::replace(come, true) {
            return self.unexpected(format!("{place}: there is one already"));
        }
        let reason = header("millrace.reason");
        let reason_is_right = match (&poison.reason, reason) {
            (Some(expected), Some(reason)) => reason == expected,
            (None, Some(reason)) => REASONS.contains(&reason),
            (_, None) => false,
        };
        let kind = &poison.kind;
        if letter.hash != poison.hash {
            self.wrong(format!("{place}, kind {kind}: key or value are not the original ones"));
        } else if !reason_is_right {
            let expected = poison.reason.as_deref().unwrap_or("one of the known reasons");
            let given = reason.unwrap_or("none");
            self.wrong(format!("{place}, kind {kind}: reason is {given}, should be {expected}"));
        } else if header("millrace.error").is_none_or(str::is_empty) {
            self.wrong(format!("{place}, kind {kind}: header millrace.error says nothing"));
        } else if number("millrace.source.timestamp_ms").is_none()
            || header("millrace.version").is_none_or(str::is_empty)
            || header("millrace.schema_id") != letter.schema_id.map(|id| id.to_string()).as_deref()
        {
            self.wrong(format!(
                "{place}, kind {kind}: a header of its timestamp, schema id or version is missing or wrong"
            ));
        }
    }

    /// Counts what is missing.
    pub fn finish(mut self) -> LetterCounts {
        let mut missing: Vec<_> = self.expected.values().filter(|(_, come)| !come).map(|(poison, _)| *poison).collect();
        missing.sort_by_key(|poison| (poison.partition, poison.offset));
        self.counts.missing = missing.len() as u64;
        self.counts.samples.extend(missing.iter().take(SAMPLES).map(|poison| {
            format!(
                "dead letter missing: partition {}, offset {}, kind {}",
                poison.partition, poison.offset, poison.kind
            )
        }));
        self.counts
    }

    fn wrong(&mut self, sample: String) {
        self.counts.wrong += 1;
        if self.counts.wrong <= SAMPLES as u64 {
            self.counts.samples.push(sample);
        }
    }

    fn unexpected(&mut self, sample: String) {
        self.counts.unexpected += 1;
        if self.counts.unexpected <= SAMPLES as u64 {
            self.counts.samples.push(sample);
        }
    }
}

/// Reads the whole dead-letter topic as it is now.
pub(super) fn read_all(stack: &Stack, topic: &str, mut each: impl FnMut(&DeadLetter)) -> Result<()> {
    let consumer: BaseConsumer = plain_consumer(stack)?;
    let (low, high) = watermarks(&consumer, topic)?;
    ensure!(!high.is_empty(), "topic {topic} is not there");
    let mut assignment = TopicPartitionList::new();
    let mut open = 0;
    for (&partition, &first) in &low {
        if high.get(&partition).is_some_and(|&end| first < end) {
            assignment.add_partition_offset(topic, partition, Offset::Offset(first))?;
            open += 1;
        }
    }
    consumer.assign(&assignment).context("read the dead letters")?;
    let mut last_news = Instant::now();
    while open > 0 {
        match consumer.poll(Duration::from_millis(200)) {
            // Offsets may have gaps, so only the broker knows that a partition ends.
            Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => open -= 1,
            Some(message) => {
                let message = message.with_context(|| format!("read topic {topic}"))?;
                let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
                each(&DeadLetter {
                    headers: headers
                        .map(|header| {
                            let text = String::from_utf8_lossy(header.value.unwrap_or_default());
                            (header.key.to_owned(), text.into_owned())
                        })
                        .collect(),
                    hash: record_hash(message.key().unwrap_or_default(), message.payload().unwrap_or_default()),
                    schema_id: schema_id(message.payload().unwrap_or_default()),
                    offset: message.offset(),
                });
            }
            None => {
                ensure!(last_news.elapsed() < Duration::from_secs(30), "topic {topic}: no answer from Kafka for 30 s");
                continue;
            }
        }
        last_news = Instant::now();
    }
    Ok(())
}

/// Of a value framed with the registry's five bytes.
fn schema_id(value: &[u8]) -> Option<u32> {
    match value {
        [0, a, b, c, d, ..] => Some(u32::from_be_bytes([*a, *b, *c, *d])),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Kind;
    use crate::orders::Timeline;
    use std::collections::BTreeMap;

    fn manifest() -> Manifest {
        let poison = |offset, reason: Option<&str>| Poison {
            partition: 0,
            offset,
            kind: "bad".into(),
            reason: reason.map(str::to_owned),
            hash: record_hash(b"key", b"value"),
        };
        Manifest {
            kind: Kind::Orders,
            seed: 1,
            events: 0,
            timeline: Timeline { start_ms: 0, spacing_us: 0 },
            topic: "orders".into(),
            dead_letter_topic: "orders.dead".into(),
            duplicates: 0,
            restarts: 0,
            poison: vec![poison(10, Some("truncated")), poison(11, None)],
            delivered: 2,
            begin_offsets: BTreeMap::from([(0, 5)]),
            end_offsets: BTreeMap::from([(0, 12)]),
            seconds: 0.0,
            cpu_seconds: None,
        }
    }

    fn letter(offset: i64, reason: &str, value: &[u8]) -> DeadLetter {
        let headers = [
            ("millrace.source.topic", "orders"),
            ("millrace.source.partition", "0"),
            ("millrace.source.offset", &offset.to_string()),
            ("millrace.reason", reason),
            ("millrace.error", "ends too early"),
            ("millrace.source.timestamp_ms", "1700000000000"),
            ("millrace.schema_id", "7"),
            ("millrace.version", "0.1.0"),
        ];
        DeadLetter {
            headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            hash: record_hash(b"key", value),
            schema_id: Some(7),
            offset: 0,
        }
    }

    /// (letters, missing, unexpected, wrong)
    fn counts(letters: &[DeadLetter]) -> (u64, u64, u64, u64) {
        let manifest = manifest();
        let mut checker = DeadLetterChecker::new(&manifest);
        letters.iter().for_each(|letter| checker.check(letter));
        let counts = checker.finish();
        assert_eq!(counts.samples.len() as u64, counts.missing + counts.unexpected + counts.wrong);
        (counts.letters, counts.missing, counts.unexpected, counts.wrong)
    }

    #[test]
    fn each_difference_is_counted_as_what_it_is() {
        let first = || letter(10, "truncated", b"value");
        let second = || letter(11, "bad_length", b"value");
        assert_eq!(counts(&[first(), second()]), (2, 0, 0, 0));
        assert_eq!(counts(&[first()]), (1, 1, 0, 0), "missing");
        assert_eq!(counts(&[first(), second(), first()]), (3, 0, 1, 0), "repeated");
        assert_eq!(counts(&[first(), second(), letter(9, "truncated", b"value")]), (3, 0, 1, 0), "readable");
        assert_eq!(counts(&[first(), second(), letter(4, "truncated", b"value")]), (2, 0, 0, 0), "earlier run");
        assert_eq!(counts(&[letter(10, "truncated", b"other"), second()]), (2, 0, 0, 1), "bytes");
        assert_eq!(counts(&[letter(10, "bad_utf8", b"value"), second()]), (2, 0, 0, 1), "reason");
        assert_eq!(counts(&[first(), letter(11, "because", b"value")]), (2, 0, 0, 1), "unknown reason");
        assert_eq!(counts(&[first(), second(), DeadLetter::default()]), (3, 0, 0, 1), "no headers");
        for name in ["millrace.source.timestamp_ms", "millrace.schema_id", "millrace.version"] {
            let mut lacking = second();
            lacking.headers.remove(name);
            assert_eq!(counts(&[first(), lacking]), (2, 0, 0, 1), "{name}");
        }
        assert_eq!(
            counts(&[first(), DeadLetter { schema_id: None, ..second() }]),
            (2, 0, 0, 1),
            "no schema to tell of"
        );
    }
}
