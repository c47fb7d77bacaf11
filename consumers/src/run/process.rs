//! One chunk through the pipeline, and the counting of what became of it.

use std::time::Instant;

use metrics::counter;
use millrace_pipeline::{
    reason::{Reason, Rejection},
    record::{DeadLetter, Record},
    share::{Exceeded, ShareGuard, Tally},
    topic::{Step, TopicPipeline},
};
use rdkafka::{Message, message::Headers};

use super::{crew::Crew, lag::Lag};
use crate::{
    kafka::reference::record,
    telemetry::{metrics as names, spans::BatchSpans, stages::Stage},
};

/// Processes accepted messages; rows, dead letters and progress go to the pipeline's open batch. If too many of them are
/// dead letters by now, that batch must not be sent.
///
/// # Errors
/// A defect: columns could not be built.
pub(super) fn process<M: Message>(
    pipeline: &mut TopicPipeline,
    guard: &mut ShareGuard,
    lag: &mut Lag,
    spans: &mut BatchSpans,
    messages: &[M],
    crew: &Crew,
) -> anyhow::Result<Option<Exceeded>> {
    if messages.is_empty() {
        return Ok(None);
    }
    #[cfg(feature = "fault-injection")]
    if crate::faults::without(crate::faults::Guard::Dedup) {
        pipeline.forget_ids();
    }
    let records: Vec<Record<'_>> = messages.iter().map(record).collect();
    lag.note(records.iter().map(|record| (record.partition, record.offset, record.timestamp_ms)));
    let mut step_began = Instant::now();
    let mut tally = Tally { events: records.len() as u64, ..Tally::default() };
    let processed = pipeline
        .process_by_steps(
            &records,
            crew.now(),
            |at, rejection| {
                tally.reject(rejection.reason, records[at].partition, records[at].offset);
                dead_letter(&messages[at], rejection)
            },
            |step, events| {
                let stage = match step {
                    Step::Decode => Stage::Decode,
                    Step::Dedup => Stage::Dedup,
                    Step::Enrich => Stage::Enrich,
                };
                let now = Instant::now();
                crew.stages.passed(stage, events, now - step_began);
                step_began = now;
                spans.stepped(step);
            },
        )
        .map_err(|error| anyhow::anyhow!("topic {}: a chunk could not be turned into rows: {error}", crew.topic))?;
    for (reason, times) in &processed.rejected {
        let stage = if *reason == Reason::LookupMissed { Stage::Enrich } else { Stage::Decode };
        crew.stages.failed(stage, reason.code(), *times);
    }
    let topic = || crew.topic.clone();
    counter!(names::EVENTS, "topic" => topic()).increment((records.len() - processed.passed_over) as u64);
    if processed.passed_over > 0 {
        counter!(names::PASSED_OVER, "topic" => topic()).increment(processed.passed_over as u64);
    }
    counter!(names::DUPLICATES_DROPPED, "topic" => topic()).increment(processed.duplicates as u64);
    crew.count_misses(pipeline.spec(), &processed.misses);
    Ok(guard.count(crew.now(), &tally))
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
