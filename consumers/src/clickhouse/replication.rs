//! What replicated tables need besides: a quorum for claims and rows, every replica quiet, and the one that is asked up to date.
//!
//! Why that is enough, and what of it was never run, stands in docs/shards.md.

use std::time::{Duration, Instant};

use clickhouse::error::{Error, Result};

use super::{claims::Claims, client::within};

/// How long after it was told to end an insert may be in committing.
const GRACE: Duration = Duration::from_secs(5);

/// The replicated table that claims are for.
#[derive(Clone, Debug)]
pub struct Replication {
    /// The table, quoted, with its database.
    pub table: String,
    /// Longest that an insert runs: after it one that nobody can ask for has ended.
    pub insert_timeout: Duration,
}

impl Replication {
    /// For claims and for questions about them. Most replicas have a claim before it is acknowledged, one claim after the other;
    /// and a replica that lacks one of those refuses to answer instead of answering wrongly.
    pub(super) const CLAIMED: &[(&str, &str)] =
        &[("insert_quorum", "auto"), ("insert_quorum_parallel", "0"), ("select_sequential_consistency", "1")];

    /// For inserts of rows: most replicas have them before they are acknowledged, so that one that is lost takes nothing with
    /// it. Many may wait for their quorum at once. The fence reads claims as above.
    pub(super) const INSERTED: &[(&str, &str)] =
        &[("insert_quorum", "auto"), ("insert_quorum_parallel", "1"), ("select_sequential_consistency", "1")];
}

impl Claims {
    /// Ends the inserts of every replica that hold one of `partitions`. One that does not answer may run some all the same;
    /// these began before the claim, which is known to most replicas, or their fence sees it: they have ended when the time
    /// that an insert may take has passed since. Then brings the replica that is asked up to date.
    pub(super) async fn quiet_everywhere(
        &self,
        replication: &Replication,
        partitions: &[i32],
        since: Instant,
    ) -> Result<usize> {
        let current = self.replicas.current();
        let mut stopped = 0;
        for replica in 0..self.replicas.count() {
            match self.quiet_at(replica, partitions).await {
                Ok(inserts) => stopped += inserts,
                Err(error) if replica == current => return Err(error),
                Err(error) => {
                    let rest = (replication.insert_timeout + GRACE).saturating_sub(since.elapsed());
                    tracing::warn!(
                        topic = self.topic,
                        ?partitions,
                        replica,
                        wait_ms = rest.as_millis() as u64,
                        error = crate::one_line(&error),
                        "a replica cannot be asked for inserts of an earlier owner: waiting until none of them can run any more (clickhouse.insert_timeout)"
                    );
                    tokio::time::sleep(rest).await;
                }
            }
        }
        self.sync_most(current, &replication.table).await?;
        Ok(stopped)
    }

    /// Brings a further table, quoted and with its database, up to date as [`Claims::quiet`] does with the table that claims
    /// are for: a rollup, before its ledger is believed. Nothing is done where tables are not replicated.
    ///
    /// # Errors
    /// Those of ClickHouse; or most replicas cannot be brought up to date.
    pub async fn bring_up_to_date(&self, table: &str) -> Result<()> {
        match &self.replication {
            None => Ok(()),
            Some(_) => self.sync_most(self.replicas.current(), table).await,
        }
    }

    /// Brings the replica that is asked up to date, and as many others as make most of them. A block that never got its quorum is
    /// taken back when the replicas that have it are lost: what is found by now on most of them is not.
    async fn sync_most(&self, current: usize, table: &str) -> Result<()> {
        self.sync(current, table).await?;
        let mut synced = 1;
        for replica in (0..self.replicas.count()).filter(|replica| *replica != current) {
            if is_most(synced, self.replicas.count()) {
                break;
            }
            match self.sync(replica, table).await {
                Ok(()) => synced += 1,
                Err(error) => {
                    let error = crate::one_line(&error);
                    tracing::warn!(topic = self.topic, replica, error, "a replica cannot be brought up to date");
                }
            }
        }
        if is_most(synced, self.replicas.count()) {
            return Ok(());
        }
        let all = self.replicas.count();
        Err(Error::Custom(format!("only {synced} of {all} replicas are up to date, and most of them have to be")))
    }

    /// Brings the claims of a replica up to date, if they are replicated.
    pub(super) async fn sync_claims(&self, replica: usize) -> Result<()> {
        match &self.replication {
            None => Ok(()),
            Some(_) => self.sync(replica, &self.table).await,
        }
    }

    /// Waits until a replica has every part that any replica had committed when this was called; merges are not waited for.
    async fn sync(&self, replica: usize, table: &str) -> Result<()> {
        let sync = self.replicas.at(replica).query_raw(&format!("SYSTEM SYNC REPLICA {table} LIGHTWEIGHT")).execute();
        within(self.timeout, sync).await
    }
}

/// Whether so many are more than half.
fn is_most(some: usize, all: usize) -> bool {
    some * 2 > all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clickhouse::{fake::Fake, replicas::Replicas};

    #[test]
    fn most_are_more_than_half() {
        assert!(is_most(1, 1) && is_most(2, 2) && is_most(2, 3) && is_most(3, 5));
        assert!(!is_most(1, 2) && !is_most(1, 3) && !is_most(2, 4));
    }

    const SYNC: &str = "SYSTEM SYNC REPLICA d.r LIGHTWEIGHT";

    fn claims(fakes: &[Fake]) -> Claims {
        let server = |fake: &Fake| (fake.url.clone(), clickhouse::Client::default().with_url(&fake.url));
        let replicas = Replicas::new(fakes.iter().map(server).collect(), u32::MAX);
        Claims::new(replicas, "d.claims".to_owned(), "t", "me", Duration::from_secs(5))
    }

    async fn synced(answers: [Result<String, u32>; 3], is_replicated: bool) -> (bool, Vec<Vec<String>>) {
        let mut fakes = Vec::new();
        for answer in answers {
            fakes.push(Fake::start(move |_| answer.clone()).await);
        }
        let claims = claims(&fakes);
        let replication = Replication { table: "d.t".to_owned(), insert_timeout: Duration::ZERO };
        let claims = if is_replicated { claims.replicated(replication) } else { claims };
        let result = claims.bring_up_to_date("d.r").await;
        (result.is_ok(), fakes.iter().map(Fake::statements).collect())
    }

    #[tokio::test]
    async fn a_further_table_is_brought_up_to_date_where_it_is_asked_and_on_most_replicas() {
        let good = || Ok(String::new());
        let asked = |which: [usize; 3]| which.map(|times| vec![SYNC.to_owned(); times]).to_vec();
        assert_eq!(synced([good(), good(), good()], true).await, (true, asked([1, 1, 0])));
        assert_eq!(synced([good(), Err(999), good()], true).await, (true, asked([1, 1, 1])));
        assert_eq!(synced([good(), Err(999), Err(999)], true).await, (false, asked([1, 1, 1])));
        assert_eq!(synced([Err(999), good(), good()], true).await, (false, asked([1, 0, 0])));
        assert_eq!(synced([good(), good(), good()], false).await, (true, asked([0, 0, 0])));
    }
}
