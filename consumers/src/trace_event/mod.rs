//! `millrace trace-event`: the way of one event, from its record to its row, its original or its dead letter. It writes
//! nothing, joins no group and commits nothing, so that it may run beside a live pipeline.
//!
//! An event named by its id is looked for in the table first. Only if it has no row is the topic read, from its oldest
//! record on, since Kafka finds nothing by what is in it.

mod report;
mod verdict;

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use arrow_array::{FixedSizeBinaryArray, cast::AsArray};
use millrace_pipeline::{
    field::Extract,
    record::Record as Raw,
    route::{Routed, RoutedDecoder},
    wire,
};
use rdkafka::{
    Message,
    message::{BorrowedMessage, Headers},
};
use tokio::runtime::Handle;

pub use self::{
    report::Report,
    verdict::{Extent, Known, Letter, Record, Unread, Verdict},
};
use crate::{
    audit::{Place, kafka::Reader, progress::Progress, table::Table},
    config::{Config, Topic},
    dead::letter,
    kafka::reference::record,
    registry::Registry,
};

/// Dead letters are looked for from so long before the event's own timestamp on: producers' clocks are not the broker's.
const CLOCKS_DIFFER_MS: i64 = 3_600_000;

/// Which event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The record at a place.
    At(Place),
    /// The event with an id.
    Id(u128),
}

/// Finds out what became of an event of a topic, waiting no longer than `timeout` for any answer. Blocks; not to be called
/// on a thread of `runtime`.
///
/// # Errors
/// A server cannot be reached, refuses or falls silent; there is no such partition.
pub(crate) fn trace(
    config: &Config,
    topic: &Topic,
    wanted: Wanted,
    timeout: Duration,
    progress: &Progress,
    runtime: &Handle,
) -> Result<Report> {
    // It writes nothing, so a signal may end it wherever it is.
    let never = Arc::new(AtomicBool::new(false));
    let reader = Reader::new(&topic.kafka(&config.kafka), "trace-event", timeout, never)?;
    let table = runtime.block_on(Table::open(&config.clickhouse, topic, timeout))?;
    let mut judge = runtime.block_on(Judge::open(config, topic, runtime.clone()))?;
    let name = &topic.spec.topic;
    let mut known = Known::default();
    // The committed offset first: what lies below it is settled by the time that anything else is asked.
    let positions = reader.positions(name)?;
    let mut same_id = Vec::new();
    known.place = match wanted {
        Wanted::At(place) => Some(place),
        Wanted::Id(id) => {
            let rows = runtime.block_on(table.rows_like(Some(id), None))?;
            match rows.first() {
                Some((_, row)) => Some(row.place),
                None => {
                    let ranges: Vec<_> =
                        positions.iter().map(|found| (found.partition, found.low, found.high)).collect();
                    let total = ranges.iter().map(|(_, low, high)| high.abs_diff(*low)).sum();
                    progress.begin(format!("{name}: no row of this id; looking through the topic"), Some(total));
                    same_id = judge.places_of(&reader, name, &ranges, id, progress)?;
                    same_id.first().copied()
                }
            }
        }
    };
    if let Some(place) = known.place {
        let there = positions.len();
        let position = positions.iter().find(|position| position.partition == place.partition);
        let Some(position) = position else {
            // The table may have rows of partitions that the topic had in an earlier life.
            if let Wanted::Id(_) = wanted {
                known.rows = look_up(&table, wanted, None, Some(place), runtime)?;
                return Ok(Report::new(config, topic, wanted, known, same_id));
            }
            bail!("topic {name} has {there} partitions, counted from 0; there is no partition {}", place.partition);
        };
        let (oldest, next) = (position.low, position.high);
        known.partition = Some(Extent { oldest, committed: position.committed, next });
        if (oldest..next).contains(&place.offset) {
            known.record = judge.record(&reader, name, place)?;
        }
    }
    let id = known.record.as_ref().and_then(|record| record.id.as_ref().ok().copied());
    known.rows = look_up(&table, wanted, id, known.place, runtime)?;
    if let (Some(place), Some(extent)) = (known.place, known.partition)
        && place.offset < extent.next
    {
        progress.begin(format!("dead letters of {}", topic.dead_letter_topic), None);
        let timestamp_ms = known.record.as_ref().and_then(|record| record.timestamp_ms);
        known.letters = letters(&reader, topic, place, timestamp_ms)?;
    }
    Ok(Report::new(config, topic, wanted, known, same_id))
}

