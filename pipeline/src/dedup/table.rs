//! The ids of all generations in one table, so that an id that is new is looked for once.
//!
//! Each id carries the tag of its generation. A generation is forgotten by its tag; its ids are swept out afterwards,
//! a few at a time. Growing, shrinking and sweeping are one thing: the table is copied into one of the right size,
//! front to back, without the dead; ids before the front are in the copy, the others still in the original, whose
//! pages are freed as the front passes.

use std::hint::black_box;

use super::{
    groups::{Groups, Place, SLOTS},
    mix::Mix,
};

/// Ids that are probed together, so that the processor has many reads of memory under way. Of 100 million ids, one that
/// is there takes 71 ns so with 16, 60 with 64, 57 with 256.
const TOGETHER: usize = 256;
/// Groups copied for each id that comes in, while a copy is made: it ends before 1 in 50 more has come.
const GROUPS_PER_ID: usize = 4;
/// Percent of the slots that are taken: a fuller table is copied into a larger one,
const FULLEST: usize = 89;
/// one of the right size is as full as this,
const ROOMY: usize = 75;
/// and one this empty is copied into a smaller one.
const EMPTIEST: usize = 72;
/// A table of so few groups is not worth the copy.
const SMALL: usize = 64;
/// So many generations can be begun between two that are forgotten.
const SPARE_TAGS: usize = 128;

/// Ids and the tags of their generations.
#[derive(Debug)]
pub(super) struct Table {
    mix: Mix,
    groups: Groups,
    /// What is being copied into `groups`.
    original: Option<Original>,
    /// Ids in the table, the dead included.
    ids: usize,
    /// Ids whose generation is remembered.
    live: usize,
    /// The table is not made smaller than for so many ids.
    reserved: usize,
    /// By tag.
    tags: Box<[Tag; 256]>,
}

#[derive(Debug)]
struct Original {
    groups: Groups,
    /// The ids of the groups before it have been copied. Nothing has overflown from them.
    front: usize,
}

/// An id, mixed.
#[derive(Clone, Copy)]
pub(super) struct Value(u128);

/// Where an id can be put.
pub(super) enum Vacancy {
    /// Over itself, left from a generation that is forgotten.
    Dead(Place),
    /// Into this group.
    Free(usize),
}

#[derive(Clone, Copy, Debug, Default)]
struct Tag {
    alive: bool,
    ids: usize,
}

impl Table {
    pub(super) fn new() -> Self {
        let tags = Box::new([Tag::default(); 256]);
        Self { mix: Mix::new(), groups: Groups::new(1), original: None, ids: 0, live: 0, reserved: 0, tags }
    }

    /// Ids whose generation is remembered.
    pub(super) fn len(&self) -> usize {
        self.live
    }

    /// Makes room for so many ids in all, which are about to come; 0 when no more are awaited.
    pub(super) fn reserve(&mut self, ids: usize) {
        self.reserved = ids;
        if self.ids == 0 && self.original.is_none() && ids > 0 {
            self.groups = Groups::new(homes_for(ids));
        }
    }

    /// A tag for a new generation; none, while 256 are remembered or not yet swept out.
    pub(super) fn new_tag(&mut self) -> Option<u8> {
        let tag = self.tags.iter().position(Tag::is_free)?;
        self.tags[tag].alive = true;
        Some(tag as u8)
    }

    /// How many ids have the tag.
    pub(super) fn tagged(&self, tag: u8) -> usize {
        self.tags[usize::from(tag)].ids
    }

    /// Forgets a generation; how many ids it had.
    pub(super) fn bury(&mut self, tag: u8) -> usize {
        let tag = &mut self.tags[usize::from(tag)];
        tag.alive = false;
        let gone = tag.ids;
        self.live -= gone;
        // Only generations that are far too small can be so many that there is no time to sweep them out by and by.
        if self.tags.iter().filter(|tag| tag.is_free()).count() < SPARE_TAGS {
            while self.ids > self.live {
                self.sweep(usize::MAX);
            }
        }
        gone
    }

    /// Whether an id is there.
    pub(super) fn contains(&self, id: u128) -> bool {
        self.vacancy(Value(self.mix.apply(id))).is_none()
    }

    /// Calls `each` for the ids in order, with the table, having fetched what it will read from memory for many ids at
    /// once.
    pub(super) fn batch<T: Copy>(
        &mut self,
        items: &[T],
        id: impl Fn(T) -> u128,
        mut each: impl FnMut(&mut Self, T, Value),
    ) {
        let mut values = [0; TOGETHER];
        for items in items.chunks(TOGETHER) {
            for (value, item) in values.iter_mut().zip(items) {
                *value = self.mix.apply(id(*item));
            }
            let values = &values[..items.len()];
            self.fetch(values, Groups::first_read);
            self.fetch(values, Groups::second_read);
            let before = self.ids;
            for (value, item) in values.iter().zip(items) {
                each(self, *item, Value(*value));
            }
            self.sweep(GROUPS_PER_ID * (self.ids - before));
        }
    }

