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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_id_can_be_told_from_what_it_is_mixed_into(id: u128) {
            let mix = Mix::new();
            let mixed = mix.apply(id);
            let [first, second, third] = mix.keys;
            let (mut high, mut low) = ((mixed >> 64) as u64, mixed as u64);
            low ^= fold(high, third);
            high ^= fold(low, second);
            low ^= fold(high, first);
            prop_assert_eq!(u128::from(high) << 64 | u128::from(low), id);
        }
    }

    #[test]
    fn ids_in_a_row_are_spread_evenly() {
        for shift in [0, 8, 64, 100] {
            let mix = Mix::new();
            let mut groups = [0usize; 64];
            let mut bytes = [0usize; 256];
            for n in 0..64_000u128 {
                let mixed = mix.apply(n << shift);
                groups[(mixed >> 122) as usize] += 1;
                bytes[mixed as usize & 0xff] += 1;
            }
            assert!(groups.iter().all(|n| (800..1200).contains(n)), "{shift}: {groups:?}");
            assert!(bytes.iter().all(|n| (150..350).contains(n)), "{shift}: {bytes:?}");
        }
    }
}
