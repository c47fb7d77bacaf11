//! A consumer process: the loop of `consumers/src/run/worker.rs` around the real [`TopicPipeline`], one step at a time.
//! Its rebalances are in `group.rs`.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::OnceLock,
    time::Duration,
};

use arrow_array::RecordBatch;

use super::{
    super::{super::*, world::*},
    clickhouse::{Owner, Row},
    insert::Insert,
    kafka::{Member, Rebalance},
    producer::{CUSTOMERS, customer_of},
    run::World,
    takeover::{Ready, TakeOver, Who},
};
use crate::{
    batch::{Batch, Trigger},
    record::Record,
    shard::shard_of,
    spec::BatchLimits,
};

/// `AFTER_REFUSAL`.
const AFTER_REFUSAL_MS: Millis = 3_000;

/// What a process is started with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) batch: BatchLimits,
    pub(super) inserts_in_flight: usize,
    pub(super) chunk: usize,
}

impl Settings {
    pub(super) fn any(world: &mut World) -> Self {
        let batch = BatchLimits {
            max_rows: 1 + world.random.below(24),
            max_bytes: BatchLimits::MAX_BYTES,
            max_age: Duration::from_millis(world.random.between(10, 2000)),
        };
        Self { batch, inserts_in_flight: 1 + world.random.below(3), chunk: 1 + world.random.below(16) }
    }
}

/// What the worker is told.
pub(super) enum Told {
    TakenOver(Ready),
    Durable { shard: usize, seq: u64 },
    Unsettled { shard: usize, seq: u64, refused: bool },
}

/// A partition as librdkafka reads it.
pub(super) struct Fetch {
    pub(super) position: i64,
    pub(super) paused: bool,
}

pub(super) struct Process {
    pub(super) owner: Owner,
    pub(super) settings: Settings,
    started: Millis,
    /// SIGSTOPped until then.
    pub(super) asleep_until: Option<Millis>,
    /// The worker's thread does not come back to the poll before then; jobs go on.
    pub(super) stuck_until: Option<Millis>,
    pub(super) member: Option<Member>,
    pub(super) noted: VecDeque<Rebalance>,
    pub(super) draining: Option<super::group::Draining>,
    pub(super) pipeline: TopicPipeline,
    pub(super) fetches: BTreeMap<i32, Fetch>,
    told: VecDeque<Told>,
    pub(super) starting: VecDeque<Ready>,
    pub(super) inserts: Vec<Insert>,
    pub(super) jobs: Vec<TakeOver>,
    /// By shard.
    in_flight: Vec<usize>,
    pub(super) committed: BTreeMap<i32, Progress>,
    pub(super) commits: VecDeque<(Member, Vec<Progress>)>,
    pub(super) held: BTreeSet<i32>,
    customers: usize,
    /// Which life of each server it knows.
    life: Vec<u64>,
}

impl Process {
    pub(super) fn start(settings: Settings, world: &mut World) -> Self {
        world.processes_started += 1;
        // Owners are ordered by chance, not by age.
        let owner = world.random.next() << 16 | world.processes_started;
        let lanes = if world.protocol.lanes { world.servers.len() } else { 1 };
        let mut process = Self {
            owner,
            settings,
            started: world.now,
            asleep_until: None,
            stuck_until: None,
            member: None,
            noted: VecDeque::new(),
            draining: None,
            pipeline: simulated(world.policy, settings.batch, world.window_ms).sharded(lanes),
            fetches: BTreeMap::new(),
            told: VecDeque::new(),
            starting: VecDeque::new(),
            inserts: Vec::new(),
            jobs: Vec::new(),
            in_flight: vec![0; world.servers.len()],
            committed: BTreeMap::new(),
            commits: VecDeque::new(),
            held: BTreeSet::new(),
            customers: 0,
            life: world.servers.iter().map(|server| server.life).collect(),
        };
        world.say(|| format!("{owner:x} starts with {settings:?}"));
        process.follow_customers(world);
        process
    }

    /// The pipeline's clock.
    fn clock(&self, world: &World) -> Millis {
        world.now - self.started
    }

    /// Whether an acknowledged batch waits to be heard of, or its commit to be delivered.
    pub(super) fn owes_commit(&self) -> bool {
        !self.commits.is_empty() || self.told.iter().any(|told| matches!(told, Told::Durable { .. }))
    }

    /// Whether nothing is on its way.
    pub(super) fn is_idle(&self) -> bool {
        let open = (0..self.pipeline.shards()).any(|shard| self.pipeline.deadline(shard).is_some());
        let held = open || self.pipeline.is_waiting() || self.pipeline.in_flight();
        !held && self.inserts.is_empty() && self.told.is_empty() && self.noted.is_empty() && self.draining.is_none()
    }

