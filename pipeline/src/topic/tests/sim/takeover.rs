//! Taking partitions over, as `consumers/src/takeover.rs` and `consumers/src/clickhouse/claims.rs` do it: claim, read
//! the holders back, quiet, position, ids. Anything may happen between two steps.

use std::collections::BTreeSet;

use super::{clickhouse::Owner, run::World};
use crate::{
    assignment::Attempt,
    dedup::{Millis, PartitionIndex},
    shard::shard_of,
};

const LONGEST_BACKOFF_MS: Millis = 15_000;

pub(super) struct TakeOver {
    pub(super) attempt: Attempt,
    pub(super) shard: usize,
    unclaimed: Vec<i32>,
    stage: Stage,
}

enum Stage {
    Resting {
        until: Millis,
    },
    /// The greatest epochs are read; the claims are not written.
    Claiming(Vec<(i32, u64)>),
    /// The claims are written; who holds the partitions is not known.
    Claimed,
    Quieting(Vec<(i32, u64)>),
    Loading(Vec<Load>),
}

struct Load {
    partition: i32,
    epoch: u64,
    /// Where reading starts, and whether the group has never committed.
    from: Option<(i64, bool)>,
}

/// A partition that can be read.
pub(super) struct Ready {
    pub(super) attempt: Attempt,
    pub(super) partition: i32,
    pub(super) epoch: u64,
    pub(super) next_offset: i64,
    pub(super) uncommitted: bool,
    pub(super) index: PartitionIndex,
}

/// Whose take-over it is.
pub(super) struct Who<'a> {
    pub(super) owner: Owner,
    pub(super) held: &'a BTreeSet<i32>,
    /// The process's own clock.
    pub(super) clock: Millis,
    /// Which life of the server it knows; learnt with its claims.
    pub(super) life: &'a mut u64,
}

impl TakeOver {
    /// One for each shard that has some of the partitions.
    pub(super) fn of(attempt: Attempt, partitions: &[i32], shards: usize, rest_until: Millis) -> Vec<Self> {
        let of_shard = |shard| partitions.iter().copied().filter(|one| shard_of(*one, shards) == shard).collect();
        let jobs = (0..shards).map(|shard| Self::new(attempt, shard, of_shard(shard), rest_until));
        jobs.filter(|job| !job.unclaimed.is_empty()).collect()
    }

    fn new(attempt: Attempt, shard: usize, partitions: Vec<i32>, rest_until: Millis) -> Self {
        Self { attempt, shard, unclaimed: partitions, stage: Stage::Resting { until: rest_until } }
    }

    /// The next step: whether the job is over, and what became ready.
    pub(super) fn step(
        &mut self,
        who: Who<'_>,
        new_index: impl Fn() -> PartitionIndex,
        world: &mut World,
    ) -> (bool, Option<Ready>) {
        match &mut self.stage {
            Stage::Resting { until } => {
                if world.now < *until {
                    return (false, None);
                }
                self.unclaimed.retain(|partition| who.held.contains(partition));
                if self.unclaimed.is_empty() {
                    return (true, None);
                }
                if world.servers[self.shard].up {
                    let claims = self.unclaimed.iter().map(|one| (*one, world.servers[self.shard].next_epoch(*one)));
                    self.stage = Stage::Claiming(claims.collect());
                } else {
                    self.again(world);
                }
            }
            Stage::Claiming(claims) => {
                let claims = std::mem::take(claims);
                self.stage = Stage::Claimed;
                if !world.servers[self.shard].up {
                    self.again(world);
                } else if world.faulty && world.random.one_in(12) {
                    world
                        .say(|| format!("{:x} gives its claims {claims:?} up; they are still on their way", who.owner));
                    world.servers[self.shard].late_claims.push((who.owner, claims));
                    self.again(world);
                } else {
                    world.write_claims(self.shard, who.owner, &claims);
                    if world.faulty && world.random.one_in(15) {
                        self.again(world);
                    }
                }
            }
            Stage::Claimed if !world.servers[self.shard].up => self.again(world),
            Stage::Claimed => {
                let mine = self.unclaimed.iter().filter_map(|partition| {
                    let (epoch, owner) = world.servers[self.shard].holder(*partition)?;
                    (owner == who.owner).then_some((*partition, epoch))
                });
                self.stage = Stage::Quieting(mine.collect());
                *who.life = world.servers[self.shard].life;
            }
            Stage::Quieting(_) if !world.servers[self.shard].up => self.again(world),
            Stage::Quieting(claimed) => {
                let partitions: Vec<i32> = claimed.iter().map(|(partition, _)| *partition).collect();
                let mut running = 0;
                for query in world.servers[self.shard].running(&partitions).filter(|_| world.protocol.quiet) {
                    query.killed = true;
                    running += 1;
                }
                if running > 0 {
                    world
                        .say(|| format!("{:x} waits for {running} inserts that hold one of {partitions:?}", who.owner));
                    return (false, None);
                }
                let loads = std::mem::take(claimed).into_iter();
                self.stage =
                    Stage::Loading(loads.map(|(partition, epoch)| Load { partition, epoch, from: None }).collect());
            }
            Stage::Loading(loads) => {
                let Some(at) = world.random.position(loads.len()) else {
                    self.again(world);
                    return (false, None);
                };
                let load = &mut loads[at];
                match load.from {
                    None if world.kafka.up => load.from = Some(position(load.partition, world)),
                    None => {}
                    Some(_) if !world.servers[self.shard].up => load.from = None,
                    Some((next_offset, uncommitted)) => {
                        let Load { partition, epoch, .. } = loads.swap_remove(at);
                        self.unclaimed.retain(|other| *other != partition);
                        let mut index = new_index();
                        if world.protocol.load {
                            load_ids(self.shard, partition, next_offset, &mut index, who.clock, world);
                        }
                        let ids = index.len();
                        world.say(|| {
                            format!("{:x} has loaded {ids} ids of {partition} from {next_offset} on", who.owner)
                        });
                        let ready = Ready { attempt: self.attempt, partition, epoch, next_offset, uncommitted, index };
                        return (self.unclaimed.is_empty(), Some(ready));
                    }
                }
            }
        }
        (false, None)
    }

    /// Something failed, or somebody else holds a partition: begin anew with what is not claimed.
    fn again(&mut self, world: &mut World) {
        self.stage = Stage::Resting { until: world.now + world.random.between(100, LONGEST_BACKOFF_MS) };
    }
}

fn position(partition: i32, world: &World) -> (i64, bool) {
    let committed = world.kafka.committed[partition as usize];
    (committed.unwrap_or(0), committed.is_none())
}

/// One SELECT: what the table holds at that moment of the partition, inside the window by the server's clock or at or
/// past the offset to read next.
fn load_ids(shard: usize, partition: i32, from: i64, index: &mut PartitionIndex, clock: Millis, world: &World) {
    let server = &world.servers[shard];
    let wall = server.wall(world.now);
    for (row, ingested_at) in server.table.iter().filter(|(row, _)| row.partition == partition) {
        if row.offset >= from {
            index.load(&[(row.event as u128, 0)], clock);
        } else if *ingested_at >= wall - world.window_ms as i64 {
            let age_s = (wall - ingested_at).max(0) as u64 / 1000;
            index.load(&[(row.event as u128, age_s * 1000)], clock);
        }
    }
}
