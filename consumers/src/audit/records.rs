//! The events of a topic, judged by the pipeline's own decoder: what it cannot read is for the dead letters.

use anyhow::{Result, ensure};
use arrow_array::{FixedSizeBinaryArray, cast::AsArray};
use arrow_schema::DataType;
use millrace_pipeline::{
    field::Extract,
    record::Record,
    route::{Routed, RoutedDecoder},
};
use rdkafka::message::BorrowedMessage;
use tokio::runtime::Handle;

use super::{
    kafka::{Reader, source},
    ledger::{Bucket, Ledger, bucket_of},
    marks::{Mark, Place},
    progress::Progress,
    range::Range,
};
use crate::{
    config::{Config, Topic},
    kafka::reference::record,
    registry::Registry,
};

/// Decodes the events of one topic, or of one section of it.
pub(super) struct Records {
    topic: String,
    /// Whether other sections share the topic.
    is_section: bool,
    registry: Registry,
    decoder: RoutedDecoder,
    id: Extract,
}

impl Records {
    /// Reads with the same schema as `millrace run`.
    ///
    /// # Errors
    /// The registry or the file cannot be read, or the schema does not fit the configuration.
    pub(super) async fn open(config: &Config, topic: &Topic) -> Result<Self> {
        let registry = Registry::new(&config.registry)?.patient(&config.retry);
        let schema = registry.to_read_with(topic).await?;
        let decoder = RoutedDecoder::new(&schema, topic.spec.route.clone(), topic.limits)?;
        let id = Extract::resolve(&topic.spec.id, decoder.columns())?;
        ensure!(
            id.data_type() == &DataType::FixedSizeBinary(16),
            "the id field `{}` is of type {}; expected an Avro `uuid`",
            topic.spec.id,
            id.data_type()
        );
        let (name, is_section) = (topic.spec.topic.clone(), topic.spec.route.is_some());
        Ok(Self { topic: name, is_section, registry, decoder, id })
    }

    /// Reads the ranges, and puts the events of one bucket of several into `bucket`. Blocks.
    ///
    /// # Errors
    /// Kafka or the registry falls silent or refuses; told to stop.
    pub(super) fn read(
        &mut self,
        reader: &Reader,
        ranges: &[Range],
        (number, buckets): (u64, u64),
        ledger: &mut Ledger,
        bucket: &mut Bucket,
        progress: &Progress,
    ) -> Result<()> {
        let wanted: Vec<(i32, i64, i64)> = ranges.iter().map(|range| (range.partition, range.from, range.to)).collect();
        let topic = self.topic.clone();
        reader.read(&topic, &wanted, |messages| {
            let records: Vec<Record<'_>> = messages.iter().map(record).collect();
            self.learn(&records)?;
            let Routed { decoded, passed_over } = self.decoder.decode(&records);
            let ids = self.id.from(&decoded.rows)?;
            let ids: &FixedSizeBinaryArray = ids.as_fixed_size_binary();
            for (row, at) in decoded.origin.iter().enumerate() {
                let place = place(&records[*at as usize]);
                let mut bytes = [0; 16];
                bytes.copy_from_slice(ids.value(row));
                let id = u128::from_be_bytes(bytes);
                ledger.marks.set(place, Mark::Present);
                if bucket_of(id, buckets) == number {
                    bucket.push(id, place);
                }
            }
            for (at, _) in &decoded.rejected {
                let place = place(&records[*at as usize]);
                ledger.marks.set(place, Mark::Present);
                ledger.marks.set(place, Mark::Unreadable);
            }
            for at in passed_over {
                ledger.passed_over(place(&records[at as usize]));
            }
            progress.add(messages.len() as u64);
            Ok(())
        })
    }

    /// Whence dead letters came, of those whose originals are the section's own. Blocks.
    ///
    /// # Errors
    /// The registry falls silent or refuses.
    pub(super) fn sources(&mut self, letters: &[BorrowedMessage<'_>]) -> Result<Vec<Place>> {
        let of_topic = |letter| Some((source(letter, &self.topic)?, record(letter)));
        let originals: Vec<(Place, Record<'_>)> = letters.iter().filter_map(of_topic).collect();
        if self.is_section {
            let records: Vec<Record<'_>> = originals.iter().map(|(_, record)| *record).collect();
            self.learn(&records)?;
        }
        let own = originals.into_iter().filter(|(_, record)| !self.decoder.passes_over(record.value));
        Ok(own.map(|(place, _)| place).collect())
    }

    /// Asks the registry for the schemas that are not known yet.
    fn learn(&mut self, records: &[Record<'_>]) -> Result<()> {
        Handle::current().block_on(self.registry.teach(&mut self.decoder, records))
    }
}

fn place(record: &Record<'_>) -> Place {
    Place { partition: record.partition, offset: record.offset }
}
