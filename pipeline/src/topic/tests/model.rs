//! The delivery protocol against a model of Kafka and ClickHouse: two consumers, three partitions, and whatever can go
//! wrong between them, from a seed. What the model leaves out are sockets and time-outs: a request that is on its way may
//! be applied at any later moment, in part, or never, and its answer may be lost.

use std::collections::{BTreeMap, BTreeSet};

use super::{super::*, log::*, world::*};
use crate::{record::Record, spec::MissPolicy};

/// Put a seed here to run that one alone.
const REPLAY: Option<u64> = None;
const SEEDS: u64 = 800;
const STEPS: usize = 400;

#[test]
fn every_event_lands_exactly_once_whatever_fails() {
    let seeds = REPLAY.map_or(0..SEEDS, |seed| seed..seed + 1);
    for seed in seeds {
        if let Err(wrong) = Model::new(seed, Protocol::WHOLE).run() {
            panic!("seed {seed}: {wrong}; put it into REPLAY");
        }
    }
}

#[test]
fn without_the_fence_or_the_load_or_the_token_the_model_finds_rows_doubled() {
    let without = [
        Protocol { fence: false, ..Protocol::WHOLE },
        Protocol { load: false, ..Protocol::WHOLE },
        Protocol { token: false, ..Protocol::WHOLE },
    ];
    for protocol in without {
        let found = (0..SEEDS).any(|seed| Model::new(seed, protocol).run().is_err_and(|wrong| wrong.contains("twice")));
        assert!(found, "the test would not notice: {protocol:?}");
    }
}

/// What holds; the negative controls leave one of them out.
#[derive(Clone, Copy, Debug)]
struct Protocol {
    fence: bool,
    load: bool,
    token: bool,
}

impl Protocol {
    const WHOLE: Self = Self { fence: true, load: true, token: true };
}

struct Consumer {
    pipeline: TopicPipeline,
    /// Where it reads next, per partition that it believes it holds.
    positions: BTreeMap<i32, i64>,
    take_overs: Vec<TakeOver>,
}

struct TakeOver {
    attempt: Attempt,
    partition: i32,
    epoch: Option<u64>,
}

/// A batch on its way; the request may still be executed after its consumer has given it up.
struct InFlight {
    /// `None` once nobody waits for the answer.
    consumer: Option<usize>,
    batch: Batch,
    /// Rows of the two months of the table: whether they are in, under the batch's token.
    landed: [bool; 2],
}

struct Model {
    random: Random,
    protocol: Protocol,
    policy: MissPolicy,
    now: Millis,
    log: Log,
    owner: [usize; PARTITIONS],
    committed: [i64; PARTITIONS],
    epochs: [u64; PARTITIONS],
    consumers: Vec<Consumer>,
    /// Partitions that Kafka took from a consumer which has not heard of it yet.
    unheard: Vec<(usize, i32)>,
    in_flight: Vec<InFlight>,
    /// The table: id, partition, offset.
    rows: Vec<(u128, i32, i64)>,
    dead: BTreeSet<(i32, i64)>,
    customers_known: usize,
}

impl Model {
    fn new(seed: u64, protocol: Protocol) -> Self {
        let mut random = Random(seed);
        let log = log(&mut random);
        let policy = if random.one_in(2) { WAIT } else { MissPolicy::Null };
        let mut model = Self {
            random,
            protocol,
            policy,
            now: 0,
            log,
            owner: [0; PARTITIONS],
            committed: [0; PARTITIONS],
            epochs: [0; PARTITIONS],
            consumers: Vec::new(),
            unheard: Vec::new(),
            in_flight: Vec::new(),
            rows: Vec::new(),
            dead: BTreeSet::new(),
            customers_known: 0,
        };
        model.consumers = (0..2).map(|_| model.fresh_consumer()).collect();
        for partition in 0..PARTITIONS {
            model.owner[partition] = model.random.below(2);
            model.assign(partition);
        }
        model
    }

