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
        if self.pipeline.is_waiting() {
            return Ok(());
        }
        let now = self.crew.now();
        let until_due = self.pipeline.deadline().map(|due| Duration::from_millis(due.saturating_sub(now)));
        let mut timeout = until_due.unwrap_or(IDLE).min(IDLE);
        // The messages borrow the consumer, not this worker: take the source out while they live.
        let source = &self.source;
        let mut chunk: Vec<BorrowedMessage<'_>> = Vec::new();
        let mut in_doubt = false;
        let mut bytes = 0;
        while chunk.len() < CHUNK && bytes < CHUNK_BYTES {
            match source.poll(timeout) {
                None => break,
                Some(Err(error)) => in_doubt |= complain(&error)?,
                Some(Ok(message)) => {
                    bytes += len(&message);
                    let partition = message.partition();
                    if !self.pipeline.accept(partition, message.offset()) {
                        // Not ours yet, not ours any more, or read before.
                    } else if let Some(stash) = self.stash.get_mut(&partition) {
                        stash.push_back(message.detach());
                    } else {
                        chunk.push(message);
                    }
                }
            }
            timeout = Duration::ZERO;
        }
        // Values are looked at only now: whoever touches each as it is polled waits for memory each time.
        let unknown = |crew: &Crew, pipeline: &TopicPipeline, message: &BorrowedMessage<'_>| {
            crew.unknown_schema(&pipeline.decoder, message.payload())
        };
        if let Some(first) = chunk.iter().position(|it| unknown(&self.crew, &self.pipeline, it).is_some()) {
            for message in chunk.split_off(first) {
                let partition = message.partition();
                if let Some(stash) = self.stash.get_mut(&partition) {
                    stash.push_back(message.detach());
                } else if let Some(id) = unknown(&self.crew, &self.pipeline, &message) {
                    self.crew.ask_schema(id);
                    source.pause(&[partition]);
                    self.stash.entry(partition).or_default().push_back(message.detach());
                } else {
                    chunk.push(message);
                }
            }
        }
        self.logs.note(&chunk, Instant::now());
        process(&mut self.pipeline, &chunk, &self.crew)?;
        drop(chunk);
        if in_doubt {
            self.start_over();
        }
        Ok(())
    }

    /// Takes up what waited, as far as schemas are known now.
    fn process_stash(&mut self) -> Result<()> {
        let partitions: Vec<i32> = self.stash.keys().copied().collect();
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
                .take_while(|message| self.crew.unknown_schema(&self.pipeline.decoder, message.payload()).is_none())
                .count();
            let chunk: Vec<OwnedMessage> = stash.drain(..ready).collect();
            if let Some(next) = stash.front() {
                let id = self.crew.unknown_schema(&self.pipeline.decoder, next.payload());
                id.into_iter().for_each(|id| self.crew.ask_schema(id));
            } else {
                self.stash.remove(&partition);
                self.source.resume(&[partition]);
            }
            self.logs.note(&chunk, Instant::now());
            process(&mut self.pipeline, &chunk, &self.crew)?;
            if self.pipeline.is_waiting() {
                break;
            }
        }
        Ok(())
    }
}

fn len(message: &impl Message) -> usize {
    message.payload().map_or(0, <[u8]>::len)
}
