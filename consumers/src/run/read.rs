//! Reading: chunks of records from Kafka into the pipeline, and those that wait for their schema.

use std::time::{Duration, Instant};

use anyhow::Result;
use millrace_pipeline::topic::TopicPipeline;
use rdkafka::{
    Message,
    message::{BorrowedMessage, OwnedMessage},
};

use super::{
    crew::Crew,
    process::process,
    worker::{Worker, complain},
};
use crate::telemetry::stages::Stage;

/// Records processed at once: enough to spread the cost of a chunk, few enough to stay in the caches.
const CHUNK: usize = 4096;
/// Bytes of values processed at once, however few records they are: a batch must not outgrow one insert by a chunk.
const CHUNK_BYTES: usize = 8 << 20;
/// Longest wait for a record while nothing else is due.
const IDLE: Duration = Duration::from_millis(50);

impl Worker {
    /// Reads a chunk and processes it.
    pub(super) fn read(&mut self) -> Result<()> {
        self.process_stash()?;
        if self.leaving || self.pipeline.is_waiting() {
            return Ok(());
        }
        let now = self.crew.now();
        let until_due = self.deadline().map(|due| Duration::from_millis(due.saturating_sub(now)));
        let mut timeout = until_due.unwrap_or(IDLE).min(IDLE);
        let polled_from = self.spans.now();
        // The messages borrow the consumer, not this worker: take the source out while they live.
        let source = &self.source;
        let mut chunk: Vec<BorrowedMessage<'_>> = Vec::new();
        let sharded = self.lanes.len() > 1;
        let mut in_doubt = false;
        let mut bytes = 0;
        // From the first record on: waiting for it is no work.
        let mut begun = None;
        while chunk.len() < CHUNK && bytes < CHUNK_BYTES {
            match source.poll(timeout) {
                None => break,
                Some(Err(error)) => in_doubt |= complain(&error, &self.crew.stages)?,
                Some(Ok(message)) => {
                    begun.get_or_insert_with(Instant::now);
                    bytes += len(&message);
                    let partition = message.partition();
                    if !self.pipeline.accept(partition, message.offset()) {
                        // Not ours yet, not ours any more, or read before.
                    } else if let Some(stash) = self.stash.get_mut(&partition) {
                        stash.push_back(message.detach());
                    } else if sharded && self.lanes[self.pipeline.shard_of(partition)].shut {
                        // It was on its way when its shard was left out.
                        self.stash.entry(partition).or_default().push_back(message.detach());
                    } else {
                        chunk.push(message);
                    }
                }
            }
            timeout = Duration::ZERO;
        }
        if let Some(begun) = begun {
            self.crew.stages.passed(Stage::Poll, chunk.len(), begun.elapsed());
        }
        // Values are looked at only now: whoever touches each as it is polled waits for memory each time.
        let unknown = |crew: &Crew, pipeline: &TopicPipeline, message: &BorrowedMessage<'_>| {
            crew.unknown_schema(pipeline, message.payload())
        };
        if let Some(first) = chunk.iter().position(|it| unknown(&self.crew, &self.pipeline, it).is_some()) {
            for message in chunk.split_off(first) {
                let partition = message.partition();
                // All are asked for at once: behind one that does not exist others may come that do not.
                let id = unknown(&self.crew, &self.pipeline, &message);
                id.into_iter().for_each(|id| self.crew.ask_schema(id));
                if let Some(stash) = self.stash.get_mut(&partition) {
                    stash.push_back(message.detach());
                } else if id.is_some() {
                    source.pause(&[partition]);
                    self.stash.entry(partition).or_default().push_back(message.detach());
                } else {
                    chunk.push(message);
                }
            }
        }
        self.logs.note(&chunk, Instant::now());
        self.spans.polled(polled_from, &chunk);
        let exceeded =
            process(&mut self.pipeline, &mut self.guard, &mut self.lag, &mut self.spans, &chunk, &self.crew)?;
        drop(chunk);
        if let Some(exceeded) = exceeded {
            self.stop_at_limit(&exceeded);
        } else if in_doubt {
            self.start_over();
        }
        Ok(())
    }

    /// Takes up what waited, as far as schemas are known now.
    fn process_stash(&mut self) -> Result<()> {
        let partitions: Vec<i32> = self.stash.keys().copied().filter(|partition| !self.is_shut(*partition)).collect();
        for partition in partitions {
            let Some(stash) = self.stash.get_mut(&partition) else { continue };
            let ready = stash
                .iter()
                .take(CHUNK)
                .scan(0, |bytes, message| {
                    let room = *bytes < CHUNK_BYTES;
                    *bytes += len(message);
                    room.then_some(message)
                })
                .take_while(|message| self.crew.unknown_schema(&self.pipeline, message.payload()).is_none())
                .count();
            let chunk: Vec<OwnedMessage> = stash.drain(..ready).collect();
            if let Some(next) = stash.front() {
                let id = self.crew.unknown_schema(&self.pipeline, next.payload());
                id.into_iter().for_each(|id| self.crew.ask_schema(id));
            } else {
                self.stash.remove(&partition);
                self.source.resume(&[partition]);
            }
            self.logs.note(&chunk, Instant::now());
            self.spans.polled(self.spans.now(), &chunk);
            if let Some(exceeded) =
                process(&mut self.pipeline, &mut self.guard, &mut self.lag, &mut self.spans, &chunk, &self.crew)?
            {
                self.stop_at_limit(&exceeded);
            }
            if self.leaving || self.pipeline.is_waiting() {
                break;
            }
        }
        Ok(())
    }
}

fn len(message: &impl Message) -> usize {
    message.payload().map_or(0, <[u8]>::len)
}
