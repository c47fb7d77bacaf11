//! The matrix: each fault as a case.

mod again;
mod broker;
mod clocks;
mod cluster;
mod crashes;
mod half_applied;
mod inserts;
mod leaving;
mod lookups;
mod members;
mod poison;
mod pressure;
mod random;
mod registry;
mod topic_life;
mod transactions;
mod upgrade;
mod zombies;

use std::time::{SystemTime, UNIX_EPOCH};

pub(crate) use self::cluster::{start as start_cluster, tell_of_servers};
use crate::guard::Guard;
use crate::trial::Trial;

/// A fault, and how it is injected.
pub(crate) struct Case {
    /// Its number in the matrix.
    pub(crate) number: u32,
    pub(crate) name: &'static str,
    /// What happens in it.
    pub(crate) what: &'static str,
    /// It has to fail without any of these.
    pub(crate) rests_on: &'static [Guard],
    /// Injects the faults; what remains is to let everything land and to judge.
    pub(crate) run: fn(&mut Trial),
}

impl Case {
    /// Whether it has servers of its own, on hosts of their own, in place of the running stack.
    pub(crate) fn is_on_hosts(&self) -> bool {
        self.number == cluster::NUMBER
    }
}

/// For several loads of one case: the time of the first event, since they are only the same events with the same times.
fn same_times() -> [String; 2] {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    ["--start-ms".to_owned(), (now.as_millis() - 3_600_000).to_string()]
}

/// Every case, by number.
pub(crate) fn all() -> Vec<Case> {
    let mut all: Vec<Case> = [
        again::cases(),
        broker::cases(),
        clocks::cases(),
        cluster::cases(),
        crashes::cases(),
        half_applied::cases(),
        inserts::cases(),
        leaving::cases(),
        lookups::cases(),
        members::cases(),
        poison::cases(),
        pressure::cases(),
        random::cases(),
        registry::cases(),
        topic_life::cases(),
        transactions::cases(),
        upgrade::cases(),
        zombies::cases(),
    ]
    .into_iter()
    .flatten()
    .collect();
    all.sort_by_key(|case| case.number);
    all
}
