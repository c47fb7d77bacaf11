//! Kafka: the log of each partition, the consumer group with its cooperative rebalances, committed offsets, and the
//! dead-letter topic.

use std::collections::{BTreeMap, BTreeSet};

use super::{producer::What, random::Random};

/// A member of the group; one that joins again is another.
pub(super) type Member = u64;

/// What a consumer is told of its assignment.
#[derive(Clone, Debug)]
pub(super) enum Rebalance {
    Assigned(Vec<i32>),
    Revoked { partitions: Vec<i32>, lost: bool },
}

pub(super) struct Kafka {
    pub(super) up: bool,
    /// What a reader of committed transactions sees, by offset.
    pub(super) logs: Vec<Vec<(i64, What)>>,
    pub(super) ends: Vec<i64>,
    pub(super) committed: Vec<Option<i64>>,
    /// Source partition and offset of each dead letter.
    pub(super) dead: BTreeSet<(i32, i64)>,
    pub(super) group: Group,
}

impl Kafka {
    pub(super) fn new(partitions: usize) -> Self {
        Self {
            up: true,
            logs: vec![Vec::new(); partitions],
            ends: vec![0; partitions],
            committed: vec![None; partitions],
            dead: BTreeSet::new(),
            group: Group {
                members: BTreeSet::new(),
                owners: vec![None; partitions],
                target: vec![None; partitions],
                asked: vec![false; partitions],
                next_member: 0,
            },
        }
    }

    pub(super) fn append(&mut self, partition: usize, what: What) -> i64 {
        let offset = self.ends[partition];
        self.logs[partition].push((offset, what));
        self.ends[partition] += 1;
        offset
    }

    /// The first record of a partition at or past an offset.
    pub(super) fn fetch(&self, partition: i32, offset: i64) -> Option<(i64, What)> {
        let log = &self.logs[partition as usize];
        log.get(log.partition_point(|(at, _)| *at < offset)).copied()
    }

    /// Whether everything there is to read is committed.
    pub(super) fn is_read(&self) -> bool {
        self.logs.iter().zip(&self.committed).all(|(log, committed)| {
            log.last().is_none_or(|(offset, _)| committed.is_some_and(|committed| committed > *offset))
        })
    }
}

/// The coordinator of the group.
pub(super) struct Group {
    pub(super) members: BTreeSet<Member>,
    /// To whom each partition is given.
    pub(super) owners: Vec<Option<Member>>,
    /// To whom each is to be given next.
    target: Vec<Option<Member>>,
    /// Whether its owner has been asked to give it up.
    asked: Vec<bool>,
    next_member: Member,
}

impl Group {
    pub(super) fn join(&mut self, random: &mut Random) -> Member {
        self.next_member += 1;
        self.members.insert(self.next_member);
        self.rebalance(random);
        self.next_member
    }

    /// A member left, or its session ran out.
    pub(super) fn remove(&mut self, member: Member, random: &mut Random) {
        self.members.remove(&member);
        for (owner, asked) in self.owners.iter_mut().zip(&mut self.asked) {
            if *owner == Some(member) {
                (*owner, *asked) = (None, false);
            }
        }
        self.rebalance(random);
    }

    /// A member has given a partition up.
    pub(super) fn given_up(&mut self, member: Member, partition: i32) {
        let partition = partition as usize;
        if self.owners[partition] == Some(member) {
            (self.owners[partition], self.asked[partition]) = (None, false);
        }
    }

    /// Decides anew who is to have what; most partitions stay where they are.
    pub(super) fn rebalance(&mut self, random: &mut Random) {
        let members: Vec<Member> = self.members.iter().copied().collect();
        for (target, owner) in self.target.iter_mut().zip(&self.owners) {
            let stays = owner.is_some_and(|owner| self.members.contains(&owner)) && !random.one_in(3);
            *target = if stays { *owner } else { random.position(members.len()).map(|at| members[at]) };
        }
    }

    /// What members are to be told now.
    pub(super) fn news(&mut self) -> Vec<(Member, Rebalance)> {
        let mut assigned: BTreeMap<Member, Vec<i32>> = BTreeMap::new();
        let mut revoked: BTreeMap<Member, Vec<i32>> = BTreeMap::new();
        for partition in 0..self.owners.len() {
            match (self.owners[partition], self.target[partition]) {
                (owner, target) if owner == target => {}
                (Some(owner), _) => {
                    if !std::mem::replace(&mut self.asked[partition], true) {
                        revoked.entry(owner).or_default().push(partition as i32);
                    }
                }
                (None, Some(target)) => {
                    self.owners[partition] = Some(target);
                    assigned.entry(target).or_default().push(partition as i32);
                }
                (None, None) => {}
            }
        }
        let revoked =
            revoked.into_iter().map(|(who, partitions)| (who, Rebalance::Revoked { partitions, lost: false }));
        revoked.chain(assigned.into_iter().map(|(who, partitions)| (who, Rebalance::Assigned(partitions)))).collect()
    }
}
