//! A run: which step comes next, until everything heals.

use std::collections::BTreeMap;

use super::{
    super::{super::*, world::WAIT},
    Case,
    clickhouse::Server,
    consumer::{Process, Settings},
    faults::{Fault, Faults},
    kafka::{Kafka, Member},
    oracle::Oracle,
    producer::{CUSTOMERS, Producer},
    random::Random,
};
use crate::spec::MissPolicy;

/// Steps with faults.
const STEPS: usize = 3000;
/// Rounds in which everything has to heal, each of half a second.
const ROUNDS: usize = 1200;
const ROUND_MS: Millis = 500;
const SLOTS: usize = 4;
/// Large against a run, and against jumps of the server's clock.
const WINDOW_MS: Millis = 24 * 3_600_000;
const SESSION_TIMEOUT_MS: Millis = 10_000;
const MAX_POLL_INTERVAL_MS: Millis = 30_000;

/// Everything but the consumers.
pub(super) struct World {
    pub(super) random: Random,
    pub(super) protocol: super::Protocol,
    pub(super) torn_commits: bool,
    pub(super) short_memory: bool,
    pub(super) policy: MissPolicy,
    pub(super) window_ms: Millis,
    /// True time; every process's own clock runs with it.
    pub(super) now: Millis,
    /// Whether anything may go wrong.
    pub(super) faulty: bool,
    pub(super) kafka: Kafka,
    /// By shard.
    pub(super) servers: Vec<Server>,
    pub(super) oracle: Oracle,
    pub(super) faults: Faults,
    pub(super) letters_fail: bool,
    /// Reference records that there are.
    pub(super) customers: usize,
    pub(super) processes_started: u64,
    pub(super) tokens_made: u64,
    tracing: bool,
}

impl World {
    /// Says what happens, when a single seed is replayed.
    #[expect(clippy::print_stdout, reason = "the trace of a replay is for the one who reads it")]
    pub(super) fn say(&self, what: impl FnOnce() -> String) {
        if self.tracing {
            println!("{:>9} ms  {}", self.now, what());
        }
    }

    pub(super) fn happened(&mut self, fault: Fault, what: impl FnOnce() -> String) {
        self.faults.count(fault);
        self.say(what);
    }
}

pub(super) struct Sim {
    pub(super) world: World,
    pub(super) producer: Producer,
    pub(super) processes: [Option<Process>; SLOTS],
    /// Since when the coordinator has not heard of a member.
    silent: BTreeMap<Member, Millis>,
    last_settings: Option<Settings>,
    /// Steps between two faults, about: some runs are stormy, others go far.
    calm: usize,
}

impl Sim {
    pub(super) fn new(seed: u64, case: &Case, tracing: bool) -> Self {
        let mut random = Random(seed);
        let partitions = 1 + random.below(4);
        let policy = [MissPolicy::Null, WAIT, MissPolicy::DeadLetter][random.below(3)];
        let customers = random.below(CUSTOMERS + 1);
        let strict = policy == MissPolicy::DeadLetter;
        let consumers = 1 + random.below(SLOTS);
        let shards = 1 + random.below(2);
        let calm = [15, 40, 100, 250][random.below(4)];
        let world = World {
            random,
            protocol: case.protocol,
            torn_commits: case.torn_commits,
            short_memory: case.short_memory,
            policy,
            window_ms: WINDOW_MS,
            now: 0,
            faulty: true,
            kafka: Kafka::new(partitions),
            servers: (0..shards).map(|_| Server::new(partitions)).collect(),
            oracle: Oracle::new(partitions, customers, strict),
            faults: Faults::default(),
            letters_fail: false,
            customers,
            processes_started: 0,
            tokens_made: 0,
            tracing,
        };
        let processes = std::array::from_fn(|_| None);
        let (producer, silent) = (Producer::default(), BTreeMap::new());
        let mut sim = Self { world, producer, processes, silent, last_settings: None, calm };
        (0..consumers).for_each(|slot| sim.start(slot));
        sim
    }

    /// Runs with faults, then without, and asks the oracle.
    pub(super) fn run(mut self) -> (Faults, Result<(), String>) {
        let outcome = self.run_to_the_end();
        let mut faults = self.world.faults;
        faults.seeds = 1;
        (faults, outcome)
    }

    fn run_to_the_end(&mut self) -> Result<(), String> {
        for _ in 0..STEPS {
            self.step();
            self.check()?;
        }
        self.heal()?;
        self.world.oracle.at_the_end(&self.world.kafka);
        self.check()
    }

