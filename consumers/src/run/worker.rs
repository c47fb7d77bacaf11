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
    share::ShareGuard,
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
    lag::Lag,
    lanes::Lane,
    logs::Logs,
    stop::{Stop, StopReason},
};
use crate::{
    faults::{self, Point},
    kafka::{code, reference::Update, source::Source, tell_error},
    takeover::TakenOver,
    telemetry::{
        metrics as names,
        spans::BatchSpans,
        stages::{Stage, Stages},
    },
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
    /// By shard of ClickHouse.
    pub(super) lanes: Vec<Lane>,
    pub(super) blocked_since: Option<Instant>,
    /// Whether the running partitions are paused because nothing can be taken.
    pub(super) paused: bool,
    /// Whether somebody has said that nothing is to be read.
    pub(super) held: bool,
    pub(super) leaving: bool,
    /// Why, if not because it was asked to.
    stopped: Option<Stop>,
    /// The last commit of each partition that is held.
    pub(super) committed: BTreeMap<i32, Progress>,
    pub(super) assigned_at: BTreeMap<Attempt, Instant>,
    pub(super) starting: VecDeque<TakenOver>,
    /// Partitions that had events waiting when they came and have none in the table yet, and when they came.
    pub(super) awaited: BTreeMap<i32, Instant>,
    /// The offset that each partition held was last known to want next.
    pub(super) positions: BTreeMap<i32, i64>,
    pub(super) logs: Logs,
    pub(super) lag: Lag,
    /// What it came to at last: events and seconds by partition.
    pub(super) behind: BTreeMap<i32, (i64, Option<f64>)>,
    /// Stops the topic when too many of its events cannot be read.
    pub(super) guard: ShareGuard,
    /// Of the batch being filled.
    pub(super) spans: BatchSpans,
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
        spans: BatchSpans,
    ) -> Self {
        let incomplete = (0..pipeline.spec().lookups.len()).collect();
        let now = Instant::now();
        let shards = pipeline.shards();
        let guard = ShareGuard::new(crew.settings.dead_letter_limit);
        crew.tell(names::DEDUP_MAX_IDS, pipeline.spec().dedup.max_ids);
        Self {
            pipeline,
            source,
            crew,
            told,
            updates,
            incomplete,
            stash: BTreeMap::new(),
            lanes: (0..shards).map(|_| Lane::default()).collect(),
            blocked_since: None,
            paused: false,
            held: false,
            leaving: false,
            stopped: None,
            committed: BTreeMap::new(),
            assigned_at: BTreeMap::new(),
            starting: VecDeque::new(),
            awaited: BTreeMap::new(),
            positions: BTreeMap::new(),
            logs: Logs::new(now),
            lag: Lag::default(),
            behind: BTreeMap::new(),
            guard,
            spans,
            kept_house: now,
            forgot_refused: now,
        }
    }

    /// Works until told to leave or to stop, then drains and leaves the group. What did not land is committed by nobody.
    ///
    /// # Errors
    /// Why the topic does not go on: it was stopped, or a defect, or Kafka is beyond repair.
    pub fn run(mut self) -> Result<(), Stop> {
        let worked = self.work();
        self.crew.keep_jobs(|_| false);
        self.crew.cell.update(|view| view.partitions.clear());
        // Whoever reads its partitions next tells how far they are.
        drop(self.source);
        self.crew.tell_nothing_held(self.positions.keys());
        match (worked, self.stopped) {
            (Ok(()), stopped) => {
                tracing::info!(topic = self.crew.topic, "drained and left the group");
                stopped.map_or(Ok(()), Err)
            }
            (Err(error), None) => Err(Stop::new(StopReason::Failed, error)),
            (Err(error), Some(stop)) => {
                tracing::error!(topic = self.crew.topic, error = format!("{error:#}"), "the topic was not drained");
                Err(stop)
            }
        }
    }

    /// Stops the topic: it drains, gives its partitions up and says why, once; other topics go on. From a job, send
    /// [`Told::Stop`]. The first reason counts.
    pub(super) fn stop(&mut self, stop: Stop) {
        self.leaving = true;
        self.stopped.get_or_insert(stop);
    }

    fn work(&mut self) -> Result<()> {
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
        self.drain_all()
    }

    /// The position of some partition is not what it was thought to be: all are taken over again, from where they
    /// then stand.
    pub(super) fn start_over(&mut self) {
        let running: Vec<i32> = self.pipeline.assignment().running().map(|(partition, _)| partition).collect();
        let restarted = self.pipeline.restart(&running);
        self.take_over_again(restarted, false);
    }

    /// Whether no record can be taken now: every insert slot is in use and the batch is due, of every shard that has partitions
    /// here, or events wait for a reference record. Waits a little if so; while that lasts, partitions are paused and Kafka is polled on.
    fn blocked(&mut self) -> Result<bool> {
        let now = self.crew.now();
        let mut misses = Vec::new();
        let waiting = !self.pipeline.retry_waiting(now, &mut misses).context("enrich events that waited")?;
        self.crew.count_misses(self.pipeline.spec(), &misses);
        let full = self.all_are_full(now);
        if self.held || !self.incomplete.is_empty() || waiting || full {
            let since = *self.blocked_since.get_or_insert_with(Instant::now);
            if !self.held && since.elapsed() < STAND_STILL {
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
            let free: Vec<i32> = running.filter(|partition| self.may_be_read(*partition)).collect();
            self.source.resume(&free);
        }
        Ok(self.leave_out_the_full())
    }

    /// Polls while partitions are paused. A record that comes all the same is kept.
    fn poll_for_events(&mut self, timeout: Duration) -> Result<()> {
        match self.source.poll(timeout) {
            None => {}
            Some(Err(error)) if complain(&error, &self.crew.stages)? => self.start_over(),
            Some(Err(_)) => {}
            Some(Ok(message)) if self.pipeline.accept(message.partition(), message.offset()) => {
                self.stash.entry(message.partition()).or_default().push_back(message.detach());
            }
            Some(Ok(_)) => {}
        }
        Ok(())
    }

    /// Sends each shard's batch if it is due and a slot is free.
    fn send_due(&mut self) -> Result<()> {
        for shard in 0..self.lanes.len() {
            if self.lanes[shard].in_flight < self.crew.settings.inserts_in_flight
                && let Some(trigger) = self.pipeline.due(shard, self.crew.now())
            {
                self.send(shard, trigger)?;
            }
        }
        Ok(())
    }

    pub(super) fn send(&mut self, shard: usize, trigger: Trigger) -> Result<()> {
        let begun = Instant::now();
        if let Some(batch) = self.pipeline.close(shard, trigger).context("close a batch")? {
            self.crew.stages.passed(Stage::Batch, batch.rows.num_rows(), begun.elapsed());
            self.lanes[shard].in_flight += 1;
            let spans = self.spans.close(&batch);
            self.crew.land(shard, batch, spans);
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
                let shard = self.pipeline.shard_of(taken_over.partition);
                self.crew.shards[shard].inserter.answered();
                self.starting.push_back(taken_over);
            }
            Told::Durable { shard, seq, insert_ms } => {
                self.lanes[shard].in_flight -= 1;
                insert_ms.into_iter().for_each(|took_ms| self.pipeline.inserted(shard, took_ms));
                let committable = self.pipeline.durable(seq);
                self.source.commit(&committable, |partition| self.logs.mark(partition), CommitMode::Async);
                self.landed(&committable);
                faults::at(Point::Committed);
                let further = |one: &Progress| self.lag.committed(one.partition, one.next_offset);
                self.crew.stages.came(Stage::Commit, committable.iter().map(further).sum());
                self.committed.extend(committable.into_iter().map(|progress| (progress.partition, progress)));
            }
            Told::Unsettled { shard, seq, refused } => {
                self.lanes[shard].in_flight -= 1;
                self.given_up(if refused { "refused" } else { "unsettled" });
                let restarted = self.pipeline.unsettled(seq);
                self.take_over_again(restarted, refused);
            }
            Told::Drifted { shard, seq, why } => {
                self.lanes[shard].in_flight -= 1;
                // Nobody takes its partitions over here: this process leaves, and whoever reads next starts behind the last
                // commit.
                self.given_up("drifted");
                let _ = self.pipeline.unsettled(seq);
                self.stop(Stop::new(StopReason::TableAltered, anyhow::anyhow!(why)));
            }
            Told::Schema { id, schema } => {
                self.crew.asked.remove(&id);
                match schema {
                    Some(schema) => self.pipeline.learn(id, &schema),
                    None => self.pipeline.learn_absent(id),
                }
            }
            Told::Looked { seen } => self.logs_looked_at(&seen),
            Told::Stop(stop) => self.stop(stop),
            Told::Hold(hold) => self.hold(hold),
            Told::Leave => self.leaving = true,
        }
    }

    /// A batch's events are read again.
    fn given_up(&self, reason: &'static str) {
        counter!(names::BATCHES_GIVEN_UP, "topic" => self.crew.topic.clone(), "reason" => reason).increment(1);
    }

    fn follow_references(&mut self) {
        for update in self.updates.try_iter().take(UPDATES) {
            let (lookup, complete) = update.apply(&mut self.pipeline);
            if complete {
                self.incomplete.remove(&lookup);
            }
            let name = self.pipeline.spec().lookups[lookup].name.clone();
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
            self.pipeline.forget_refused();
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
        self.tell_readiness();
        let share = self.guard.share(self.crew.now());
        gauge!(names::DEAD_LETTER_SHARE, "topic" => self.crew.topic.clone()).set(share);
        self.observe();
        self.tell_status();
        self.look_at_logs();
    }
}

/// An error that librdkafka tells of while it goes on by itself; `true` when the position of a partition is in doubt: it
/// is out of range, or librdkafka has passed over records that it cannot read.
pub(super) fn complain(error: &KafkaError, stages: &Stages) -> Result<bool> {
    if let KafkaError::MessageConsumptionFatal(_) = error {
        anyhow::bail!("Kafka ended this consumer for good: {error}; restart it");
    }
    tell_error("consumer", error, "a record was not read");
    stages.failed(Stage::Poll, code(error), 1);
    let code = error.rdkafka_error_code();
    Ok(matches!(code, Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::BadMessage)))
}
