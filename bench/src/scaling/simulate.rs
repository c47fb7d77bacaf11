//! A backlog drained by several consumers into several ClickHouse servers, event by event of a queue, from a seed.
//!
//! A consumer reads up to an insert's rows of its partitions of one shard, on one core of its host, and hands them over; two
//! inserts of a consumer may be under way at each shard, and a third batch waits for them. A shard works on as many inserts at a time as it has cores. Every
//! service time is that of [`Costs`], up to a tenth shorter or longer. Partitions have backlogs of different sizes; one
//! consumer is replaced half-way. Left out: the network, brokers as a bottleneck, memory, and queries.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::costs::Costs;
use crate::random::Random;

/// What is simulated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) consumers: usize,
    pub(crate) partitions: usize,
    pub(crate) shards: usize,
    /// Records of all partitions.
    pub(crate) events: f64,
    /// Backlogs are up to this share smaller or larger than on average.
    pub(crate) skew: f64,
    pub(crate) hosts: Hosts,
    /// Whether one consumer is replaced half-way.
    pub(crate) replaced: bool,
    pub(crate) seed: u64,
}

/// Where everything runs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Hosts {
    /// On one machine with so many cores, the broker too.
    Shared(usize),
    /// A host for each consumer, and one with so many cores for each shard.
    Apart(usize),
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Run {
    /// From the start of the processes until the last row.
    pub(crate) seconds: f64,
    pub(crate) inserts: u64,
}

/// Cores that take work in the order in which it comes.
struct Pool(Vec<f64>);

impl Pool {
    /// When work that comes at `now` is done.
    fn run(&mut self, now: f64, work: f64) -> f64 {
        let Some(core) = self.0.iter_mut().min_by(|a, b| a.total_cmp(b)) else { return now };
        *core = core.max(now) + work;
        *core
    }
}

/// In the queue by time; of two at once the one that was put in first comes first.
#[derive(Clone, Copy, PartialEq)]
struct Event {
    at: f64,
    number: u64,
    what: What,
}

#[derive(Clone, Copy, PartialEq)]
enum What {
    /// A consumer looks for something to read.
    Looks(usize),
    /// It has read rows for a shard.
    HasRead { consumer: usize, shard: usize, rows: f64 },
    /// A shard has acknowledged them.
    Landed { consumer: usize, shard: usize, rows: f64 },
}

impl Eq for Event {}

impl Ord for Event {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.total_cmp(&other.at).then(self.number.cmp(&other.number))
    }
}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// A batch of a consumer for a shard.
#[derive(Clone, Copy)]
enum Batch {
    IsRead,
    Waits(f64),
}

/// Inserts of a consumer under way at a shard.
const IN_FLIGHT: u32 = 2;

struct Simulation<'a> {
    costs: &'a Costs,
    setup: Setup,
    random: Random,
    queue: BinaryHeap<Reverse<Event>>,
    numbers: u64,
    /// Records left, by consumer and shard.
    backlog: Vec<Vec<f64>>,
    under_way: Vec<Vec<u32>>,
    /// Rows of a batch that is being read, or waits for an insert to end.
    open: Vec<Vec<Option<Batch>>>,
    /// Shard that a consumer looks at first.
    turn: Vec<usize>,
    /// A consumer that has nothing under way that would have it look again.
    waits: Vec<bool>,
    away_until: Vec<f64>,
    consumer_hosts: Vec<Pool>,
    shard_hosts: Vec<Pool>,
    landed: f64,
    run: Run,
}