    pub(super) fn check(&mut self) -> Result<(), String> {
        self.world.oracle.wrong.take().map_or(Ok(()), Err)
    }

    /// One step of anybody.
    fn step(&mut self) {
        self.world.now += match self.world.random.below(100) {
            0..80 => self.world.random.between(0, 10),
            80..98 => self.world.random.between(10, 200),
            98 => self.world.random.between(200, 2_000),
            _ => self.world.random.between(2_000, 4_000),
        };
        self.coordinate();
        if self.world.random.one_in(self.calm) {
            return self.fault();
        }
        match self.world.random.below(100) {
            0..2 => self.producer.step(&mut self.world),
            2..72 => self.step_of_a_process(),
            72 => self.write_late_claims(),
            _ => {
                let shard = self.world.random.below(self.world.servers.len());
                if let Some(at) = self.world.random.position(self.world.servers[shard].queries.len()) {
                    self.advance(shard, at);
                }
            }
        }
    }

    fn step_of_a_process(&mut self) {
        let running: Vec<usize> = (0..SLOTS).filter(|slot| self.processes[*slot].is_some()).collect();
        let Self { world, processes, .. } = self;
        let Some(slot) = world.random.position(running.len()).map(|at| running[at]) else { return };
        let Some(process) = &mut processes[slot] else { return };
        process.asleep_until = process.asleep_until.filter(|until| world.now < *until);
        process.stuck_until = process.stuck_until.filter(|until| world.now < *until);
        if process.asleep_until.is_some() {
            return;
        }
        match world.random.below(20) {
            0..4 if !process.inserts.is_empty() => process.land(world),
            4..8 if !process.jobs.is_empty() => process.take_over(world),
            0..18 if process.stuck_until.is_none() => process.work(world),
            18 => process.deliver_commit(world),
            19 => {
                process.learn_of_loss(world);
                process.join(world);
            }
            _ => {}
        }
        if process.has_left(world) {
            self.remove(slot, true);
        }
    }

    /// The coordinator puts out who is silent for too long, and tells members what it has decided.
    pub(super) fn coordinate(&mut self) {
        let Self { world, processes, silent, .. } = self;
        if !world.kafka.up {
            return;
        }
        let now = world.now;
        for member in world.kafka.group.members.clone() {
            let process = processes.iter_mut().flatten().find(|process| process.member == Some(member));
            let awake = process.as_ref().is_some_and(|process| {
                process.asleep_until.is_none_or(|until| until <= now)
                    && process.stuck_until.is_none_or(|until| until <= now)
            });
            let patience = match &process {
                Some(process) if process.asleep_until.is_none() => MAX_POLL_INTERVAL_MS,
                _ => SESSION_TIMEOUT_MS,
            };
            if awake {
                silent.remove(&member);
            } else if now - *silent.entry(member).or_insert(now) > patience {
                world.say(|| format!("the group goes on without member {member}"));
                if let Some(process) = process {
                    process.inserts.iter_mut().for_each(|insert| insert.slept |= process.asleep_until.is_some());
                    if process.asleep_until.is_none() {
                        world.faults.count(Fault::PollBlocked);
                    }
                }
                world.kafka.group.remove(member, &mut world.random);
            }
        }
        for (member, rebalance) in world.kafka.group.news() {
            let process = processes.iter_mut().flatten().find(|process| process.member == Some(member));
            process.into_iter().for_each(|process| process.noted.push_back(rebalance.clone()));
        }
    }

    pub(super) fn advance(&mut self, shard: usize, at: usize) {
        let Self { world, processes, .. } = self;
        let query = &world.servers[shard].queries[at];
        let sender = processes.iter().flatten().any(|process| {
            process.owner == query.owner
                && process.asleep_until.is_none_or(|until| until <= world.now)
                && process.inserts.iter().any(|insert| insert.shard == shard && insert.waits_for() == Some(query.id))
        });
        world.advance(shard, at, sender);
    }

    fn write_late_claims(&mut self) {
        for shard in 0..self.world.servers.len() {
            let late = self.world.random.position(self.world.servers[shard].late_claims.len());
            if let Some(at) = late.filter(|_| self.world.servers[shard].up) {
                let (owner, claims) = self.world.servers[shard].late_claims.swap_remove(at);
                self.world.write_claims(shard, owner, &claims);
            }
        }
    }

