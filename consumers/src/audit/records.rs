//! The events of a topic, judged by the pipeline's own decoder: what it cannot read is for the dead letters.

use anyhow::{Context, Result, ensure};
use arrow_array::{FixedSizeBinaryArray, cast::AsArray};
use arrow_schema::DataType;
use millrace_pipeline::{decode::Decoder, field::Extract, record::Record, wire};
use rdkafka::message::BorrowedMessage;
use tokio::runtime::Handle;

use super::{
    kafka::Reader,
    ledger::{Bucket, Ledger, bucket_of},
    marks::{Mark, Place},
    progress::Progress,
    range::Range,
};
use crate::{
    config::{Config, Topic},
    kafka::reference::record,
    registry::{Answer, Registry},
};

/// Decodes the events of one topic.
pub(super) struct Records {
    topic: String,
    registry: Registry,
    decoder: Decoder,
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
        let decoder = Decoder::new(&schema, topic.limits)?;
        let id = Extract::resolve(&topic.spec.id, decoder.columns())?;
        ensure!(
            id.data_type() == &DataType::FixedSizeBinary(16),
            "the id field `{}` is of type {}; expected an Avro `uuid`",
            topic.spec.id,
            id.data_type()
        );
        Ok(Self { topic: topic.spec.topic.clone(), registry, decoder, id })
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
            self.learn(messages)?;
            let records: Vec<Record<'_>> = messages.iter().map(record).collect();
            let decoded = self.decoder.decode(&records);
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
            progress.add(messages.len() as u64);
            Ok(())
        })
    }

    /// Asks the registry for the schemas that are not known yet.
    fn learn(&mut self, messages: &[BorrowedMessage<'_>]) -> Result<()> {
        for message in messages {
            let record = record(message);
            let Ok((id, _)) = wire::split(record.value) else { continue };
            if self.decoder.knows(id) {
                continue;
            }
            let answer = Handle::current().block_on(self.registry.by_id(id));
            let answer =
                answer.with_context(|| format!("read partition {}, offset {}", record.partition, record.offset))?;
            match answer {
                Answer::Schema(schema) => self.decoder.learn(id, &schema),
                Answer::Absent => self.decoder.learn_absent(id),
            }
        }
        Ok(())
    }
}

fn place(record: &Record<'_>) -> Place {
    Place { partition: record.partition, offset: record.offset }
}