/// Drains the backlog.
pub(crate) fn simulate(costs: &Costs, setup: Setup) -> Run {
    let mut random = Random::new(setup.seed, 0);
    let mut backlog = vec![vec![0.0; setup.shards]; setup.consumers];
    let sizes: Vec<f64> =
        (0..setup.partitions).map(|_| 1.0 + setup.skew * (2.0 * fraction(&mut random) - 1.0)).collect();
    let all: f64 = sizes.iter().sum();
    for (partition, size) in sizes.into_iter().enumerate() {
        backlog[partition % setup.consumers][partition % setup.shards] += size / all * setup.events;
    }
    let (consumer_hosts, shard_hosts) = match setup.hosts {
        Hosts::Shared(cores) => (vec![Pool(vec![0.0; cores])], Vec::new()),
        Hosts::Apart(cores) => {
            let hosts = |number: usize, cores: usize| (0..number).map(|_| Pool(vec![0.0; cores])).collect();
            (hosts(setup.consumers, 1), hosts(setup.shards, cores))
        }
    };
    let mut simulation = Simulation {
        costs,
        setup,
        random,
        queue: BinaryHeap::new(),
        numbers: 0,
        under_way: vec![vec![0; setup.shards]; setup.consumers],
        open: vec![vec![None; setup.shards]; setup.consumers],
        turn: (0..setup.consumers).collect(),
        waits: vec![false; setup.consumers],
        away_until: vec![0.0; setup.consumers],
        backlog,
        consumer_hosts,
        shard_hosts,
        landed: 0.0,
        run: Run { seconds: 0.0, inserts: 0 },
    };
    for consumer in 0..setup.consumers {
        let started = simulation.consumer_host(consumer).run(0.0, costs.start_cpu_seconds);
        simulation.put(started.max(costs.start_seconds), What::Looks(consumer));
    }
    simulation.drain()
}

/// From 0 to 1.
fn fraction(random: &mut Random) -> f64 {
    random.below(1 << 53) as f64 / (1_u64 << 53) as f64
}