    /// A step of the worker's thread.
    pub(super) fn work(&mut self, world: &mut World) {
        if self.draining.is_some() {
            return self.drain(world);
        }
        match world.random.below(16) {
            0..4 => self.hear(world),
            4 => self.rebalance(world),
            5..7 => self.start_partition(world),
            7..12 => self.read(world),
            12..14 => self.send_due(world),
            14 => {
                self.pipeline.expire(self.clock(world));
                let assignment = self.pipeline.assignment();
                self.jobs.retain(|job| assignment.is_pending(job.attempt));
            }
            _ => self.follow_customers(world),
        }
    }

    /// A step of a batch on its way.
    pub(super) fn land(&mut self, world: &mut World) {
        let Some(at) = world.random.position(self.inserts.len()) else { return };
        let life = self.life[self.inserts[at].shard];
        if let Some(told) = self.inserts[at].step(self.owner, life, world) {
            self.inserts.swap_remove(at);
            self.told.push_back(told);
        }
    }

    /// A step of a take-over.
    pub(super) fn take_over(&mut self, world: &mut World) {
        let Some(at) = world.random.position(self.jobs.len()) else { return };
        let shard = self.jobs[at].shard;
        let who = Who { owner: self.owner, held: &self.held, clock: self.clock(world), life: &mut self.life[shard] };
        let (over, ready) = self.jobs[at].step(who, self.pipeline.new_index(), world);
        self.told.extend(ready.map(Told::TakenOver));
        if over {
            self.jobs.swap_remove(at);
        }
    }

    pub(super) fn hear(&mut self, world: &mut World) {
        match self.told.pop_front() {
            None => {}
            Some(Told::TakenOver(ready)) => self.starting.push_back(ready),
            Some(Told::Durable { shard, seq }) => {
                self.in_flight[shard] -= 1;
                let committable = self.pipeline.durable(seq);
                world.say(|| format!("{:x} hears that batch {seq} is durable: {committable:?}", self.owner));
                self.committed.extend(committable.iter().map(|one| (one.partition, *one)));
                self.commit(committable);
            }
            Some(Told::Unsettled { shard, seq, refused }) => {
                self.in_flight[shard] -= 1;
                world.say(|| format!("{:x} hears that batch {seq} is unsettled, refused: {refused}", self.owner));
                let restarted = self.pipeline.unsettled(seq);
                self.take_over_again(restarted, refused, world);
            }
        }
    }

    /// Takes partitions over from the beginning, since something about them is not known.
    pub(super) fn take_over_again(&mut self, restarted: Option<(Attempt, Vec<i32>)>, refused: bool, world: &mut World) {
        let Some((attempt, partitions)) = restarted else { return };
        world.say(|| format!("{:x} takes {partitions:?} over again", self.owner));
        self.pause(&partitions);
        self.forget(&partitions);
        let rest = if refused { AFTER_REFUSAL_MS } else { 0 };
        self.jobs.extend(TakeOver::of(attempt, &partitions, world.servers.len(), world.now + rest));
    }

    pub(super) fn forget(&mut self, partitions: &[i32]) {
        self.starting.retain(|ready| !partitions.contains(&ready.partition));
        self.committed.retain(|partition, _| !partitions.contains(partition));
    }

    fn pause(&mut self, partitions: &[i32]) {
        for (partition, fetch) in &mut self.fetches {
            fetch.paused |= partitions.contains(partition);
        }
    }

    fn start_partition(&mut self, world: &mut World) {
        let Some(ready) = self.starting.pop_front() else { return };
        let Ready { attempt, partition, epoch, next_offset, uncommitted, .. } = ready;
        if !self.pipeline.assignment().is_taking_over(attempt, partition) {
            return;
        }
        let Some(fetch) = self.fetches.get_mut(&partition) else { return };
        fetch.paused = false;
        if world.faulty && world.random.one_in(8) {
            // The seek fails, and what the partition was positioned at is fetched meanwhile.
            fetch.position = world.kafka.ends[partition as usize];
            return self.starting.push_back(ready);
        }
        fetch.position = next_offset;
        if uncommitted {
            self.commit(vec![Progress { partition, epoch, next_offset }]);
            self.deliver_commits(world);
        }
        world.say(|| format!("{:x} reads {partition} from {next_offset} under epoch {epoch}", self.owner));
        self.pipeline.taken_over(attempt, partition, epoch, next_offset, ready.index);
    }

