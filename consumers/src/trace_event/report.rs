//! What is known of an event, for people and for programs. Pure.

use std::fmt;

use serde_json::{Value, json};

use super::{Known, Letter, Place, Record, Unread, Verdict, Wanted};
use crate::{
    config::{Config, Topic},
    one_line,
    time::format_time,
};

/// The way of one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Kafka topic of the event.
    pub topic: String,
    /// ClickHouse table, with its database.
    pub table: String,
    /// Topic of the dead letters.
    pub dead_letter_topic: String,
    /// The id that was asked for.
    pub wanted_id: Option<u128>,
    /// What was found.
    pub known: Known,
    /// Records with the id that was asked for, if the topic had to be looked through.
    pub same_id: Vec<Place>,
}

impl Report {
    pub(super) fn new(config: &Config, topic: &Topic, wanted: Wanted, known: Known, same_id: Vec<Place>) -> Self {
        Self {
            topic: topic.spec.topic.clone(),
            table: format!("{}.{}", config.clickhouse.database, topic.table),
            dead_letter_topic: topic.dead_letter_topic.clone(),
            wanted_id: match wanted {
                Wanted::Id(id) => Some(id),
                Wanted::At(_) => None,
            },
            known,
            same_id,
        }
    }

    /// What became of it, and a sentence that says so.
    pub fn verdict(&self) -> (Verdict, String) {
        self.known.verdict()
    }

    /// One object:
    ///
    /// ```text
    /// {"verdict", "why", "topic", "table", "place":{"partition","offset"}|null, "id":uuid|null,
    ///  "offsets":{"oldest","committed":n|null,"next"}|null,
    ///  "record":{"timestamp":time|null,"schema_id":n|null,"unreadable":text|null,"traceparent":text|null}|null,
    ///  "rows":[{"partition","offset","ingested_at":time}], "dead_letters":[{"partition","offset","written":time|null,"reason","error"}],
    ///  "same_id":[{"partition","offset"}]}
    /// ```
    ///
    /// `verdict` is landed, duplicate, dead_letter, pending, passed_over, not_there, lost or doubled.
    pub fn to_json(&self) -> String {
        let (verdict, why) = self.verdict();
        let Known { place, partition, record, rows, letters } = &self.known;
        let of_record = |record: &Record| {
            json!({
                "timestamp": record.timestamp_ms.map(format_time),
                "schema_id": record.schema_id,
                "unreadable": unreadable(record),
                "traceparent": record.traceparent,
            })
        };
        let of_letter = |letter: &Letter| {
            json!({
                "partition": letter.place.partition,
                "offset": letter.place.offset,
                "written": (letter.written_ms != 0).then(|| format_time(letter.written_ms)),
                "reason": letter.reason,
                "error": letter.error,
            })
        };
        json!({
            "verdict": verdict.code(),
            "why": why,
            "topic": self.topic,
            "table": self.table,
            "place": place,
            "id": self.id().map(uuid),
            "offsets": partition.map(|extent| {
                json!({ "oldest": extent.oldest, "committed": extent.committed, "next": extent.next })
            }),
            "record": record.as_ref().map(of_record),
            "rows": rows.iter().map(|row| json!({
                "partition": row.place.partition,
                "offset": row.place.offset,
                "ingested_at": format_time(row.ingested_at_ms),
            })).collect::<Vec<Value>>(),
            "dead_letters": letters.iter().map(of_letter).collect::<Vec<Value>>(),
            "same_id": self.same_id,
        })
        .to_string()
    }

    fn id(&self) -> Option<u128> {
        let read = self.known.record.as_ref().and_then(|record| record.id.as_ref().ok().copied());
        self.wanted_id.or(read)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Known { place, partition, record, rows, letters } = &self.known;
        match place {
            Some(Place { partition, offset }) => writeln!(f, "{}[{partition}]@{offset}", self.topic)?,
            None => writeln!(f, "{}", self.topic)?,
        }
        let mut line = |name: &str, text: &str| writeln!(f, "  {name:<11} {}", one_line(text));
        if let Some(id) = self.id() {
            line("id", &uuid(id))?;
        }
        if let Some(record) = record {
            line(
                "published",
                &record.timestamp_ms.map_or_else(|| "at a time that Kafka does not tell".to_owned(), format_time),
            )?;
            line("schema", &record.schema_id.map_or_else(|| "none".to_owned(), |id| id.to_string()))?;
            if let Some(why) = unreadable(record) {
                line("unreadable", &why)?;
            }
            line("trace", record.traceparent.as_deref().unwrap_or("none: it was sent without a traceparent"))?;
        }
        if let Some(extent) = partition {
            let committed = extent.committed.map_or_else(|| "none".to_owned(), |committed| committed.to_string());
            line("committed", &format!("{committed}, of offsets {} to {}", extent.oldest, extent.next - 1))?;
        }
        for row in rows {
            let Place { partition, offset } = row.place;
            line(
                "row",
                &format!("{} of {partition}@{offset}, inserted {}", self.table, format_time(row.ingested_at_ms)),
            )?;
        }
        for letter in letters {
            let Place { partition, offset } = letter.place;
            let written = if letter.written_ms == 0 {
                String::new()
            } else {
                format!(", written {}", format_time(letter.written_ms))
            };
            line(
                "dead letter",
                &format!("{}[{partition}]@{offset}{written}: {}", self.dead_letter_topic, letter.reason),
            )?;
        }
        for Place { partition, offset } in self.same_id.iter().skip(1) {
            line("again", &format!("{}[{partition}]@{offset}", self.topic))?;
        }
        writeln!(f, "{}", self.verdict().1)
    }
}

fn unreadable(record: &Record) -> Option<String> {
    match &record.id {
        Err(Unread::Rejected(why)) => Some(why.clone()),
        Err(Unread::PassedOver) | Ok(_) => None,
    }
}

fn uuid(id: u128) -> String {
    uuid::Uuid::from_u128(id).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{audit::Row, trace_event::Extent};

    #[test]
    fn a_report_is_a_few_lines_and_ends_in_its_verdict() {
        let place = Place { partition: 3, offset: 1234 };
        let record = Record {
            timestamp_ms: Some(0),
            schema_id: Some(7),
            id: Ok(5),
            traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
        };
        let report = Report {
            topic: "orders".into(),
            table: "millrace.orders".into(),
            dead_letter_topic: "orders.dead".into(),
            wanted_id: None,
            known: Known {
                place: Some(place),
                partition: Some(Extent { oldest: 0, committed: Some(2000), next: 2001 }),
                record: Some(record),
                rows: vec![Row { place, ingested_at_ms: 1_000 }],
                letters: Vec::new(),
            },
            same_id: Vec::new(),
        };
        let expected = "\
orders[3]@1234
  id          00000000-0000-0000-0000-000000000005
  published   1970-01-01T00:00:00.000Z
  schema      7
  trace       00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
  committed   2000, of offsets 0 to 2000
  row         millrace.orders of 3@1234, inserted 1970-01-01T00:00:01.000Z
It is a row of the table, read at partition 3, offset 1234.
";
        assert_eq!(report.to_string(), expected);
        let json: Value = serde_json::from_str(&report.to_json()).unwrap();
        assert_eq!((&json["verdict"], &json["rows"][0]["offset"]), (&json!("landed"), &json!(1234)));
        assert_eq!(json["record"]["unreadable"], Value::Null);
    }
}