impl Simulation<'_> {
    fn drain(mut self) -> Run {
        let mut replaced = !self.setup.replaced;
        while let Some(Reverse(Event { at, what, .. })) = self.queue.pop() {
            match what {
                What::Looks(consumer) => self.look(consumer, at),
                What::HasRead { consumer, shard, rows } => {
                    self.open[consumer][shard] = Some(Batch::Waits(rows));
                    self.insert(consumer, shard, at);
                    self.look(consumer, at);
                }
                What::Landed { consumer, shard, rows } => {
                    self.under_way[consumer][shard] -= 1;
                    self.landed += rows;
                    self.run.inserts += 1;
                    self.run.seconds = at;
                    if !replaced && self.landed >= self.setup.events / 2.0 {
                        replaced = true;
                        self.away_until[0] = at + self.costs.takeover_fixed;
                    }
                    self.insert(consumer, shard, at);
                    if std::mem::take(&mut self.waits[consumer]) {
                        self.look(consumer, at);
                    }
                }
            }
        }
        self.run
    }

    /// Reads on for the next shard that has records and takes an insert, or waits for one that landed.
    fn look(&mut self, consumer: usize, now: f64) {
        if now < self.away_until[consumer] {
            return self.put(self.away_until[consumer], What::Looks(consumer));
        }
        let shards = self.setup.shards;
        for _ in 0..shards {
            let shard = self.turn[consumer] % shards;
            self.turn[consumer] += 1;
            let rows = self.backlog[consumer][shard].min(self.costs.full_insert_rows);
            if rows <= 0.0 || self.open[consumer][shard].is_some() {
                continue;
            }
            self.backlog[consumer][shard] -= rows;
            self.open[consumer][shard] = Some(Batch::IsRead);
            let broker =
                if matches!(self.setup.hosts, Hosts::Shared(_)) { self.costs.kafka_read_per_event } else { 0.0 };
            let work = self.jittered(rows * (self.costs.consumer_per_event + broker));
            let read = self.consumer_host(consumer).run(now, work);
            return self.put(read, What::HasRead { consumer, shard, rows });
        }
        self.waits[consumer] = true;
    }

    /// Hands a batch over that waits, if the shard takes another insert of the consumer.
    fn insert(&mut self, consumer: usize, shard: usize, now: f64) {
        let Some(Batch::Waits(rows)) = self.open[consumer][shard] else { return };
        if self.under_way[consumer][shard] == IN_FLIGHT {
            return;
        }
        self.open[consumer][shard] = None;
        self.under_way[consumer][shard] += 1;
        let work = self.jittered(self.costs.insert_fixed + rows * self.row_cost());
        let done = self.shard_host(shard).run(now, work);
        self.put(done, What::Landed { consumer, shard, rows });
    }

    /// Where everything shares a machine, short backlogs are drained, and most merges come later.
    fn row_cost(&self) -> f64 {
        match self.setup.hosts {
            Hosts::Shared(_) => self.costs.short_insert_per_row,
            Hosts::Apart(_) => self.costs.insert_per_row,
        }
    }

    fn jittered(&mut self, seconds: f64) -> f64 {
        seconds * (0.9 + 0.2 * fraction(&mut self.random))
    }

    fn consumer_host(&mut self, consumer: usize) -> &mut Pool {
        let hosts = self.consumer_hosts.len();
        &mut self.consumer_hosts[consumer % hosts]
    }

    fn shard_host(&mut self, shard: usize) -> &mut Pool {
        match self.setup.hosts {
            Hosts::Shared(_) => &mut self.consumer_hosts[0],
            Hosts::Apart(_) => &mut self.shard_hosts[shard],
        }
    }

    fn put(&mut self, at: f64, what: What) {
        self.numbers += 1;
        self.queue.push(Reverse(Event { at, number: self.numbers, what }));
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::ROUND;
    use super::*;

    const SETUP: Setup = Setup {
        consumers: 1,
        partitions: 4,
        shards: 1,
        events: 10e6,
        skew: 0.0,
        hosts: Hosts::Apart(16),
        replaced: false,
        seed: 1,
    };

    fn seconds(setup: Setup) -> f64 {
        simulate(&ROUND, setup).seconds
    }

    #[test]
    fn one_consumer_with_a_host_of_its_own_is_as_fast_as_its_thread() {
        // 10 million events at 1 µs, a start of 1 s before and the last insert of 0.3 s after.
        let run = simulate(&ROUND, Setup { shards: 2, ..SETUP });
        assert!((run.seconds - 11.3).abs() < 0.3, "{run:?}");
        assert_eq!(run.inserts, 100);
        // One shard takes two inserts of it at a time, of 0.3 s each: 0.15 s for a batch that is read in 0.1 s.
        assert!((seconds(SETUP) - 16.2).abs() < 0.4, "{}", seconds(SETUP));
        assert_eq!(run, simulate(&ROUND, Setup { shards: 2, ..SETUP }), "a seed is a run");
    }

    #[test]
    fn one_machine_for_all_is_as_fast_as_all_work_on_its_cores() {
        // 1 µs to read, 0.5 for the broker, 2 and 1 for the insert: 4.5 µs on two cores.
        let shared = Setup { hosts: Hosts::Shared(2), ..SETUP };
        assert!((seconds(shared) - 1.0 - 22.5).abs() < 1.0, "{}", seconds(shared));
        let more = seconds(Setup { consumers: 4, ..shared });
        assert!((more - seconds(shared)).abs() < 1.5, "consumers bring no cores: {more}");
    }

    #[test]
    fn a_slow_shard_holds_its_consumers_up_and_uneven_partitions_make_one_consumer_last() {
        // 3 µs a row on one core of one shard, whatever reads.
        let slow = Setup { hosts: Hosts::Apart(1), consumers: 4, ..SETUP };
        assert!((seconds(slow) - 1.0 - 30.0).abs() < 2.0, "{}", seconds(slow));
        // Five partitions for four consumers: one has two.
        let uneven = seconds(Setup { partitions: 5, consumers: 4, ..SETUP });
        let even = seconds(Setup { partitions: 8, consumers: 4, ..SETUP });
        assert!(uneven > 1.3 * even, "{uneven} {even}");
        let replaced = seconds(Setup { replaced: true, ..SETUP });
        assert!((replaced - seconds(SETUP) - ROUND.takeover_fixed).abs() < 0.5, "{replaced}");
    }
}
