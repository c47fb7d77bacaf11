//! The matrix: each fault as a case.

mod crashes;
mod inserts;
mod half_applied;
mod pressure;
mod registry;

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
    let mut all: Vec<Case> =
        [crashes::cases(), inserts::cases(), half_applied::cases(), pressure::cases(), registry::cases()]
            .into_iter()
            .flatten()
            .collect();
    all.sort_by_key(|case| case.number);
    all
}