    /// Reads a chunk, if one can be taken.
    fn read(&mut self, world: &mut World) {
        let now = self.clock(world);
        let waiting = !self.pipeline.retry_waiting(now, &mut Vec::new()).unwrap();
        let full: Vec<bool> = (0..self.pipeline.shards())
            .map(|shard| {
                self.in_flight[shard] >= self.settings.inserts_in_flight && self.pipeline.due(shard, now).is_some()
            })
            .collect();
        if waiting || !world.kafka.up {
            return;
        }
        let mut chunk: Vec<Record<'_>> = Vec::new();
        for _ in 0..self.settings.chunk {
            let Some(at) = world.random.position(self.fetches.len()) else { break };
            let Some((partition, fetch)) = self.fetches.iter_mut().nth(at) else { break };
            // The partitions of a shard that takes nothing are paused; the others go on.
            if fetch.paused || full[self.pipeline.shard_of(*partition)] {
                continue;
            }
            if world.random.one_in(30) {
                // A retry of the fetch brings what was there before.
                fetch.position = (fetch.position - 2).max(0);
            }
            let Some((offset, what)) = world.kafka.fetch(*partition, fetch.position) else { continue };
            fetch.position = offset + 1;
            if self.pipeline.accept(*partition, offset) {
                chunk.push(Record { partition: *partition, offset, timestamp_ms: 0, value: Some(what.value()) });
            }
        }
        if chunk.is_empty() {
            return;
        }
        if !world.protocol.dedup {
            let empty = self.pipeline.new_index();
            self.pipeline.indexes.values_mut().for_each(|index| *index = empty());
        }
        let processed = self.pipeline.process(&chunk, now, |at, rejection| letter(&chunk[at], rejection)).unwrap();
        world.say(|| {
            let read: Vec<(i32, i64)> = chunk.iter().map(|record| (record.partition, record.offset)).collect();
            format!("{:x} reads {read:?}: {} rows, {} duplicates", self.owner, processed.rows, processed.duplicates)
        });
    }

    fn send_due(&mut self, world: &mut World) {
        for shard in 0..self.pipeline.shards() {
            let due = self.pipeline.due(shard, self.clock(world));
            if let Some(trigger) = due.filter(|_| self.in_flight[shard] < self.settings.inserts_in_flight) {
                self.send(shard, trigger, world);
            }
        }
    }

    pub(super) fn send(&mut self, lane: usize, trigger: Trigger, world: &mut World) {
        let Some(batch) = self.pipeline.close(lane, trigger).unwrap() else { return };
        let shard =
            if world.protocol.lanes { lane } else { shard_of(batch.progress[0].partition, world.servers.len()) };
        self.in_flight[shard] += 1;
        world.tokens_made += 1;
        let letters: Vec<(i32, i64)> =
            batch.dead_letters.iter().map(|letter| (letter.partition, letter.offset)).collect();
        world.say(|| {
            let Batch { seq, rows, progress, .. } = &batch;
            format!(
                "{:x} closes batch {seq}: {} rows, dead letters {letters:?}, {progress:?}",
                self.owner,
                rows.num_rows()
            )
        });
        if !world.protocol.commit_after_rows {
            self.commit(batch.progress.clone());
        }
        let rows = rows_of(&batch);
        self.inserts.push(Insert::new(shard, batch.seq, world.tokens_made, batch.progress, rows, letters));
    }

    fn commit(&mut self, progress: Vec<Progress>) {
        if let Some(member) = self.member.filter(|_| !progress.is_empty()) {
            self.commits.push_back((member, progress));
        }
    }

    /// A commit arrives at the coordinator, or does not.
    pub(super) fn deliver_commit(&mut self, world: &mut World) {
        let Some((member, progress)) = self.commits.pop_front() else { return };
        let refused = !world.kafka.up || !world.kafka.group.members.contains(&member);
        if refused || world.faulty && world.random.one_in(12) {
            return world.say(|| format!("{:x} commits in vain: {progress:?}", self.owner));
        }
        for Progress { partition, next_offset, .. } in progress {
            world.say(|| format!("{:x} commits {partition} to {next_offset}", self.owner));
            world.oracle.committed(partition, next_offset, &world.kafka);
            world.kafka.committed[partition as usize] = Some(next_offset);
        }
    }

    /// A synchronous commit brings those before it along.
    pub(super) fn deliver_commits(&mut self, world: &mut World) {
        while !self.commits.is_empty() {
            self.deliver_commit(world);
        }
    }

    pub(super) fn commit_all(&mut self, world: &mut World) {
        let committed: Vec<Progress> = self.committed.values().copied().collect();
        self.commit(committed);
        self.deliver_commits(world);
    }

    fn follow_customers(&mut self, world: &World) {
        for record in &customers()[self.customers..world.customers] {
            self.pipeline.reference(CUSTOMER).upsert(record).unwrap();
        }
        self.customers = world.customers;
    }
}

fn customers() -> &'static [RecordBatch] {
    static CUSTOMERS_MADE: OnceLock<Vec<RecordBatch>> = OnceLock::new();
    CUSTOMERS_MADE.get_or_init(|| (0..CUSTOMERS).map(|n| customer(&customer_of(n), &segment_of(n))).collect())
}

fn segment_of(event: usize) -> String {
    format!("segment-{}", event % CUSTOMERS)
}

fn rows_of(batch: &Batch) -> Vec<Row> {
    let landed = landed(&batch.rows).into_iter().zip(segments(batch));
    let row = |((id, partition, offset), segment): ((u128, i32, i64), Option<String>)| {
        let event = id as usize;
        Row { event, partition, offset, segment: segment.map(|segment| segment == segment_of(event)) }
    };
    landed.map(row).collect()
}
