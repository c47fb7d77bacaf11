//! Whether another shard than its own holds a partition: then the number of shards was changed, and what the other one knows of
//! the partition is not known here.

use std::{
    collections::BTreeMap,
    fmt,
    sync::atomic::{AtomicBool, Ordering},
};

use crate::{clickhouse::claims::Claims, one_line};

/// The claims of the topic on the other shards.
#[derive(Default)]
pub struct Elsewhere {
    own: usize,
    others: Vec<Other>,
}

struct Other {
    shard: usize,
    claims: Claims,
    /// Whether it has answered this process once.
    seen: AtomicBool,
}

/// A partition that another shard holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misplaced {
    partition: i32,
    own: usize,
    other: usize,
    there: u64,
    here: u64,
}

impl fmt::Display for Misplaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { partition, own, other, there, here } = self;
        write!(
            f,
            "partition {partition} belongs to shard {own} by the configuration, but shard {other} has the newer claim of it \
             (epoch {there}, here {here}): the number or the order of [[clickhouse.shards]] was changed. Nothing was written. \
             Put the shards back as they were, or follow \"Another number of shards\" in docs/shards.md"
        )
    }
}

impl std::error::Error for Misplaced {}

impl Elsewhere {
    /// For shard `own` of these claims of one topic, by shard.
    pub fn new(own: usize, all: &[Claims]) -> Self {
        let others = all.iter().enumerate().filter(|(shard, _)| *shard != own);
        let other =
            |(shard, claims): (usize, &Claims)| Other { shard, claims: claims.clone(), seen: AtomicBool::new(false) };
        Self { own, others: others.map(other).collect() }
    }

    /// Whether `partitions` may be claimed on their own shard, whose claims are `own`; if not, it is asked again. A shard that
    /// does not answer is waited for until it has answered once: from then on the partitions of one shard do not wait for
    /// another that is away.
    ///
    /// # Errors
    /// Another shard holds one of them.
    pub(crate) async fn allows(&self, own: &Claims, partitions: &[i32]) -> Result<bool, Misplaced> {
        if self.others.is_empty() {
            return Ok(true);
        }
        let here = match own.epochs().await {
            Ok(here) => here,
            Err(error) => {
                tracing::warn!(error = one_line(&error), ?partitions, "partitions are not claimed yet");
                own.replicas().failed(own.replicas().current());
                return Ok(false);
            }
        };
        let asked = self.others.iter().map(|other| async move { (other, other.claims.epochs().await) });
        for (other, answer) in futures::future::join_all(asked).await {
            match answer {
                Ok(there) => {
                    other.seen.store(true, Ordering::Relaxed);
                    self.compare(&here, other.shard, &there, partitions)?;
                }
                Err(error) => {
                    other.claims.replicas().failed(other.claims.replicas().current());
                    let (shard, error) = (other.shard, one_line(&error));
                    if !other.seen.load(Ordering::Relaxed) {
                        tracing::warn!(
                            shard,
                            error,
                            ?partitions,
                            "partitions are not claimed yet: whether another shard holds them must have been asked once"
                        );
                        return Ok(false);
                    }
                    tracing::debug!(shard, error, "a shard was not asked whether it holds a partition of another");
                }
            }
        }
        Ok(true)
    }

    fn compare(
        &self,
        here: &BTreeMap<i32, u64>,
        other: usize,
        there: &BTreeMap<i32, u64>,
        partitions: &[i32],
    ) -> Result<(), Misplaced> {
        let epoch = |epochs: &BTreeMap<i32, u64>, partition| epochs.get(partition).copied().unwrap_or(0);
        let held = partitions.iter().find(|partition| epoch(there, partition) > epoch(here, partition));
        held.map_or(Ok(()), |partition| {
            let (there, here) = (epoch(there, partition), epoch(here, partition));
            Err(Misplaced { partition: *partition, own: self.own, other, there, here })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_claim_on_another_shard_refuses_and_an_older_one_does_not() {
        let elsewhere = Elsewhere { own: 1, others: Vec::new() };
        let (here, there) = (BTreeMap::from([(1, 4)]), BTreeMap::from([(1, 4), (3, 1), (5, 9)]));
        assert_eq!(elsewhere.compare(&here, 0, &there, &[1]), Ok(()));
        let refused = elsewhere.compare(&here, 0, &there, &[1, 3]).unwrap_err();
        assert_eq!(refused, Misplaced { partition: 3, own: 1, other: 0, there: 1, here: 0 });
        for word in ["partition 3", "shard 1", "shard 0 has the newer claim", "docs/shards.md"] {
            assert!(refused.to_string().contains(word), "{word} in {refused}");
        }
    }
}