    /// Where the id of a batch can be put; `None` if it is there.
    pub(super) fn vacancy(&self, Value(value): Value) -> Option<Vacancy> {
        let groups = self.groups_of(value);
        match groups.find(value) {
            Ok(place) if self.tags[usize::from(groups.tag(place))].alive => None,
            Ok(place) => Some(Vacancy::Dead(place)),
            Err(group) => Some(Vacancy::Free(group)),
        }
    }

    /// Puts an id where there is a vacancy for it.
    pub(super) fn fill(&mut self, vacancy: Vacancy, Value(value): Value, tag: u8) {
        let groups = match &mut self.original {
            Some(original) if original.holds(value) => &mut original.groups,
            _ => &mut self.groups,
        };
        match vacancy {
            Vacancy::Dead(place) => {
                self.tags[usize::from(groups.tag(place))].ids -= 1;
                groups.set_tag(place, tag);
            }
            Vacancy::Free(group) => {
                groups.put(group, value, tag);
                self.ids += 1;
            }
        }
        self.live += 1;
        self.tags[usize::from(tag)].ids += 1;
    }

    /// Copies about so many groups, if there is anything to grow, to shrink or to sweep out.
    pub(super) fn sweep(&mut self, groups: usize) {
        if groups == 0 {
            return;
        }
        let Some(mut original) = self.original.take().or_else(|| self.begin()) else { return };
        let end = original.front.saturating_add(groups);
        loop {
            let group = original.front;
            for (value, tag) in original.groups.values(group) {
                let of = &mut self.tags[usize::from(tag)];
                if of.alive {
                    self.groups.put(self.groups.home(value), value, tag);
                } else {
                    of.ids -= 1;
                    self.ids -= 1;
                }
            }
            original.front += 1;
            let overflown = original.groups.is_overflown(group);
            if let Some(page) = original.groups.take_page_before(original.front) {
                self.groups.recycle(page);
            }
            if overflown {
                continue;
            }
            if original.front >= original.groups.homes() {
                return;
            }
            if original.front >= end {
                self.original = Some(original);
                return;
            }
        }
    }

    /// Bytes held.
    pub(super) fn allocated_bytes(&self) -> usize {
        let original = self.original.as_ref().map_or(0, |original| original.groups.allocated_bytes());
        self.groups.allocated_bytes() + original + size_of_val(&*self.tags)
    }

    /// Starts a copy, if there is a reason.
    fn begin(&mut self) -> Option<Original> {
        let homes = self.groups.homes();
        let percent = |ids: usize| ids * 100 / (homes * SLOTS);
        let wanted = self.live.max(self.reserved);
        let sparse = homes > SMALL && percent(wanted) < EMPTIEST;
        if self.ids == self.live && percent(self.ids) < FULLEST && !sparse {
            return None;
        }
        let expected = wanted + homes / GROUPS_PER_ID;
        let fits = percent(wanted) >= EMPTIEST && percent(expected) < FULLEST;
        let homes = if fits { homes } else { homes_for(expected) };
        let groups = std::mem::replace(&mut self.groups, Groups::new(homes));
        Some(Original { groups, front: 0 })
    }

    /// Reads one word for each value. The places are found first, so that the processor waits for all of them at once.
    fn fetch(&self, values: &[u128], place: impl for<'a> Fn(&'a Groups, u128) -> &'a u128) {
        let mut places = [&0; TOGETHER];
        for (at, value) in places.iter_mut().zip(values) {
            *at = place(self.groups_of(*value), *value);
        }
        black_box(places[..values.len()].iter().fold(0, |all, word| all ^ *word));
    }

    fn groups_of(&self, value: u128) -> &Groups {
        match &self.original {
            Some(original) if original.holds(value) => &original.groups,
            _ => &self.groups,
        }
    }
}

/// How many groups so many ids need.
fn homes_for(ids: usize) -> usize {
    ids * 100 / (ROOMY * SLOTS) + 1
}

impl Tag {
    fn is_free(&self) -> bool {
        !self.alive && self.ids == 0
    }
}

impl Original {
    /// Whether a value belongs here still.
    fn holds(&self, value: u128) -> bool {
        self.groups.home(value) >= self.front
    }
}

#[cfg(test)]
mod tests;
