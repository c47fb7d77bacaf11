//! Spreads ids evenly, whatever they look like, without losing a bit.

use std::hash::{BuildHasher, RandomState};

/// A bijection of 128-bit values with secret keys: time-ordered ids, counters and ids that somebody chose to collide all
/// come out as if drawn at random. Two values are equal exactly if the ids are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mix {
    keys: [(u64, u64); 3],
}

impl Mix {
    /// A bijection that nobody can foresee.
    pub(super) fn new() -> Self {
        let random = RandomState::new();
        let key = |number: u8| random.hash_one(number);
        Self { keys: [0, 2, 4].map(|number| (key(number), key(number + 1) | 1)) }
    }

    /// Three rounds of a Feistel network, which is reversible whatever its rounds compute.
    pub(super) fn apply(&self, id: u128) -> u128 {
        let [first, second, third] = self.keys;
        let (mut high, mut low) = ((id >> 64) as u64, id as u64);
        low ^= fold(high, first);
        high ^= fold(low, second);
        low ^= fold(high, third);
        u128::from(high) << 64 | u128::from(low)
    }
}

/// Both halves of a product, folded: every bit of it depends on all of the value and the keys.
fn fold(value: u64, (mask, factor): (u64, u64)) -> u64 {
    let product = u128::from(value ^ mask) * u128::from(factor);
    product as u64 ^ (product >> 64) as u64
}
