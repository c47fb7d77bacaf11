//! What is known of each offset in the ranges: four bits, half a byte, for each. Pure.

use std::collections::BTreeMap;

use serde::Serialize;

use super::range::Range;

/// Coordinates of a record in its topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Place {
    /// Kafka partition.
    pub partition: i32,
    /// Kafka offset.
    pub offset: i64,
}

/// One thing that may be known of an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// Kafka has a record there.
    Present,
    /// That record cannot be read.
    Unreadable,
    /// The dead-letter topic names it as a source.
    Dead,
    /// ClickHouse has a row of these coordinates, with the id of that record.
    Landed,
}

const MARKS: usize = 4;

/// Memory in bytes for each 16 offsets.
pub(super) const BYTES_PER_16_OFFSETS: u64 = 8;

/// Marks of all ranges.
#[derive(Debug, Default)]
pub(super) struct Marks(BTreeMap<i32, Partition>);

#[derive(Debug)]
struct Partition {
    from: i64,
    to: i64,
    /// By mark, a bit for each offset.
    bits: [Vec<u64>; MARKS],
    /// Below it, Kafka may have lost what it had while it was being read.
    deleted_below: i64,
}

impl Marks {
    /// Nothing known of any offset of the ranges.
    pub(super) fn new(ranges: &[Range]) -> Self {
        let partition = |range: &Range| {
            let words = usize::try_from(range.offsets().div_ceil(64)).unwrap_or(usize::MAX);
            let bits = std::array::from_fn(|_| vec![0; words]);
            (range.partition, Partition { from: range.from, to: range.to, bits, deleted_below: range.from })
        };
        Self(ranges.iter().map(partition).collect())
    }

    /// Whether the place lies in a range.
    pub(super) fn contains(&self, place: Place) -> bool {
        self.at(place).is_some()
    }

    /// Notes something; whether it is news. Nothing is noted of places outside the ranges.
    pub(super) fn set(&mut self, place: Place, mark: Mark) -> bool {
        let Some((word, bit)) = self.at(place) else { return false };
        let Some(partition) = self.0.get_mut(&place.partition) else { return false };
        let word = &mut partition.bits[mark as usize][word];
        let news = *word & bit == 0;
        *word |= bit;
        news
    }

    /// Whether something was noted.
    pub(super) fn has(&self, place: Place, mark: Mark) -> bool {
        self.at(place).is_some_and(|(word, bit)| self.0[&place.partition].bits[mark as usize][word] & bit != 0)
    }

    /// Kafka's retention has moved on: what lies below `low` may not have been seen. The number of offsets concerned
    /// that was not known yet.
    pub(super) fn deleted_below(&mut self, partition: i32, low: i64) -> i64 {
        let Some(found) = self.0.get_mut(&partition) else { return 0 };
        let low = low.clamp(found.deleted_below, found.to);
        let fresh = low - found.deleted_below;
        found.deleted_below = low;
        fresh
    }

    /// Whether Kafka may have had a record at this place that could not be seen any more.
    pub(super) fn may_be_deleted(&self, place: Place) -> bool {
        self.0.get(&place.partition).is_some_and(|found| place.offset < found.deleted_below)
    }

    /// Places with a mark, in order.
    pub(super) fn places(&self, mark: Mark) -> impl Iterator<Item = Place> + '_ {
        self.0.iter().flat_map(move |(partition, found)| {
            let words = found.bits[mark as usize].iter().enumerate().filter(|(_, word)| **word != 0);
            words.flat_map(move |(at, word)| {
                let set = (0..64).filter(move |bit| word >> bit & 1 == 1);
                set.map(move |bit| Place { partition: *partition, offset: found.from + (at * 64 + bit) as i64 })
            })
        })
    }

    fn at(&self, place: Place) -> Option<(usize, u64)> {
        let found = self.0.get(&place.partition)?;
        if place.offset < found.from || place.offset >= found.to {
            return None;
        }
        let at = usize::try_from(place.offset - found.from).ok()?;
        Some((at / 64, 1 << (at % 64)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        audit::range::{Position, Wanted, range},
        config::StartOffset,
    };

    fn marks() -> Marks {
        let position = Position { partition: 2, committed: Some(1_000), low: 130, high: 1_000 };
        Marks::new(&[range(position, Wanted::default(), StartOffset::Earliest, None).0])
    }

    fn at(offset: i64) -> Place {
        Place { partition: 2, offset }
    }

    #[test]
    fn marks_are_kept_apart_and_come_back_in_order() {
        let mut marks = marks();
        for offset in [999, 130, 193, 194, 500] {
            assert!(marks.set(at(offset), Mark::Dead));
        }
        assert!(!marks.set(at(500), Mark::Dead) && marks.set(at(500), Mark::Landed));
        let dead: Vec<i64> = marks.places(Mark::Dead).map(|place| place.offset).collect();
        assert_eq!(dead, [130, 193, 194, 500, 999]);
        assert_eq!(marks.places(Mark::Landed).count(), 1);
        assert!(marks.has(at(194), Mark::Dead) && !marks.has(at(195), Mark::Dead));
    }

    #[test]
    fn places_outside_the_range_are_nobodys() {
        let mut marks = marks();
        for place in [at(129), at(1_000), at(-1), Place { partition: 1, offset: 200 }] {
            assert!(!marks.contains(place) && !marks.set(place, Mark::Present) && !marks.has(place, Mark::Present));
        }
    }

    #[test]
    fn retention_only_moves_forward_and_not_past_the_range() {
        let mut marks = marks();
        assert_eq!(marks.deleted_below(2, 140), 10);
        assert_eq!(marks.deleted_below(2, 135), 0);
        assert!(marks.may_be_deleted(at(139)) && !marks.may_be_deleted(at(140)));
        assert_eq!(marks.deleted_below(2, 5_000), 860);
    }
}
