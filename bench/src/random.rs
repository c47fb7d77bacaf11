//! Random numbers that are functions of a seed: the same on every machine and in every release. Never for secrets.

/// 64 bits to 64 bits, one to one and well mixed: the finaliser of SplitMix64
/// (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
pub const fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The inverse of [`mix`].
pub const fn unmix(mut x: u64) -> u64 {
    const INVERSE_1: u64 = inverse(0xbf58_476d_1ce4_e5b9);
    const INVERSE_2: u64 = inverse(0x94d0_49bb_1331_11eb);
    x = unxorshift(x, 31).wrapping_mul(INVERSE_2);
    x = unxorshift(x, 27).wrapping_mul(INVERSE_1);
    unxorshift(x, 30)
}

/// Solves `y = x ^ (x >> shift)` for x; each round makes `shift` more bits right, and shift is at least 22.
const fn unxorshift(y: u64, shift: u32) -> u64 {
    let x = y ^ (y >> shift);
    y ^ (x >> shift)
}

/// The inverse of an odd number modulo 2^64, by Newton's iteration: each round doubles the bits that are right.
const fn inverse(odd: u64) -> u64 {
    let mut x = odd;
    let mut round = 0;
    while round < 6 {
        x = x.wrapping_mul(2_u64.wrapping_sub(odd.wrapping_mul(x)));
        round += 1;
    }
    x
}

/// A stream of random numbers that belongs to (seed, number), such as all choices about one order.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The stream of `number` under `seed`. Give different kinds of things different seeds.
    pub const fn new(seed: u64, number: u64) -> Self {
        Self(mix(seed ^ mix(number.wrapping_add(0x9e37_79b9_7f4a_7c15))))
    }

    /// The next 64 bits.
    pub const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `bound`, which must not be 0. (Multiply and shift; the bias is below bound / 2^64.)
    pub const fn below(&mut self, bound: u64) -> u64 {
        ((self.bits() as u128 * bound as u128) >> 64) as u64
    }

    /// True with the probability `share`.
    pub fn chance(&mut self, share: f64) -> bool {
        ((self.bits() >> 11) as f64) < share * (1_u64 << 53) as f64
    }

    /// One of a list, which must not be empty.
    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn unmix_undoes_mix(x: u64) {
            prop_assert_eq!(unmix(mix(x)), x);
            prop_assert_eq!(mix(unmix(x)), x);
        }

        #[test]
        fn below_stays_below(seed: u64, bound in 1..u64::MAX) {
            prop_assert!(Random::new(seed, 0).below(bound) < bound);
        }
    }
}
