//! `millrace dead list`: a line for each letter that is meant, up to a limit, and how many there are for each reason. Pure.

use std::{collections::BTreeMap, fmt};

use serde_json::{Value, json};

use super::letter::Letter;
use crate::{one_line, time::format_time};

/// What stands for the reason of a record that Millrace has not written.
const FOREIGN: &str = "not written by millrace";

/// The letters of one topic that were meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List {
    /// Kafka topic of the events.
    pub topic: String,
    /// Topic of their dead letters.
    pub dead_letter_topic: String,
    limit: usize,
    lines: Vec<Letter>,
    count: u64,
    reasons: BTreeMap<String, u64>,
    /// When the first and the last were written.
    written_ms: Option<(i64, i64)>,
}

impl List {
    /// A list that keeps the first `limit` letters.
    pub fn new(topic: &str, dead_letter_topic: &str, limit: usize) -> Self {
        let (topic, dead_letter_topic) = (topic.to_owned(), dead_letter_topic.to_owned());
        Self { topic, dead_letter_topic, limit, ..Self::default() }
    }

    /// Takes a letter in.
    pub fn add(&mut self, letter: Letter) {
        self.count += 1;
        let reason = if letter.source.is_some() { letter.reason.clone() } else { FOREIGN.to_owned() };
        *self.reasons.entry(reason).or_default() += 1;
        let at = letter.written_ms;
        let (first, last) = self.written_ms.unwrap_or((at, at));
        self.written_ms = Some((first.min(at), last.max(at)));
        if self.lines.len() < self.limit {
            // Only its size is told.
            self.lines.push(Letter { key: None, headers: Vec::new(), ..letter });
        }
    }

    /// An object for each letter, each in a line, and one with the sums:
    ///
    /// ```text
    /// {"dead_letter":{"topic","partition","offset"}, "written":time, "source":{"topic","partition","offset"}|null,
    ///  "reason", "error", "schema_id":n|null, "version", "bytes":n|null}
    /// {"topic", "dead_letter_topic", "count":n, "listed":n, "reasons":{code:n}, "first_written":time|null, "last_written":time|null}
    /// ```
    pub fn to_json(&self) -> String {
        let mut text = String::new();
        for letter in &self.lines {
            text.push_str(&format!("{}\n", line_json(&self.dead_letter_topic, letter)));
        }
        let summary = json!({
            "topic": self.topic,
            "dead_letter_topic": self.dead_letter_topic,
            "count": self.count,
            "listed": self.lines.len(),
            "reasons": self.reasons,
            "first_written": self.written_ms.map(|(first, _)| format_time(first)),
            "last_written": self.written_ms.map(|(_, last)| format_time(last)),
        });
        text.push_str(&format!("{summary}\n"));
        text
    }
}

fn line_json(dead_letter_topic: &str, letter: &Letter) -> Value {
    json!({
        "dead_letter": { "topic": dead_letter_topic, "partition": letter.partition, "offset": letter.offset },
        "written": format_time(letter.written_ms),
        "source": letter.source.as_ref().map(|source| {
            json!({ "topic": source.topic, "partition": source.partition, "offset": source.offset })
        }),
        "reason": letter.reason,
        "error": letter.error,
        "schema_id": letter.schema_id,
        "version": letter.version,
        "bytes": letter.value.as_ref().map(Vec::len),
    })
}

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for letter in &self.lines {
            let Letter { partition, offset, reason, error, schema_id, .. } = letter;
            write!(f, "{}[{partition}]@{offset}  {}  ", self.dead_letter_topic, format_time(letter.written_ms))?;
            match &letter.source {
                Some(source) => write!(f, "{source}  {reason}")?,
                None => write!(f, "{FOREIGN}")?,
            }
            let schema = schema_id.map_or_else(|| "no schema".to_owned(), |id| format!("schema {id}"));
            let bytes =
                letter.value.as_ref().map_or_else(|| "no value".to_owned(), |value| format!("{} bytes", value.len()));
            let colon = if error.is_empty() { "" } else { ": " };
            writeln!(f, "  {schema}, {bytes}{colon}{}", one_line(error))?;
        }
        let more = self.count - self.lines.len() as u64;
        if more > 0 {
            writeln!(
                f,
                "… and {more} more; see them with --limit, or fewer with --reason, --schema-id, --from or --to"
            )?;
        }
        let (name, letters) = (&self.topic, &self.dead_letter_topic);
        let Some((first, last)) = self.written_ms else {
            return writeln!(f, "{name}: no dead letter in {letters} is meant.");
        };
        writeln!(
            f,
            "{name}: {} in {letters}, written from {} to {}",
            self.count,
            format_time(first),
            format_time(last)
        )?;
        let mut reasons: Vec<(&String, &u64)> = self.reasons.iter().collect();
        reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        for (reason, count) in reasons {
            writeln!(f, "  {count:>10}  {reason}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dead::letter::Place;

    fn letter(offset: i64, reason: &str) -> Letter {
        Letter {
            partition: 1,
            offset,
            written_ms: offset * 1_000,
            source: Some(Place { topic: "orders".into(), partition: 3, offset: 100 + offset }),
            reason: reason.into(),
            error: "breaks\nat byte 1".into(),
            schema_id: (reason == "truncated").then_some(7),
            value: Some(vec![0; 9]),
            ..Letter::default()
        }
    }

    fn list() -> List {
        let mut list = List::new("orders", "orders.dead", 2);
        for (offset, reason) in [(0, "bad_magic"), (1, "truncated"), (2, "truncated"), (3, "truncated")] {
            list.add(letter(offset, reason));
        }
        list.add(Letter::default());
        list
    }

    #[test]
    fn letters_are_listed_up_to_the_limit_and_counted_beyond() {
        let expected = "\
orders.dead[1]@0  1970-01-01T00:00:00.000Z  orders[3]@100  bad_magic  no schema, 9 bytes: breaks at byte 1
orders.dead[1]@1  1970-01-01T00:00:01.000Z  orders[3]@101  truncated  schema 7, 9 bytes: breaks at byte 1
… and 3 more; see them with --limit, or fewer with --reason, --schema-id, --from or --to
orders: 5 in orders.dead, written from 1970-01-01T00:00:00.000Z to 1970-01-01T00:00:03.000Z
           3  truncated
           1  bad_magic
           1  not written by millrace
";
        assert_eq!(list().to_string(), expected);
        assert_eq!(
            List::new("orders", "orders.dead", 2).to_string(),
            "orders: no dead letter in orders.dead is meant.\n"
        );
    }

    #[test]
    fn a_line_of_json_is_an_object_and_the_last_has_the_sums() {
        let text = list().to_json();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[1]["source"], json!({ "topic": "orders", "partition": 3, "offset": 101 }));
        assert_eq!((&lines[0]["schema_id"], &lines[1]["schema_id"]), (&Value::Null, &json!(7)));
        assert_eq!(lines[2]["reasons"]["truncated"], 3);
        assert_eq!((&lines[2]["count"], &lines[2]["listed"]), (&json!(5), &json!(2)));
    }
}
