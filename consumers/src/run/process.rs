//! One chunk through the pipeline, and the counting of what became of it.

use metrics::counter;
use millrace_pipeline::{
    reason::Rejection,
    record::{DeadLetter, Record},
    topic::TopicPipeline,
};
use rdkafka::{Message, message::Headers};

use super::crew::Crew;
use crate::{kafka::reference::record, telemetry::metrics as names};

/// Processes accepted messages; rows, dead letters and progress go to the pipeline's open batch.
///
/// # Errors
/// A defect: columns could not be built.
pub(super) fn process<M: Message>(pipeline: &mut TopicPipeline, messages: &[M], crew: &Crew) -> anyhow::Result<()> {
    if messages.is_empty() {
        return Ok(());
    }
    #[cfg(feature = "fault-injection")]
    if crate::faults::without(crate::faults::Guard::Dedup) {
        pipeline.forget_ids();
    }
    let records: Vec<Record<'_>> = messages.iter().map(record).collect();
    let processed = pipeline
        .process(&records, crew.now(), |at, rejection| dead_letter(&messages[at], rejection))
        .map_err(|error| anyhow::anyhow!("topic {}: a chunk could not be turned into rows: {error}", crew.topic))?;
    let topic = || crew.topic.clone();
    counter!(names::EVENTS, "topic" => topic()).increment(records.len() as u64);
    counter!(names::DUPLICATES_DROPPED, "topic" => topic()).increment(processed.duplicates as u64);
    crew.count_misses(pipeline.spec(), &processed.misses);
    Ok(())
}

fn dead_letter<M: Message>(message: &M, rejection: Rejection) -> DeadLetter {
    let record = record(message);
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        headers.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
    });
    DeadLetter {
        partition: record.partition,
        offset: record.offset,
        timestamp_ms: record.timestamp_ms,
        key: message.key().map(<[u8]>::to_vec),
        value: record.value.map(<[u8]>::to_vec),
        headers,
        rejection,
    }
}
