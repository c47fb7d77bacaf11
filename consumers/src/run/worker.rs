//! The thread of one topic: it polls Kafka, runs the pipeline, and hands batches to the inserts; answers come back as
//! [`Told`]. It owns everything that is remembered of the topic, so nothing of that is shared or locked.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use metrics::{counter, gauge};
use millrace_pipeline::{
    assignment::Attempt,
    batch::{Progress, Trigger},
    topic::TopicPipeline,
};
use rdkafka::{
    Message,
    consumer::CommitMode,
    error::{KafkaError, RDKafkaErrorCode},
    message::OwnedMessage,
};

use super::{
    crew::{Crew, Told},
    logs::Logs,
};
use crate::{
    faults::{self, Point},
    kafka::{reference::Update, source::Source, tell_error},
    takeover::TakenOver,
    telemetry::metrics as names,
};

/// Updates of reference topics taken in one round, so that a long topic does not hold the loop up.
const UPDATES: usize = 64;
/// How long the worker stands still for a free insert before it pauses its partitions and polls on. A pause throws away
/// what librdkafka fetched ahead, so a short wait is cheaper standing.
const STAND_STILL: Duration = Duration::from_secs(1);
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// How often ids that the registry did not know are asked for again.
const FORGET_REFUSED: Duration = Duration::from_secs(60);

/// One topic's thread.
pub struct Worker {
    pub(super) pipeline: TopicPipeline,
    pub(super) source: Source,
    pub(super) crew: Crew,
    pub(super) told: Receiver<Told>,
    pub(super) updates: Receiver<Update>,
    /// Lookups whose topic is not read whole yet.
    pub(super) incomplete: BTreeSet<usize>,
    /// Records that wait for their schema, or came while nothing could be taken, by partition and in order.
    pub(super) stash: BTreeMap<i32, VecDeque<OwnedMessage>>,
    pub(super) in_flight: usize,
    pub(super) blocked_since: Option<Instant>,
    /// Whether the running partitions are paused because nothing can be taken.
    pub(super) paused: bool,
    pub(super) leaving: bool,
    /// Why, if not because it was asked to.
    pub(super) stopped: Option<anyhow::Error>,
    /// The last commit of each partition that is held.
    pub(super) committed: BTreeMap<i32, Progress>,
    pub(super) assigned_at: BTreeMap<Attempt, Instant>,
    pub(super) starting: VecDeque<TakenOver>,
    /// Partitions that had events waiting when they came and have none in the table yet, and when they came.
    pub(super) awaited: BTreeMap<i32, Instant>,
    /// The offset that each partition held was last known to want next.
    pub(super) positions: BTreeMap<i32, i64>,
    pub(super) logs: Logs,
    kept_house: Instant,
    forgot_refused: Instant,
}

impl Worker {
    /// A worker that has done nothing yet.
    pub fn new(
        pipeline: TopicPipeline,
        source: Source,
        crew: Crew,
        told: Receiver<Told>,
        updates: Receiver<Update>,
    ) -> Self {
        let incomplete = (0..pipeline.spec().lookups.len()).collect();
        let now = Instant::now();
        Self {
            pipeline,
            source,
            crew,
            told,
            updates,
            incomplete,
            stash: BTreeMap::new(),
            in_flight: 0,
            blocked_since: None,
            paused: false,
            leaving: false,
            stopped: None,
            committed: BTreeMap::new(),
            assigned_at: BTreeMap::new(),
            starting: VecDeque::new(),
            awaited: BTreeMap::new(),
            positions: BTreeMap::new(),
            logs: Logs::new(now),
            kept_house: now,
            forgot_refused: now,
        }
    }

    /// Works until told to leave, then drains.
    ///
    /// # Errors
    /// A defect, or Kafka is beyond repair.
    pub fn run(mut self) -> Result<()> {
        while !self.leaving {
            faults::at(Point::Polled);
            self.crew.beat();
            self.follow_references();
            self.hear();
            self.rebalance()?;
            self.start_partitions();
            if !self.blocked()? {
                self.read()?;
            }
            self.send_due()?;
            self.keep_house();
        }
        self.drain_and_leave()
    }

    /// The position of some partition is not what it was thought to be: all are taken over again, from where they
    /// then stand.
    pub(super) fn start_over(&mut self) {
        let running: Vec<i32> = self.pipeline.assignment().running().map(|(partition, _)| partition).collect();
        let restarted = self.pipeline.restart(&running);
        self.take_over_again(restarted, false);
    }

    /// Whether no record can be taken now: every insert slot is in use and the batch is due, or events wait for a
    /// reference record. Waits a little if so; while that lasts, partitions are paused and Kafka is polled on.
    fn blocked(&mut self) -> Result<bool> {
        let now = self.crew.now();
        let mut misses = Vec::new();
        let waiting = !self.pipeline.retry_waiting(now, &mut misses).context("enrich events that waited")?;
        self.crew.count_misses(self.pipeline.spec(), &misses);
        let full = self.in_flight >= self.crew.settings.inserts_in_flight && self.pipeline.due(now).is_some();
        if !self.incomplete.is_empty() || waiting || full {
            let since = *self.blocked_since.get_or_insert_with(Instant::now);
            if since.elapsed() < STAND_STILL {
                self.wait_for_news(Duration::from_millis(20));
            } else {
                if !self.paused {
                    self.paused = true;
                    let running = self.pipeline.assignment().running().map(|(partition, _)| partition);
                    self.source.pause(&running.collect::<Vec<i32>>());
                }
                self.poll_for_events(Duration::from_millis(100))?;
            }
            return Ok(true);
        }
        self.blocked_since = None;
        if std::mem::take(&mut self.paused) {
            let running = self.pipeline.assignment().running().map(|(partition, _)| partition);
            let free: Vec<i32> = running.filter(|partition| !self.stash.contains_key(partition)).collect();
            self.source.resume(&free);
        }
        Ok(false)
    }

