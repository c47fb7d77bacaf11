//! What became of an event, out of what is known of it. Pure.

use crate::{
    audit::{Place, Row},
    one_line,
};

/// What is known of an event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Where it lies, or lay, in its topic.
    pub place: Option<Place>,
    /// Where its partition stood before anything else was asked.
    pub partition: Option<Extent>,
    /// What lies there.
    pub record: Option<Record>,
    /// Rows with its id, or of its coordinates.
    pub rows: Vec<Row>,
    /// Its dead letters, in the order in which they were found.
    pub letters: Vec<Letter>,
}

/// Where a partition stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Oldest offset that Kafka has.
    pub oldest: i64,
    /// Offset that the group has committed.
    pub committed: Option<i64>,
    /// Offset of the next record to be written.
    pub next: i64,
}

/// A record of the topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Kafka timestamp in milliseconds since 1970, if it has one.
    pub timestamp_ms: Option<i64>,
    /// Writer-schema id, if the value has a whole header.
    pub schema_id: Option<u32>,
    /// The event's id, or why there is none to be known.
    pub id: Result<u128, Unread>,
    /// Header `traceparent`, if it is text.
    pub traceparent: Option<String>,
}

/// Why a record has no id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unread {
    /// It cannot be read, or not as this topic's section says: it is for the dead letters.
    Rejected(String),
    /// It is another section's, or ignored.
    PassedOver,
}

/// A dead letter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Letter {
    /// Where it lies in the dead-letter topic.
    pub place: Place,
    /// When it was written, in milliseconds since 1970; 0 if Kafka does not tell.
    pub written_ms: i64,
    /// Code of the reason.
    pub reason: String,
    /// What was expected and what was found.
    pub error: String,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is a row.
    Landed,
    /// It was dropped, since another event with its id is a row.
    Duplicate,
    /// It is a dead letter.
    DeadLetter,
    /// It waits to be read, or is on its way.
    Pending,
    /// It is none of this section's.
    PassedOver,
    /// There is no such event.
    NotThere,
    /// It was read, and is nowhere.
    Lost,
    /// It is more than one row.
    Doubled,
}

impl Verdict {
    /// The word for programs.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Landed => "landed",
            Self::Duplicate => "duplicate",
            Self::DeadLetter => "dead_letter",
            Self::Pending => "pending",
            Self::PassedOver => "passed_over",
            Self::NotThere => "not_there",
            Self::Lost => "lost",
            Self::Doubled => "doubled",
        }
    }

    /// Whether somebody has to look at it.
    pub const fn is_problem(self) -> bool {
        matches!(self, Self::Lost | Self::Doubled)
    }
}

impl Known {
    /// What became of it, and a sentence that says so. The committed offset was asked for before all else, so what lies
    /// below it is settled.
    pub fn verdict(&self) -> (Verdict, String) {
        let own = self.rows.iter().find(|row| Some(row.place) == self.place);
        if self.rows.len() > 1 {
            let places: Vec<String> = self.rows.iter().map(|row| at(row.place)).collect();
            let text = format!(
                "The table has {} rows of it, read at {}: run `millrace audit`.",
                places.len(),
                places.join("; ")
            );
            return (Verdict::Doubled, text);
        }
        if let Some(row) = own {
            return (Verdict::Landed, format!("It is a row of the table, read at {}.", at(row.place)));
        }
        if let Some(letter) = self.letters.last() {
            let again = match self.rows.first() {
                Some(_) => " A row of its id is in the table, too: it was replayed, or sent again.",
                None => "",
            };
            let text = format!("It was dead-lettered: {}, {}.{again}", letter.reason, one_line(&letter.error));
            return (Verdict::DeadLetter, text);
        }
        if let Some(row) = self.rows.first() {
            return self.elsewhere(row);
        }
        let (Some(place), Some(extent)) = (self.place, self.partition) else {
            return (Verdict::NotThere, "Neither the table nor the topic has an event of this id.".to_owned());
        };
        match &self.record {
            None => self.nothing_at(place, extent),
            Some(_) if extent.committed.is_none_or(|committed| place.offset >= committed) => {
                (Verdict::Pending, pending(place, extent))
            }
            Some(Record { id: Err(Unread::PassedOver), .. }) => {
                (Verdict::PassedOver, "It is of a type that another section is for, or that is ignored.".to_owned())
            }
            Some(Record { id: Err(Unread::Rejected(why)), .. }) => {
                let text = format!(
                    "It cannot be read ({}), was passed by, and has no dead letter any more: its retention may be over. Run `millrace audit`.",
                    one_line(why)
                );
                (Verdict::Lost, text)
            }
            Some(_) => {
                let text = "It was read and is neither in the table nor dead-lettered: unless the table's TTL or somebody has deleted it, it is lost. Run `millrace audit`; `millrace replay` lands it.";
                (Verdict::Lost, text.to_owned())
            }
        }
    }

    /// It has no row, but another event with its id has.
    fn elsewhere(&self, row: &Row) -> (Verdict, String) {
        let Some(place) = self.place.filter(|_| self.record.is_some()) else {
            return (Verdict::Landed, format!("It is a row of the table, read at {}.", at(row.place)));
        };
        let mut text =
            format!("It is a duplicate: the table has the event of the same id that was read at {}.", at(row.place));
        if place.partition != row.place.partition {
            text.push_str(
                " Equal ids in two partitions are not told apart for sure: the key must be a function of the event.",
            );
        }
        let committed = self.partition.and_then(|extent| extent.committed);
        if committed.is_none_or(|committed| place.offset >= committed) {
            text.push_str(" It is not committed yet; it is dropped when it is read.");
        }
        (Verdict::Duplicate, text)
    }

    /// Kafka has no record there, and nothing is known of one.
    fn nothing_at(&self, place: Place, extent: Extent) -> (Verdict, String) {
        let Extent { oldest, next, .. } = extent;
        let why = if place.offset >= next {
            format!("nothing was written there yet: the next record of the partition gets offset {next}")
        } else if place.offset < oldest {
            format!(
                "Kafka's retention has deleted all before offset {oldest}, and neither the table nor the dead letters know of it"
            )
        } else {
            "the offset was taken by an aborted transaction or by Kafka itself, or compaction has removed it".to_owned()
        };
        (Verdict::NotThere, format!("There is no event at {}: {why}.", at(place)))
    }
}

fn pending(place: Place, Extent { committed, .. }: Extent) -> String {
    match committed {
        Some(committed) => {
            let before = place.offset - committed;
            format!("It is pending: the group has committed offset {committed}, {before} before it. Is `millrace run` at work?")
        }
        None => "It is pending: the group has committed no offset of the partition. Is `millrace run` at work, and is kafka.group_id right?".to_owned(),
    }
}

fn at(Place { partition, offset }: Place) -> String {
    format!("partition {partition}, offset {offset}")
}

#[cfg(test)]
mod tests;
