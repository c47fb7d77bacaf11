//! The matrix: each fault as a case.

mod again;
mod clocks;
mod crashes;
mod leaving;
mod members;
mod random;
mod zombies;
mod inserts;
mod half_applied;

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

/// Every case, by number.
pub(crate) fn all() -> Vec<Case> {
    let mut all: Vec<Case> = [
        crashes::cases(),
        members::cases(),
        zombies::cases(),
        again::cases(),
        clocks::cases(),
        leaving::cases(),
        random::cases(),
        inserts::cases(),
        half_applied::cases(),
    ]
    .into_iter()
    .flatten()
    .collect();
    all.sort_by_key(|case| case.number);
    all
}