    /// Polls while partitions are paused. A record that comes all the same is kept.
    fn poll_for_events(&mut self, timeout: Duration) -> Result<()> {
        match self.source.poll(timeout) {
            None => {}
            Some(Err(error)) if complain(&error)? => self.start_over(),
            Some(Err(_)) => {}
            Some(Ok(message)) if self.pipeline.accept(message.partition(), message.offset()) => {
                self.stash.entry(message.partition()).or_default().push_back(message.detach());
            }
            Some(Ok(_)) => {}
        }
        Ok(())
    }

    /// Sends the batch if it is due and a slot is free.
    fn send_due(&mut self) -> Result<()> {
        if self.in_flight < self.crew.settings.inserts_in_flight
            && let Some(trigger) = self.pipeline.due(self.crew.now())
        {
            self.send(trigger)?;
        }
        Ok(())
    }

    pub(super) fn send(&mut self, trigger: Trigger) -> Result<()> {
        if let Some(batch) = self.pipeline.close(trigger).context("close a batch")? {
            self.in_flight += 1;
            self.crew.land(batch);
        }
        Ok(())
    }

    fn hear(&mut self) {
        while let Ok(told) = self.told.try_recv() {
            self.act(told);
        }
    }

    pub(super) fn wait_for_news(&mut self, timeout: Duration) {
        match self.told.recv_timeout(timeout) {
            Ok(told) => self.act(told),
            // The worker holds a sender itself, so the channel never ends.
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
    }

    fn act(&mut self, told: Told) {
        match told {
            Told::TakenOver(taken_over) => {
                self.crew.inserter.answered();
                self.starting.push_back(taken_over);
            }
            Told::Durable { seq, insert_ms } => {
                self.in_flight -= 1;
                insert_ms.into_iter().for_each(|took_ms| self.pipeline.inserted(took_ms));
                let committable = self.pipeline.durable(seq);
                self.source.commit(&committable, |partition| self.logs.mark(partition), CommitMode::Async);
                self.landed(&committable);
                faults::at(Point::Committed);
                self.committed.extend(committable.into_iter().map(|progress| (progress.partition, progress)));
            }
            Told::Unsettled { seq, refused } => {
                self.in_flight -= 1;
                let restarted = self.pipeline.unsettled(seq);
                self.take_over_again(restarted, refused);
            }
            Told::Schema { id, schema } => {
                self.crew.asked.remove(&id);
                match schema {
                    Some(schema) => self.pipeline.decoder.learn(id, &schema),
                    None => self.pipeline.decoder.learn_absent(id),
                }
            }
            Told::Looked { seen } => self.logs_looked_at(&seen),
            Told::Stop(error) => (self.stopped, self.leaving) = (Some(error), true),
            Told::Leave => self.leaving = true,
        }
    }

    fn follow_references(&mut self) {
        for update in self.updates.try_iter().take(UPDATES) {
            let (lookup, applied) = match update {
                Update::Upsert { lookup, records } => (lookup, self.pipeline.reference(lookup).upsert(&records)),
                Update::Delete { lookup, key } => {
                    self.pipeline.reference(lookup).delete(&key);
                    (lookup, Ok(()))
                }
                Update::Complete { lookup } => {
                    self.incomplete.remove(&lookup);
                    (lookup, Ok(()))
                }
            };
            let name = self.pipeline.spec().lookups[lookup].name.clone();
            if let Err(error) = applied {
                tracing::error!(%error, lookup = name, "reference records were not taken in");
            }
            gauge!(names::REFERENCE_ROWS, "lookup" => name).set(self.pipeline.reference(lookup).len() as f64);
        }
    }

    fn keep_house(&mut self) {
        if self.kept_house.elapsed() < HOUSEKEEPING {
            return;
        }
        self.kept_house = Instant::now();
        if self.source.lacks_commit(self.committed.values()) {
            self.commit_again(CommitMode::Async);
        }
        if self.forgot_refused.elapsed() >= FORGET_REFUSED {
            self.forgot_refused = Instant::now();
            self.pipeline.decoder.forget_refused();
        }
        let early = self.pipeline.expire(self.crew.now());
        if early > 0 {
            let topic = self.crew.topic.clone();
            counter!(names::DEDUP_EARLY_EXPIRATIONS, "topic" => topic.clone()).increment(early as u64);
            tracing::warn!(
                topic,
                ids = early,
                "the dedup index is full: ids were forgotten before the end of the window; raise dedup.max_ids or shorten dedup.window"
            );
        }
        let assignment = self.pipeline.assignment();
        self.assigned_at.retain(|attempt, _| assignment.is_pending(*attempt));
        self.crew.keep_jobs(|attempt| assignment.is_pending(attempt));
        self.positions.extend(assignment.running());
        self.crew.set_ready(self.incomplete.is_empty(), assignment.settled(), self.trouble());
        self.crew.observe(&self.positions, &self.source, self.pipeline.dedup_ids(), self.in_flight);
        self.look_at_logs();
    }
}

/// An error that librdkafka tells of while it goes on by itself; `true` when the position of a partition is in doubt: it
/// is out of range, or librdkafka has passed over records that it cannot read.
pub(super) fn complain(error: &KafkaError) -> Result<bool> {
    if let KafkaError::MessageConsumptionFatal(_) = error {
        anyhow::bail!("Kafka ended this consumer for good: {error}; restart it");
    }
    tell_error("consumer", error, "a record was not read");
    let code = error.rdkafka_error_code();
    Ok(matches!(code, Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::BadMessage)))
}
