//! The deduplication index of one partition: every id inside the window, exactly, in generations.
//!
//! Ids are 128 bits and compared whole: no event is ever dropped for a likeness. The index forgets whole generations,
//! never single entries, so expiry costs nothing while events flow. It is a cache of what ClickHouse holds: it is
//! loaded when the partition is assigned and thrown away when it is revoked.

use std::{collections::VecDeque, time::Duration};

use hashbrown::HashSet;

/// The window is kept in this many generations, so that it overshoots by at most a quarter.
const GENERATIONS_PER_WINDOW: u32 = 4;

/// Milliseconds on the caller's clock; only differences matter.
pub type Millis = u64;

/// Every id of one partition that lies inside the window.
#[derive(Debug)]
pub struct PartitionIndex {
    window_ms: Millis,
    /// A generation that has grown to this many ids is closed before its time, so that memory can be freed in steps.
    max_generation_ids: usize,
    /// Newest first, by `closes_at`.
    generations: VecDeque<Generation>,
    len: usize,
}

#[derive(Debug)]
struct Generation {
    /// Until when new ids may enter, on the scale of [`PartitionIndex::at`]; the generation is forgotten one window
    /// later.
    closes_at: Millis,
    ids: HashSet<u128>,
}

impl PartitionIndex {
    /// An empty index.
    pub fn new(window: Duration, max_generation_ids: usize) -> Self {
        let window_ms = Millis::try_from(window.as_millis()).unwrap_or(Millis::MAX / 4).max(1);
        Self { window_ms, max_generation_ids: max_generation_ids.max(1), generations: VecDeque::new(), len: 0 }
    }

    /// Remembers an id; `false` when it was there already.
    pub fn insert(&mut self, id: u128, now: Millis) -> bool {
        if self.contains(id) {
            return false;
        }
        let at = self.at(now);
        self.open(at).ids.insert(id);
        self.len += 1;
        true
    }

    /// Whether the id is remembered.
    pub fn contains(&self, id: u128) -> bool {
        self.generations.iter().any(|generation| generation.ids.contains(&id))
    }

    /// Remembers an id that ClickHouse already held for `age_ms`; one older than the window is taken for as old as it.
    /// Ids may come in any order.
    pub fn load(&mut self, id: u128, age_ms: Millis, now: Millis) {
        let born = self.at(now).saturating_sub(age_ms.min(self.window_ms));
        let found = self.generations.iter().position(|generation| {
            born <= generation.closes_at
                && born.saturating_add(self.generation_ms()) >= generation.closes_at
                && generation.ids.len() < self.max_generation_ids
        });
        let at = found.unwrap_or_else(|| {
            let closes_at = born.saturating_add(self.generation_ms());
            let at = self.generations.iter().position(|other| other.closes_at <= closes_at);
            let at = at.unwrap_or(self.generations.len());
            self.generations.insert(at, Generation { closes_at, ids: HashSet::new() });
            at
        });
        if !self.contains(id) {
            self.generations[at].ids.insert(id);
            self.len += 1;
        }
    }

    /// Forgets the generations that lie wholly outside the window.
    pub fn expire(&mut self, now: Millis) {
        let at = self.at(now);
        while self.generations.back().is_some_and(|oldest| oldest.closes_at.saturating_add(self.window_ms) < at) {
            self.expire_oldest();
        }
    }

    /// Forgets the oldest generation whatever its age; the number of ids let go.
    pub fn expire_oldest(&mut self) -> usize {
        let gone = self.generations.pop_back().map_or(0, |generation| generation.ids.len());
        self.len -= gone;
        gone
    }

    /// When the oldest generation closed, if there is one besides the one being filled; comparable among indexes of the
    /// same window and clock.
    pub fn oldest(&self) -> Option<Millis> {
        if self.generations.len() < 2 { None } else { self.generations.back().map(|oldest| oldest.closes_at) }
    }

    /// Ids remembered.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn generation_ms(&self) -> Millis {
        (self.window_ms / Millis::from(GENERATIONS_PER_WINDOW)).max(1)
    }

    /// The caller's clock may have started a moment ago, while ids are loaded that are as old as the window: the index
    /// counts from one window before the caller's zero.
    fn at(&self, now: Millis) -> Millis {
        now.saturating_add(self.window_ms)
    }

    fn open(&mut self, at: Millis) -> &mut Generation {
        let full = self
            .generations
            .front()
            .is_none_or(|newest| at > newest.closes_at || newest.ids.len() >= self.max_generation_ids);
        if full {
            let closes_at = at.saturating_add(self.generation_ms());
            self.generations.push_front(Generation { closes_at, ids: HashSet::new() });
        }
        &mut self.generations[0]
    }
}

#[cfg(test)]
mod tests;
