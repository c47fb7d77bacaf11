//! The comings and goings of partitions in a process, as `consumers/src/run/partitions.rs` has them: a rebalance is noted
//! when Kafka tells of it and completed later, a revocation after a drain whose time may run out.

use super::{
    super::super::*,
    consumer::{Fetch, Process},
    kafka::Rebalance,
    run::World,
    takeover::TakeOver,
};
use crate::batch::Trigger;

/// `drain_timeout`.
const DRAIN_TIMEOUT_MS: Millis = 20_000;

/// Partitions being given up.
pub(super) struct Draining {
    partitions: Vec<i32>,
    until: Millis,
    /// The process leaves when it is drained.
    leaving: bool,
}

impl Process {
    /// Joins the group, once nothing of an earlier membership is left.
    pub(super) fn join(&mut self, world: &mut World) {
        let free = self.noted.is_empty() && self.draining.is_none() && self.fetches.is_empty();
        if self.member.is_none() && free && world.kafka.up {
            let member = world.kafka.group.join(&mut world.random);
            world.say(|| format!("{:x} joins as member {member}", self.owner));
            self.member = Some(member);
        }
    }

    /// librdkafka learns that the group has gone on without this member.
    pub(super) fn learn_of_loss(&mut self, world: &mut World) {
        let Some(member) = self.member else { return };
        if world.kafka.up && !world.kafka.group.members.contains(&member) {
            let mut partitions: Vec<i32> = self.fetches.keys().copied().collect();
            partitions.extend(self.noted.iter().flat_map(|noted| match noted {
                Rebalance::Assigned(partitions) => partitions.clone(),
                Rebalance::Revoked { .. } => Vec::new(),
            }));
            world.say(|| format!("{:x} learns that it has lost {partitions:?}", self.owner));
            self.member = None;
            self.noted.push_back(Rebalance::Revoked { partitions, lost: true });
        }
    }

    /// Completes the oldest rebalance that is noted, or begins to drain for it.
    pub(super) fn rebalance(&mut self, world: &mut World) {
        match self.noted.pop_front() {
            None => {}
            Some(Rebalance::Assigned(partitions)) => {
                world.say(|| format!("{:x} is assigned {partitions:?}", self.owner));
                self.forget(&partitions);
                for partition in &partitions {
                    let position = world.kafka.ends[*partition as usize];
                    self.fetches.insert(*partition, Fetch { position, paused: true });
                }
                let attempt = self.pipeline.assign(&partitions);
                self.held = self.pipeline.assignment().held().collect();
                self.jobs.extend(TakeOver::of(attempt, &partitions, world.servers.len(), world.now));
            }
            Some(Rebalance::Revoked { partitions, lost: false }) => {
                world.say(|| format!("{:x} drains to give {partitions:?} up", self.owner));
                self.begin_drain(partitions, false, world);
            }
            Some(Rebalance::Revoked { partitions, lost: true }) => self.give_up(&partitions, world),
        }
    }

    /// SIGTERM.
    pub(super) fn leave(&mut self, world: &mut World) {
        world.say(|| format!("{:x} is told to leave", self.owner));
        self.begin_drain(Vec::new(), true, world);
    }

    fn begin_drain(&mut self, partitions: Vec<i32>, leaving: bool, world: &mut World) {
        self.draining = Some(Draining { partitions, until: world.now + DRAIN_TIMEOUT_MS, leaving });
        (0..self.pipeline.shards()).for_each(|shard| self.send(shard, Trigger::Drain, world));
    }

    /// Waits for what is in flight, or for the end of the time there is.
    pub(super) fn drain(&mut self, world: &mut World) {
        self.hear(world);
        let over = |draining: &Draining| world.now >= draining.until || !self.pipeline.in_flight();
        if self.draining.as_ref().is_some_and(|draining| !draining.leaving && over(draining)) {
            let partitions = self.draining.take().map_or_else(Vec::new, |draining| draining.partitions);
            self.commit_all(world);
            self.give_up(&partitions, world);
        }
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.draining.as_ref().is_some_and(|draining| draining.leaving)
    }

    /// Whether the process has drained and may go.
    pub(super) fn has_left(&mut self, world: &mut World) -> bool {
        let leaving = self.draining.as_ref().filter(|draining| draining.leaving);
        let gone = leaving.is_some_and(|draining| world.now >= draining.until || !self.pipeline.in_flight());
        if gone {
            self.commit_all(world);
        }
        gone
    }

    fn give_up(&mut self, partitions: &[i32], world: &mut World) {
        world.say(|| format!("{:x} gives {partitions:?} up", self.owner));
        self.forget(partitions);
        let restarted = self.pipeline.revoke(partitions);
        self.fetches.retain(|partition, _| !partitions.contains(partition));
        for partition in partitions {
            self.member.into_iter().for_each(|member| world.kafka.group.given_up(member, *partition));
        }
        self.take_over_again(restarted, false, world);
        self.held = self.pipeline.assignment().held().collect();
    }
}
