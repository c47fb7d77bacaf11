//! What goes wrong, by chance.

use super::{clickhouse::Stage, faults::Fault, producer::CUSTOMERS, run::Sim};
use crate::{dedup::Millis, spec::MissPolicy};

const HOUR_MS: i64 = 3_600_000;
const LONGEST_SLEEP_MS: Millis = 3 * 60_000;
const LONGEST_BLOCK_MS: Millis = 90_000;
const LONGEST_SILENCE_MS: Millis = 20 * 60_000;

impl Sim {
    pub(super) fn fault(&mut self) {
        let slot = self.world.random.below(self.processes.len());
        let shard = self.world.random.below(self.world.servers.len());
        match self.world.random.below(40) {
            0..2 => self.kill(slot),
            2 => {
                // One that has an acknowledgement, and whose commit is not made.
                let owing = |process: &super::consumer::Process| process.owes_commit();
                let owing = self.processes.iter().position(|process| process.as_ref().is_some_and(owing));
                owing.into_iter().for_each(|slot| self.kill(slot));
            }
            3..10 => self.start(slot),
            10 => self.leave(slot),
            11..14 => self.sleep(slot),
            14 | 15 => self.block(slot),
            16 => self.world.kill_server(shard),
            17 if self.world.servers[shard].queries.iter().any(|query| query.stage != Stage::Travelling) => {
                self.world.kill_server(shard)
            }
            17..22 => self.world.servers[shard].up = true,
            22 => {
                self.world.happened(Fault::BrokerDown, || "the broker is down".into());
                self.world.kafka.up = false;
            }
            23..27 => self.broker_returns(),
            27 => self.storm(),
            28 => self.world.kafka.group.rebalance(&mut self.world.random),
            29 => {
                let jump = [-HOUR_MS, HOUR_MS][self.world.random.below(2)];
                // Not ever farther: the window has to be large against it.
                let server = &mut self.world.servers[shard];
                server.skew_ms = (server.skew_ms + jump).clamp(-HOUR_MS, HOUR_MS);
                self.world.say(|| format!("the clock of shard {shard} jumps by {jump} ms"));
            }
            30..33 => self.world.overrun_tokens(shard),
            33 => self.world.letters_fail = true,
            34..36 => self.world.letters_fail = false,
            36 | 37 if self.world.policy != MissPolicy::DeadLetter && self.world.customers < CUSTOMERS => {
                self.world.customers += 1;
            }
            // Whoever waits for an answer would notice the time, unless tokens are not relied on.
            38 if self.world.short_memory || !self.is_inserting() => {
                self.world.now += self.world.random.between(60_000, LONGEST_SILENCE_MS);
                self.world.say(|| "nothing happens for a long time".into());
            }
            _ => {}
        }
    }

    fn kill(&mut self, slot: usize) {
        let Some(process) = &self.processes[slot] else { return };
        let fault = if process.owes_commit() { Fault::KillBeforeCommit } else { Fault::Kill };
        let owner = process.owner;
        self.world.happened(fault, || format!("{owner:x} is killed"));
        self.remove(slot, false);
    }

    pub(super) fn leave(&mut self, slot: usize) {
        let Self { world, processes, .. } = self;
        if let Some(process) = processes[slot].as_mut().filter(|process| process.draining.is_none()) {
            process.leave(world);
        }
    }

    fn sleep(&mut self, slot: usize) {
        let Self { world, processes, .. } = self;
        if let Some(process) = processes[slot].as_mut() {
            let until = world.now + world.random.between(1_000, LONGEST_SLEEP_MS);
            world.say(|| format!("{:x} sleeps until {until}", process.owner));
            process.asleep_until = Some(until);
        }
    }

    fn block(&mut self, slot: usize) {
        let Self { world, processes, .. } = self;
        if let Some(process) = processes[slot].as_mut() {
            let until = world.now + world.random.between(1_000, LONGEST_BLOCK_MS);
            world.say(|| format!("the poll loop of {:x} is blocked until {until}", process.owner));
            process.stuck_until = Some(until);
        }
    }

    /// The broker may have been away for longer than sessions last.
    fn broker_returns(&mut self) {
        let world = &mut self.world;
        if world.kafka.up {
            return;
        }
        world.kafka.up = true;
        world.say(|| "the broker is back".into());
        for member in world.kafka.group.members.clone() {
            if world.random.one_in(2) {
                world.kafka.group.remove(member, &mut world.random);
            }
        }
    }

    fn storm(&mut self) {
        self.world.happened(Fault::RebalanceStorm, || "members join, leave and die".into());
        let first = self.world.random.below(self.processes.len());
        self.kill(first);
        for slot in 0..self.processes.len() {
            self.start(slot);
            self.coordinate();
            if self.world.random.one_in(4) {
                self.leave(slot);
            }
            let Self { world, processes, .. } = self;
            processes[slot].iter_mut().for_each(|process| process.join(world));
            world.kafka.group.rebalance(&mut world.random);
        }
        self.coordinate();
    }
}
