//! What a topic's thread tells of itself once a second, and that it stands still when it is told to.

use std::collections::BTreeMap;

use super::worker::Worker;
use crate::admin::board::{Partition, State, View};

impl Worker {
    /// Reads nothing from now on, or reads on. What is under way lands and is committed, partitions stay claimed, and Kafka
    /// is polled, so that the group counts on this process; partitions that come meanwhile stand still too.
    pub(super) fn hold(&mut self, hold: bool) {
        if self.held != hold {
            let said = if hold { "the topic is paused by command" } else { "the topic is resumed by command" };
            tracing::warn!(topic = self.crew.topic, "{said}");
        }
        self.held = hold;
        self.tell_readiness();
        self.tell_status();
    }

    /// Tells whether events are processed, and why not.
    pub(super) fn tell_readiness(&self) {
        if !self.leaving {
            let (complete, settled) = (self.incomplete.is_empty(), self.pipeline.assignment().settled());
            self.crew.set_ready(complete, settled, self.held, self.trouble());
        }
    }

    /// Tells where the topic stands.
    pub(super) fn tell_status(&self) {
        let state = match (self.leaving, self.held) {
            (true, _) => State::Draining,
            (false, true) => State::Paused,
            (false, false) => State::Running,
        };
        self.crew.cell.tell(View {
            state,
            stopped: None,
            owner: Some(self.crew.owner.clone()),
            dedup_ids: self.pipeline.dedup_ids() as u64,
            inserts_in_flight: self.in_flight() as u64,
            breakers: self.crew.breakers(),
            partitions: self.partitions(),
        });
    }

    fn partitions(&self) -> Vec<Partition> {
        let assignment = self.pipeline.assignment();
        let running: BTreeMap<i32, i64> = assignment.running().collect();
        let held = assignment.held().map(|partition| {
            let next_offset = running.get(&partition).copied();
            let high_watermark = self.source.known_high(partition);
            let behind = next_offset.and_then(|_| self.behind.get(&partition).copied());
            Partition {
                partition,
                state: match next_offset {
                    None => "taking_over",
                    Some(_) if self.held => "paused",
                    Some(_) if self.paused || self.is_shut(partition) => "blocked",
                    Some(_) if self.stash.contains_key(&partition) => "waiting_for_schema",
                    Some(_) => "running",
                },
                epoch: assignment.epoch(partition),
                next_offset,
                committed: self.committed.get(&partition).map(|progress| progress.next_offset),
                high_watermark,
                lag_events: behind.map(|(events, _)| events),
                lag_seconds: behind.and_then(|(_, seconds)| seconds),
            }
        });
        held.collect()
    }
}
