//! The deduplication index of one partition: every id inside the window, exactly, in generations.
//!
//! Ids are 128 bits and compared whole: no event is ever dropped for a likeness. The index forgets whole generations,
//! never single entries. It is a cache of what ClickHouse holds: it is loaded when the partition is assigned and thrown
//! away when it is revoked.
//!
//! It holds at most 24 bytes for each id inside the window and 8 KiB more, once there are some ten thousand, and no call
//! moves more ids because there are many: the longest call is some 20 ms, at 100 million ids too (`cargo xtask bench --scenario window`).

mod groups;
mod mix;
mod page;
mod table;

use std::{collections::VecDeque, time::Duration};

use self::table::Table;

/// The window is kept in this many generations, so that it overshoots by at most an eighth.
const GENERATIONS_PER_WINDOW: u32 = 8;
/// Groups of 15 ids that [`PartitionIndex::expire`] sweeps out at most in one call: a few milliseconds.
const GROUPS_PER_EXPIRY: usize = 1 << 14;

/// Milliseconds on the caller's clock; only differences matter.
pub type Millis = u64;

/// Every id of one partition that lies inside the window.
#[derive(Debug)]
pub struct PartitionIndex {
    generations: Generations,
    table: Box<Table>,
}

#[derive(Debug)]
struct Generations {
    window_ms: Millis,
    /// A generation that has grown to this many ids is closed before its time, so that memory can be freed in steps.
    max_ids: usize,
    /// Newest first, by `closes_at`; of those that close together only the first is not full.
    queue: VecDeque<Generation>,
}

#[derive(Clone, Copy, Debug)]
struct Generation {
    /// Until when its ids may have been born, on the scale of [`Generations::at`]; the generation is forgotten one
    /// window later.
    closes_at: Millis,
    /// What its ids are known by in the table.
    tag: u8,
}

impl PartitionIndex {
    /// An empty index.
    pub fn new(window: Duration, max_generation_ids: usize) -> Self {
        let window_ms = Millis::try_from(window.as_millis()).unwrap_or(Millis::MAX / 4).max(1);
        let generations = Generations { window_ms, max_ids: max_generation_ids.max(1), queue: VecDeque::new() };
        Self { generations, table: Box::new(Table::new()) }
    }

    /// Remembers an id; `false` when it was there already.
    pub fn insert(&mut self, id: u128, now: Millis) -> bool {
        let mut fresh = Vec::with_capacity(1);
        self.insert_batch(&[id], now, |_| true, &mut fresh);
        fresh == [true]
    }

    /// Tells of each id whether it is new, neither in the index nor before it among `ids`, and remembers the new ones
    /// of which `remember` says so by their position. What `fresh` held is dropped. One call for many ids is far
    /// cheaper than a call for each.
    pub fn insert_batch(&mut self, ids: &[u128], now: Millis, remember: impl Fn(usize) -> bool, fresh: &mut Vec<bool>) {
        let Self { generations, table } = self;
        let born = generations.at(now);
        fresh.clear();
        table.batch(
            ids,
            |id| id,
            |table, _, value| {
                let vacancy = table.vacancy(value);
                let at = fresh.len();
                fresh.push(vacancy.is_some());
                if let Some(vacancy) = vacancy
                    && remember(at)
                {
                    let tag = generations.tag(born, table);
                    table.fill(vacancy, value, tag);
                }
            },
        );
    }

    /// Whether the id is remembered.
    pub fn contains(&self, id: u128) -> bool {
        self.table.contains(id)
    }

    /// Makes room for about so many ids that are about to be loaded, so that the index need not grow meanwhile; the next
    /// [`PartitionIndex::expire`] lets go of what was not needed.
    pub fn reserve(&mut self, ids: usize) {
        self.table.reserve(ids);
    }

    /// Remembers ids that ClickHouse already held, each for so many milliseconds; one older than the window is taken
    /// for as old as it. Ids may come in any order.
    pub fn load(&mut self, ids: &[(u128, Millis)], now: Millis) {
        let Self { generations, table } = self;
        let at = generations.at(now);
        table.batch(
            ids,
            |(id, _)| id,
            |table, (_, age_ms), value| {
                let Some(vacancy) = table.vacancy(value) else { return };
                let tag = generations.tag(at.saturating_sub(age_ms.min(generations.window_ms)), table);
                table.fill(vacancy, value, tag);
            },
        );
    }

    /// Forgets the generations that lie wholly outside the window. Their memory is let go by and by, in this call and
    /// those that follow.
    pub fn expire(&mut self, now: Millis) {
        let at = self.generations.at(now);
        let Generations { window_ms, ref queue, .. } = self.generations;
        let over = queue.iter().rev().take_while(|oldest| oldest.closes_at.saturating_add(window_ms) < at).count();
        for _ in 0..over {
            self.expire_oldest();
        }
        self.table.reserve(0);
        self.table.sweep(GROUPS_PER_EXPIRY);
    }

    /// Forgets the oldest generation whatever its age; the number of ids let go. Their memory follows with the next
    /// calls of [`PartitionIndex::expire`].
    pub fn expire_oldest(&mut self) -> usize {
        self.generations.queue.pop_back().map_or(0, |generation| self.table.bury(generation.tag))
    }

    /// When the oldest generation closed, if there is one besides the one being filled; comparable among indexes of the
    /// same window and clock.
    pub fn oldest(&self) -> Option<Millis> {
        let queue = &self.generations.queue;
        if queue.len() < 2 { None } else { queue.back().map(|oldest| oldest.closes_at) }
    }

    /// Ids remembered.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes held on the heap.
    pub fn allocated_bytes(&self) -> usize {
        size_of::<Table>() + self.table.allocated_bytes() + self.generations.queue.capacity() * size_of::<Generation>()
    }
}

impl Generations {
    /// The tag of the generation that an id enters which was born then.
    fn tag(&mut self, born: Millis, table: &mut Table) -> u8 {
        let generation_ms = (self.window_ms / Millis::from(GENERATIONS_PER_WINDOW)).max(1);
        let closes_at = (born / generation_ms).saturating_add(1).saturating_mul(generation_ms) - 1;
        let at = self.queue.iter().position(|one| one.closes_at <= closes_at).unwrap_or(self.queue.len());
        let same = self.queue.get(at).copied().filter(|one| one.closes_at == closes_at);
        if let Some(same) = same
            && table.tagged(same.tag) < self.max_ids
        {
            return same.tag;
        }
        if let Some(tag) = table.new_tag() {
            self.queue.insert(at, Generation { closes_at, tag });
            return tag;
        }
        // There are 256, which are far too small for the window: the id joins the next one that lives as long.
        let newer = at.saturating_sub(usize::from(same.is_none()));
        let newer = &mut self.queue[newer];
        newer.closes_at = newer.closes_at.max(closes_at);
        newer.tag
    }

    /// The caller's clock may have started a moment ago, while ids are loaded that are as old as the window: the index
    /// counts from one window before the caller's zero.
    fn at(&self, now: Millis) -> Millis {
        now.saturating_add(self.window_ms)
    }
}

#[cfg(test)]
mod tests;