/// Rows with the id, as it was asked for or read, or of the coordinates.
fn look_up(
    table: &Table,
    wanted: Wanted,
    read: Option<u128>,
    place: Option<Place>,
    runtime: &Handle,
) -> Result<Vec<crate::audit::Row>> {
    let id = match wanted {
        Wanted::Id(id) => Some(id),
        Wanted::At(_) => read,
    };
    let mut rows = runtime.block_on(table.rows_like(id, place))?;
    // A topic that was made anew has another event at the same coordinates.
    rows.retain(|(other, _)| id.is_none_or(|id| id == *other));
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

/// The dead letters of a record.
fn letters(reader: &Reader, topic: &Topic, place: Place, timestamp_ms: Option<i64>) -> Result<Vec<Letter>> {
    let (events, letters) = (&topic.spec.topic, &topic.dead_letter_topic);
    let mut ranges = reader.extents(letters)?;
    if let Some(timestamp_ms) = timestamp_ms {
        let partitions: Vec<i32> = ranges.iter().map(|(partition, ..)| *partition).collect();
        let since = reader.offsets_at(letters, &partitions, timestamp_ms.saturating_sub(CLOCKS_DIFFER_MS).max(0))?;
        for (partition, low, high) in &mut ranges {
            *low = since.get(partition).copied().unwrap_or(*high);
        }
    }
    let mut found = Vec::new();
    reader.read(letters, &ranges, |messages| {
        for letter in messages.iter().map(letter::Letter::of) {
            let is_of = |source: &letter::Place| {
                source.topic == *events && (source.partition, source.offset) == (place.partition, place.offset)
            };
            if letter.source.as_ref().is_some_and(is_of) {
                let letter::Letter { partition, offset, written_ms, reason, error, .. } = letter;
                found.push(Letter { place: Place { partition, offset }, written_ms, reason, error });
            }
        }
        Ok(())
    })?;
    Ok(found)
}

/// Says of records what the pipeline would say of them.
struct Judge {
    registry: Registry,
    decoder: RoutedDecoder,
    id: Extract,
    runtime: Handle,
}

impl Judge {
    async fn open(config: &Config, topic: &Topic, runtime: Handle) -> Result<Self> {
        let registry = Registry::new(&config.registry)?;
        let schema = registry.to_read_with(topic).await?;
        let decoder = RoutedDecoder::new(&schema, topic.spec.route.clone(), topic.limits)?;
        let id = Extract::resolve(&topic.spec.id, decoder.columns())?;
        Ok(Self { registry, decoder, id, runtime })
    }

    fn record(&mut self, reader: &Reader, topic: &str, place: Place) -> Result<Option<Record>> {
        let Place { partition, offset } = place;
        let mut found = None;
        reader.read(topic, &[(partition, offset, offset + 1)], |messages| {
            if let Some(message) = messages.iter().find(|message| message.offset() == offset) {
                found = Some(Record {
                    timestamp_ms: message.timestamp().to_millis(),
                    schema_id: wire::split(message.payload()).ok().map(|(id, _)| id),
                    id: self.id_of(message)?,
                    traceparent: traceparent(message),
                });
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// Where records with an id lie, in the order in which they were found.
    fn places_of(
        &mut self,
        reader: &Reader,
        topic: &str,
        ranges: &[(i32, i64, i64)],
        id: u128,
        progress: &Progress,
    ) -> Result<Vec<Place>> {
        let mut places = Vec::new();
        reader.read(topic, ranges, |messages| {
            let records: Vec<Raw<'_>> = messages.iter().map(record).collect();
            let Routed { decoded, .. } = self.decode(&records)?;
            let ids = self.id.from(&decoded.rows)?;
            let ids: &FixedSizeBinaryArray = ids.as_fixed_size_binary();
            let is_it = |(row, _): &(usize, &u32)| ids.value(*row) == id.to_be_bytes();
            for (_, at) in decoded.origin.iter().enumerate().filter(is_it) {
                let Raw { partition, offset, .. } = records[*at as usize];
                places.push(Place { partition, offset });
            }
            progress.add(messages.len() as u64);
            Ok(())
        })?;
        Ok(places)
    }

    fn id_of(&mut self, message: &BorrowedMessage<'_>) -> Result<Result<u128, Unread>> {
        let Routed { decoded, passed_over } = self.decode(&[record(message)])?;
        if !passed_over.is_empty() {
            return Ok(Err(Unread::PassedOver));
        }
        if let Some((_, rejection)) = decoded.rejected.into_iter().next() {
            return Ok(Err(Unread::Rejected(rejection.to_string())));
        }
        let ids = self.id.from(&decoded.rows)?;
        let ids: &FixedSizeBinaryArray = ids.as_fixed_size_binary();
        let bytes = ids.value(0).try_into().context("the id is no UUID")?;
        Ok(Ok(u128::from_be_bytes(bytes)))
    }

    /// Decodes records, whose schemas are asked for first.
    fn decode(&mut self, records: &[Raw<'_>]) -> Result<Routed> {
        self.runtime.block_on(self.registry.teach(&mut self.decoder, records))?;
        Ok(self.decoder.decode(records))
    }
}

fn traceparent(message: &BorrowedMessage<'_>) -> Option<String> {
    let header = message.headers()?.iter().find(|header| header.key == "traceparent")?;
    let text = std::str::from_utf8(header.value?).ok()?;
    text.bytes().all(|byte| byte.is_ascii_graphic()).then(|| text.to_owned())
}