    pub(super) fn start(&mut self, slot: usize) {
        if self.processes[slot].is_some() {
            return;
        }
        let settings = Settings::any(&mut self.world);
        if self.last_settings.replace(settings).is_some_and(|last| last != settings) && self.world.now > 0 {
            self.world.faults.count(Fault::OtherSettings);
        }
        self.processes[slot] = Some(Process::start(settings, &mut self.world));
    }

    /// A process is gone. One that was killed is missed only when its session runs out.
    pub(super) fn remove(&mut self, slot: usize, in_peace: bool) {
        let Some(mut process) = self.processes[slot].take() else { return };
        let world = &mut self.world;
        world.say(|| format!("{:x} is gone", process.owner));
        if in_peace && world.kafka.up {
            process.member.into_iter().for_each(|member| world.kafka.group.remove(member, &mut world.random));
        }
        // What it wrote to its sockets may arrive all the same.
        while !process.commits.is_empty() && world.random.one_in(2) {
            process.deliver_commit(world);
        }
    }

    /// Nothing fails any more: all that was sent is read, landed and committed, and what is left of old requests comes in.
    pub(super) fn heal(&mut self) -> Result<(), String> {
        self.world.say(|| "from here on nothing fails".into());
        self.world.faulty = false;
        self.world.letters_fail = false;
        self.world.kafka.up = true;
        self.world.servers.iter_mut().for_each(|server| server.up = true);
        for process in self.processes.iter_mut().flatten() {
            (process.asleep_until, process.stuck_until) = (None, None);
        }
        // Whoever was told to leave may go, if somebody stays.
        self.until(|sim| !sim.processes.iter().flatten().any(Process::is_leaving))?;
        self.start(0);
        self.until(Self::has_caught_up)?;
        // A commit that was lost on a topic where nothing comes after it is made good by the one who leaves.
        (0..SLOTS).for_each(|slot| self.leave(slot));
        self.until(|sim| sim.processes.iter().all(Option::is_none))?;
        for shard in 0..self.world.servers.len() {
            while !self.world.servers[shard].queries.is_empty() {
                self.world.now += ROUND_MS;
                self.advance(shard, 0);
                self.check()?;
            }
        }
        if self.world.kafka.is_read() { Ok(()) } else { Err(self.standing()) }
    }

    fn until(&mut self, done: impl Fn(&Self) -> bool) -> Result<(), String> {
        for _ in 0..ROUNDS {
            if done(self) {
                return Ok(());
            }
            self.round();
            self.check()?;
        }
        Err(self.standing())
    }

    fn standing(&self) -> String {
        format!("it stands still: committed {:?} of {:?}", self.world.kafka.committed, self.world.kafka.ends)
    }

    /// Whether every record was read by the consumer to whom its partition belongs, and nothing is on its way.
    fn has_caught_up(&self) -> bool {
        let kafka = &self.world.kafka;
        let idle = self.processes.iter().flatten().all(|process| process.is_idle());
        idle && (0..).zip(&kafka.logs).all(|(partition, log)| {
            let end = log.last().map_or(0, |(offset, _)| offset + 1);
            let owner = kafka.group.owners[partition as usize];
            let owner =
                self.processes.iter().flatten().find(|process| process.member.is_some() && process.member == owner);
            let running = |process: &Process| {
                process.pipeline.assignment().running().any(|one| one.0 == partition && one.1 >= end)
            };
            owner.is_some_and(running)
        })
    }

    /// Everybody gets on.
    fn round(&mut self) {
        self.world.now += ROUND_MS;
        self.coordinate();
        self.write_late_claims();
        for shard in 0..self.world.servers.len() {
            for at in (0..self.world.servers[shard].queries.len()).rev() {
                self.advance(shard, at);
            }
        }
        for slot in 0..SLOTS {
            let Self { world, processes, .. } = self;
            let Some(process) = &mut processes[slot] else { continue };
            process.learn_of_loss(world);
            process.join(world);
            (0..8).for_each(|_| process.work(world));
            (0..process.inserts.len()).for_each(|_| process.land(world));
            (0..process.jobs.len()).for_each(|_| process.take_over(world));
            process.deliver_commits(world);
            if process.has_left(world) {
                self.remove(slot, true);
            }
        }
    }

    /// Whether any insert is under way, at either end.
    pub(super) fn is_inserting(&self) -> bool {
        let sending = self.processes.iter().flatten().any(|process| !process.inserts.is_empty());
        sending || self.world.servers.iter().any(|server| !server.queries.is_empty())
    }
}
