//! Event ids from which the number of the event can be read back, so that the verifier needs no map of ids.
//! To everyone else they look like random version 4 UUIDs.

use uuid::Uuid;

use crate::random::{mix, unmix};

/// Makes and reads the ids of one seed.
///
/// Of the 122 free bits of a version 4 UUID, 64 hold the number under a keyed one-to-one mix, and 58 a keyed hash of
/// the number: an id of another seed, or a damaged one, passes with a chance of 2^-58.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    key: u64,
    check_key: u64,
}

const CHECK_BITS: u32 = 58;

impl Identity {
    /// The ids of a seed.
    pub const fn new(seed: u64) -> Self {
        Self { key: mix(seed ^ 0x6576_656e_745f_6964), check_key: mix(seed ^ 0x6368_6563_6b5f_6964) }
    }

    /// The id of event `n`.
    pub const fn id(self, n: u64) -> Uuid {
        let number = mix(n ^ self.key);
        // 60 bits beside the version, 4 + 58 beside the variant.
        let high = number >> 4;
        let low = (number & 0xf) << CHECK_BITS | self.check(n);
        Uuid::from_u64_pair((high >> 12) << 16 | 0x4000 | (high & 0xfff), 1 << 63 | low)
    }

    /// The number that an id of this seed was made from; `None` for any other id.
    pub const fn number(self, id: Uuid) -> Option<u64> {
        let (high, low) = id.as_u64_pair();
        if high & 0xf000 != 0x4000 || low >> 62 != 0b10 {
            return None;
        }
        let number = (high >> 16 << 12 | high & 0xfff) << 4 | (low >> CHECK_BITS & 0xf);
        let n = unmix(number) ^ self.key;
        if self.check(n) == low & ((1 << CHECK_BITS) - 1) { Some(n) } else { None }
    }

    const fn check(self, n: u64) -> u64 {
        mix(n.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ self.check_key) >> (64 - CHECK_BITS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_number_survives_its_id(seed: u64, n: u64) {
            let id = Identity::new(seed).id(n);
            prop_assert_eq!(id.get_version_num(), 4);
            prop_assert_eq!(id.get_variant(), uuid::Variant::RFC4122);
            prop_assert_eq!(Identity::new(seed).number(id), Some(n));
        }

        #[test]
        fn an_id_of_another_seed_or_with_a_flipped_bit_is_not_read(seed: u64, n: u64, bit in 0..128) {
            let id = Identity::new(seed).id(n);
            prop_assert_eq!(Identity::new(seed ^ 1).number(id), None);
            prop_assert_eq!(Identity::new(seed).number(Uuid::from_u128(id.as_u128() ^ (1_u128 << bit))), None);
        }
    }
}
