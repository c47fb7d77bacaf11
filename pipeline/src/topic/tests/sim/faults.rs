//! The faults of the matrix that the core is exposed to, and how often each was.

use std::fmt;

/// A fault, by its row in the fault matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    KillBeforeCommit = 1,
    Kill,
    OtherSettings,
    ServerKilled,
    AnswerLost,
    BodyCut,
    ErrorWithStatus200,
    SomeMonthsOnly,
    TokensForgotten,
    BrokerDown,
    RebalanceStorm,
    ZombieRefused,
    PollBlocked,
    SentAgain,
    Gaps,
    /// Of no row: ClickHouse is one server there.
    OtherShardAway,
}

/// Row, what it says, for each fault.
const MATRIX: [(Fault, &str); 16] = [
    (Fault::KillBeforeCommit, "killed between ClickHouse's acknowledgement and the commit"),
    (Fault::Kill, "killed at a random moment"),
    (Fault::OtherSettings, "started with other settings, or another number of consumers"),
    (Fault::ServerKilled, "ClickHouse killed while inserts run"),
    (Fault::AnswerLost, "the answer of an insert that was applied is lost"),
    (Fault::BodyCut, "the body of an insert is cut half-way"),
    (Fault::ErrorWithStatus200, "status 200, an exception in the headers"),
    (Fault::SomeMonthsOnly, "an insert ends when some of its months have landed"),
    (Fault::TokensForgotten, "the token of an insert that was never acknowledged is forgotten"),
    (Fault::BrokerDown, "the broker is down, or silent past the session timeout"),
    (Fault::RebalanceStorm, "members join, leave and die at once"),
    (Fault::ZombieRefused, "a zombie wakes, and the server refuses its insert"),
    (Fault::PollBlocked, "the poll loop is blocked until the group goes on without it"),
    (Fault::SentAgain, "a producer sends again 30 %, or everything"),
    (Fault::Gaps, "offsets missing: aborted transactions, compaction"),
    (Fault::OtherShardAway, "(no row) a row lands on one shard while another is away"),
];

/// How often each fault happened.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    counts: [u64; MATRIX.len()],
    pub(super) seeds: u64,
}

impl Faults {
    pub(super) fn count(&mut self, fault: Fault) {
        self.counts[fault as usize - 1] += 1;
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.counts.iter_mut().zip(other.counts).for_each(|(count, more)| *count += more);
        self.seeds += other.seeds;
    }

    /// Faults that never happened.
    pub(super) fn missing(&self) -> Vec<Fault> {
        MATRIX.iter().zip(self.counts).filter(|(_, count)| *count == 0).map(|((fault, _), _)| *fault).collect()
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>3}  {:>9}  over {} seeds", "#", "times", self.seeds)?;
        for ((fault, what), count) in MATRIX.iter().zip(self.counts) {
            writeln!(f, "{:>3}  {count:>9}  {what}", *fault as usize)?;
        }
        Ok(())
    }
}