    fn run(mut self) -> Result<(), String> {
        for _ in 0..STEPS {
            self.step()?;
        }
        self.settle()?;
        let sent = self.log.iter().flatten();
        let sent: BTreeSet<u128> = sent.filter_map(|(_, what)| what.event()).map(|event| event as u128).collect();
        let landed: BTreeSet<u128> = self.rows.iter().map(|(id, ..)| *id).collect();
        if sent != landed {
            return Err(format!("events lost: {:?}", sent.difference(&landed).collect::<Vec<_>>()));
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), String> {
        let consumer = self.random.below(2);
        match self.random.below(32) {
            0..10 => self.read(consumer),
            10..14 => self.send(consumer),
            14..20 => return self.answer(true),
            20..26 => self.take_over(consumer),
            26 => self.move_partition(),
            27 if !self.unheard.is_empty() => {
                let (consumer, partition) = self.unheard.swap_remove(0);
                self.revoke(consumer, partition);
            }
            28 if self.random.one_in(4) => self.crash(consumer),
            29 => self.customer_arrives(),
            _ => self.now += self.random.below(WAIT_MS as usize) as Millis,
        }
        Ok(())
    }

    /// Everything works from now on: all is read, landed and committed.
    fn settle(&mut self) -> Result<(), String> {
        for (consumer, partition) in std::mem::take(&mut self.unheard) {
            self.revoke(consumer, partition);
        }
        for _ in 0..STEPS {
            self.now += WAIT_MS;
            for consumer in 0..2 {
                self.take_over(consumer);
                self.read(consumer);
                self.send(consumer);
            }
            while !self.in_flight.is_empty() {
                self.answer(false)?;
            }
            let end = |log: &Vec<(i64, What)>| log.last().map_or(0, |(offset, _)| offset + 1);
            if self.log.iter().map(end).eq(self.committed) {
                return Ok(());
            }
        }
        Err(format!("it stands still: committed {:?}", self.committed))
    }

    fn fresh_consumer(&self) -> Consumer {
        let mut pipeline = pipeline_of(self.policy, 1 << 30);
        for n in 0..self.customers_known {
            pipeline.reference(CUSTOMER).upsert(&customer(&format!("customer-{n}"), "s")).unwrap();
        }
        Consumer { pipeline, positions: BTreeMap::new(), take_overs: Vec::new() }
    }

    fn assign(&mut self, partition: usize) {
        let new = self.owner[partition];
        // A consumer hears of its loss before it is given the partition again.
        if let Some(at) = self.unheard.iter().position(|unheard| *unheard == (new, partition as i32)) {
            self.unheard.swap_remove(at);
            self.revoke(new, partition as i32);
        }
        let consumer = &mut self.consumers[new];
        let partition = partition as i32;
        let attempt = consumer.pipeline.assign(&[partition]);
        consumer.take_overs.push(TakeOver { attempt, partition, epoch: None });
        // Where Kafka would start; nothing of it may be accepted before the take-over.
        consumer.positions.insert(partition, self.committed[partition as usize]);
    }

    fn revoke(&mut self, consumer: usize, partition: i32) {
        let consumer = &mut self.consumers[consumer];
        consumer.positions.remove(&partition);
        let again = consumer.pipeline.revoke(&[partition]);
        consumer.take_over_again(again);
    }

    fn move_partition(&mut self) {
        let partition = self.random.below(PARTITIONS);
        let old = self.owner[partition];
        if self.random.one_in(3) {
            self.unheard.push((old, partition as i32));
        } else {
            if self.random.one_in(2) {
                self.close(old, Trigger::Drain);
            }
            self.revoke(old, partition as i32);
        }
        self.owner[partition] = 1 - old;
        self.assign(partition);
    }

    fn crash(&mut self, consumer: usize) {
        for in_flight in &mut self.in_flight {
            in_flight.consumer = in_flight.consumer.filter(|other| *other != consumer);
        }
        self.unheard.retain(|(other, _)| *other != consumer);
        self.consumers[consumer] = self.fresh_consumer();
        for partition in (0..PARTITIONS).filter(|partition| self.owner[*partition] == consumer).collect::<Vec<_>>() {
            self.owner[partition] = self.random.below(2);
            self.assign(partition);
        }
    }

    fn customer_arrives(&mut self) {
        if self.customers_known < CUSTOMERS {
            let record = customer(&format!("customer-{}", self.customers_known), "s");
            for consumer in &mut self.consumers {
                consumer.pipeline.reference(CUSTOMER).upsert(&record).unwrap();
            }
            self.customers_known += 1;
        }
    }

    /// One step of one take-over: the claim, or the load.
    fn take_over(&mut self, consumer: usize) {
        let Consumer { pipeline, positions, take_overs } = &mut self.consumers[consumer];
        if take_overs.is_empty() {
            return;
        }
        let at = self.random.below(take_overs.len());
        let TakeOver { attempt, partition, epoch } = &mut take_overs[at];
        let (attempt, partition) = (*attempt, *partition);
        let Some(epoch) = *epoch else {
            self.epochs[partition as usize] += 1;
            *epoch = Some(self.epochs[partition as usize]);
            return;
        };
        take_overs.swap_remove(at);
        let mut index = pipeline.new_index()();
        for (id, ..) in self.rows.iter().filter(|row| self.protocol.load && row.1 == partition) {
            index.load(*id, 1000, self.now);
        }
        let next_offset = self.committed[partition as usize];
        if pipeline.taken_over(attempt, partition, epoch, next_offset, index) {
            positions.insert(partition, next_offset);
        }
    }

    /// Reads a chunk of whatever the consumer believes it holds; now and then Kafka sends something again.
    fn read(&mut self, consumer: usize) {
        let Consumer { pipeline, positions, .. } = &mut self.consumers[consumer];
        if !pipeline.retry_waiting(self.now, &mut Vec::new()).unwrap() {
            return;
        }
        let mut chunk: Vec<Record<'_>> = Vec::new();
        for _ in 0..1 + self.random.below(12) {
            let partition = self.random.below(PARTITIONS);
            let Some(position) = positions.get_mut(&(partition as i32)) else { continue };
            if self.random.one_in(20) {
                *position = (*position - 2).max(0);
            }
            let Some((offset, what)) = self.log[partition].iter().find(|(offset, _)| offset >= position) else {
                continue;
            };
            *position = offset + 1;
            if pipeline.accept(partition as i32, *offset) {
                let value = Some(what.value());
                chunk.push(Record { partition: partition as i32, offset: *offset, timestamp_ms: 0, value });
            }
        }
        let process = pipeline.process(&chunk, self.now, |at, rejection| letter(&chunk[at], rejection));
        assert_eq!(process.unwrap().waiting, pipeline.is_waiting());
    }

    fn send(&mut self, consumer: usize) {
        let on_their_way = self.in_flight.iter().filter(|one| one.consumer == Some(consumer)).count();
        if on_their_way < 3 {
            self.close(consumer, Trigger::Age);
        }
    }

    fn close(&mut self, consumer: usize, trigger: Trigger) {
        if let Some(batch) = self.consumers[consumer].pipeline.close(trigger).unwrap() {
            self.in_flight.push(InFlight { consumer: Some(consumer), batch, landed: [false; 2] });
        }
    }

    /// The server takes up a request that is on its way, or the way breaks.
    fn answer(&mut self, faulty: bool) -> Result<(), String> {
        if self.in_flight.is_empty() {
            return Ok(());
        }
        let at = self.random.below(self.in_flight.len());
        let fate = if faulty { self.random.below(10) } else { 9 };
        let in_flight = &mut self.in_flight[at];
        let held = in_flight.batch.progress.iter().all(|one| self.epochs[one.partition as usize] == one.epoch);
        let refused = self.protocol.fence && !held && in_flight.batch.rows.num_rows() > 0;
        // 0: given up before it is applied, and applied later all the same; 1: lost.
        if fate > 1 && !refused {
            let months: &[usize] = if fate < 4 { &[0] } else { &[0, 1] };
            for month in months {
                if !in_flight.landed[*month] || !self.protocol.token {
                    let rows = landed(&in_flight.batch.rows).into_iter();
                    self.rows.extend(rows.filter(|(id, ..)| *id as usize % 2 == *month));
                    in_flight.landed[*month] = true;
                }
            }
        }
        let whole = in_flight.landed == [true; 2] && !refused;
        let consumer = in_flight.consumer;
        let seq = in_flight.batch.seq;
        if whole && fate > 5 {
            let in_flight = self.in_flight.swap_remove(at);
            let letters = in_flight.batch.dead_letters.iter().map(|letter| (letter.partition, letter.offset));
            self.dead.extend(letters);
            if let Some(consumer) = consumer {
                let committable = self.consumers[consumer].pipeline.durable(seq);
                self.commit(consumer, &committable)?;
            }
        } else if refused || fate < 2 {
            if let Some(consumer) = consumer {
                let again = self.consumers[consumer].pipeline.unsettled(seq);
                self.consumers[consumer].take_over_again(again);
            }
            if fate == 0 && !refused {
                self.in_flight[at].consumer = None;
            } else {
                self.in_flight.swap_remove(at);
            }
        }
        let mut seen = BTreeSet::new();
        match self.rows.iter().find(|(id, ..)| !seen.insert(*id)) {
            Some(row) => Err(format!("a row is there twice: {row:?}")),
            None => Ok(()),
        }
    }

    /// The group's coordinator takes a commit from the partition's owner only.
    fn commit(&mut self, consumer: usize, committable: &[Progress]) -> Result<(), String> {
        for Progress { partition, next_offset, .. } in committable.iter().copied() {
            if self.owner[partition as usize] != consumer {
                continue;
            }
            for (offset, what) in self.log[partition as usize].iter().take_while(|(offset, _)| *offset < next_offset) {
                let safe = match what {
                    What::Event(event) => self.rows.iter().any(|(id, ..)| *id == *event as u128),
                    What::Poison(_) => self.dead.contains(&(partition, *offset)),
                };
                if !safe {
                    return Err(format!("{partition} is committed to {next_offset} past {offset}, which is nowhere"));
                }
            }
            self.committed[partition as usize] = next_offset;
        }
        Ok(())
    }
}

impl Consumer {
    fn take_over_again(&mut self, again: Option<(Attempt, Vec<i32>)>) {
        let Some((attempt, partitions)) = again else { return };
        self.take_overs.extend(partitions.into_iter().map(|partition| TakeOver { attempt, partition, epoch: None }));
    }
}
