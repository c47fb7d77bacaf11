//! A dead letter as it lies in its topic: the original, and what Millrace says of it. Pure.

use std::fmt;

use rdkafka::{Message, message::Headers};

use crate::kafka::dead_letters::header;

/// A record of a dead-letter topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Letter {
    /// Partition of the dead-letter topic.
    pub partition: i32,
    /// Offset in it.
    pub offset: i64,
    /// When it was written, in milliseconds since 1970; 0 if Kafka does not tell.
    pub written_ms: i64,
    /// Where it came from; `None` if Millrace has not written it.
    pub source: Option<Place>,
    /// Kafka timestamp of the original in milliseconds since 1970.
    pub source_timestamp_ms: Option<i64>,
    /// Code of the reason.
    pub reason: String,
    /// What was expected and what was found.
    pub error: String,
    /// Writer-schema id, if the value has a whole header.
    pub schema_id: Option<u32>,
    /// Version of Millrace that wrote it.
    pub version: String,
    /// Original key.
    pub key: Option<Vec<u8>>,
    /// Original value.
    pub value: Option<Vec<u8>>,
    /// Original headers, in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// Where a record lies.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// Kafka topic.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]@{}", self.topic, self.partition, self.offset)
    }
}

impl Letter {
    /// Reads a record. Headers before the last `millrace.source.topic` are the original's, even if an earlier life as a
    /// dead letter has left its own among them.
    pub fn of<M: Message>(message: &M) -> Self {
        let mut headers: Vec<(String, Option<Vec<u8>>)> = message.headers().map_or_else(Vec::new, |headers| {
            headers.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
        });
        let original = headers.iter().rposition(|(name, _)| name == header::SOURCE_TOPIC).unwrap_or(headers.len());
        let ours = headers.split_off(original);
        let text = |name: &str| {
            let (_, value) = ours.iter().find(|(key, _)| key == name)?;
            String::from_utf8(value.clone()?).ok()
        };
        let source = || {
            Some(Place {
                topic: text(header::SOURCE_TOPIC)?,
                partition: text(header::SOURCE_PARTITION)?.parse().ok()?,
                offset: text(header::SOURCE_OFFSET)?.parse().ok()?,
            })
        };
        Self {
            partition: message.partition(),
            offset: message.offset(),
            written_ms: message.timestamp().to_millis().unwrap_or(0),
            source: source(),
            source_timestamp_ms: text(header::SOURCE_TIMESTAMP_MS).and_then(|text| text.parse().ok()),
            reason: text(header::REASON).unwrap_or_default(),
            error: text(header::ERROR).unwrap_or_default(),
            schema_id: text(header::SCHEMA_ID).and_then(|text| text.parse().ok()),
            version: text(header::VERSION).unwrap_or_default(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers,
        }
    }

    /// A record of the source topic itself, of which nothing has been said yet.
    pub fn of_source<M: Message>(message: &M) -> Self {
        let place =
            Place { topic: message.topic().to_owned(), partition: message.partition(), offset: message.offset() };
        let headers = message.headers().map_or_else(Vec::new, |headers| {
            headers.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
        });
        Self {
            source: Some(place),
            source_timestamp_ms: message.timestamp().to_millis(),
            schema_id: millrace_pipeline::wire::split(message.payload()).ok().map(|(id, _)| id),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::{
        Timestamp,
        message::{Header, OwnedHeaders, OwnedMessage},
    };

    use super::*;

    fn message(headers: &[(&str, &str)]) -> OwnedMessage {
        let headers = headers
            .iter()
            .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(*value) }));
        let (key, value) = (Some(b"key".to_vec()), Some(b"value".to_vec()));
        OwnedMessage::new(value, key, "orders.dead".into(), Timestamp::CreateTime(7), 1, 15, Some(headers))
    }

    #[test]
    fn a_letter_tells_its_source_and_gives_the_original_headers_back() {
        let letter = Letter::of(&message(&[
            ("trace", "a"),
            (header::SOURCE_TOPIC, "earlier"),
            (header::REASON, "of an earlier life"),
            (header::SOURCE_TOPIC, "orders"),
            (header::SOURCE_PARTITION, "3"),
            (header::SOURCE_OFFSET, "1234"),
            (header::SOURCE_TIMESTAMP_MS, "-5"),
            (header::REASON, "truncated"),
            (header::ERROR, "breaks"),
            (header::SCHEMA_ID, "258"),
            (header::VERSION, "1.2.3"),
        ]));
        let source = Place { topic: "orders".into(), partition: 3, offset: 1234 };
        assert_eq!(source.to_string(), "orders[3]@1234");
        assert_eq!((letter.source, letter.source_timestamp_ms), (Some(source), Some(-5)));
        assert_eq!(
            (letter.reason.as_str(), letter.error.as_str(), letter.version.as_str()),
            ("truncated", "breaks", "1.2.3")
        );
        assert_eq!((letter.schema_id, letter.written_ms, letter.partition, letter.offset), (Some(258), 7, 1, 15));
        assert_eq!(letter.headers.len(), 3, "those of an earlier life are the original's");
        assert_eq!((letter.key, letter.value), (Some(b"key".to_vec()), Some(b"value".to_vec())));
    }

    #[test]
    fn a_record_that_somebody_else_wrote_has_no_source() {
        for headers in [&[][..], &[("trace", "a")], &[(header::SOURCE_TOPIC, "orders"), (header::SOURCE_OFFSET, "x")]] {
            let letter = Letter::of(&message(headers));
            assert_eq!((letter.source, letter.reason.as_str()), (None, ""), "{headers:?}");
        }
    }
}
