//! A hash table of tagged 128-bit values without empty space to speak of, kept in the order of the values.
//!
//! A *group* is 15 slots of 16 bytes and a head of 16 bytes: how many slots are taken, and one byte of each value in
//! them. A value that is absent costs one look at one head, mostly. A value lies in its *home* group or, when that is
//! full, in the next one that was not; the heads between tell so, and nothing is ever taken out, so a search ends at the
//! first group that nothing like the value has overflown from. Homes rise with the values, so that a walk over the
//! groups can copy them into a table of another size front to back.

use std::hint::select_unpredictable;

use super::page::Page;

/// Slots of a group.
pub(super) const SLOTS: usize = 15;
/// A table has this many pages, the unit of allocation, or up to twice as many,
const PAGES: usize = 128;
/// but they are of 16 to 8192 groups (these are logarithms), which is 4 KiB to 2 MiB. The heads of a page lie together,
/// for many are read and few of the slots.
const PAGE_BITS: std::ops::RangeInclusive<u32> = 4..=13;

/// The byte of a value that stands in the head; in the slot its place is taken by the tag.
const TAG: u128 = 0xff;
const LOWEST_BITS: u128 = u128::MAX / 0xff;
/// In the lowest byte of a head: how many slots are taken,
const TAKEN: u128 = 0xf;
/// and whether values that belong here or before lie behind, a bit for each quarter of all values.
const OVERFLOWN: u128 = 0xf0;

/// Groups in order.
#[derive(Debug)]
pub(super) struct Groups {
    /// Values are spread over so many groups; the last ones may overflow into groups past them.
    homes: usize,
    /// Logarithm of the groups of a page.
    page_bits: u32,
    /// In each all heads, then the slots of one group after those of another. Empty until something is put into them.
    pages: Vec<Page>,
    /// To be used again, if not empty.
    spare: Page,
}

/// Where a value lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    group: usize,
    slot: usize,
}

impl Groups {
    pub(super) fn new(homes: usize) -> Self {
        let homes = homes.max(1);
        let page_bits = (homes / PAGES).max(1).ilog2().clamp(*PAGE_BITS.start(), *PAGE_BITS.end());
        let pages = Vec::with_capacity((homes >> page_bits) + 2);
        Self { homes, page_bits, pages, spare: Page::default() }
    }

    /// How many groups values are spread over.
    pub(super) fn homes(&self) -> usize {
        self.homes
    }

    /// The group where the search for a value begins.
    pub(super) fn home(&self, value: u128) -> usize {
        (((value >> 64) * self.homes as u128) >> 64) as usize
    }

    /// Where the value lies, or the group where the search for it ended.
    pub(super) fn find(&self, value: u128) -> Result<Place, usize> {
        let mut group = self.home(value);
        loop {
            let Some(page) = self.page(group) else { return Err(group) };
            let head = page[self.head(group)];
            let mut alike = alike(head, value);
            while alike != 0 {
                let slot = slot_of(alike);
                // The bytes of free slots are zero and may look alike too.
                if slot < taken(head) && (page[self.slot(group, slot)] ^ value) <= TAG {
                    return Ok(Place { group, slot });
                }
                alike &= alike.wrapping_sub(1);
            }
            if head & overflow(value) == 0 {
                return Err(group);
            }
            group += 1;
        }
    }

    /// What [`Groups::find`] will read first, to have it fetched from memory before it is needed.
    pub(super) fn first_read(&self, value: u128) -> &u128 {
        let home = self.home(value);
        self.page(home).map_or(&0, |page| &page[self.head(home)])
    }

    /// What it will read next, or where the value would be put: it is new, mostly.
    pub(super) fn second_read(&self, value: u128) -> &u128 {
        let home = self.home(value);
        let Some(page) = self.page(home) else { return &0 };
        let head = page[self.head(home)];
        let alike = alike(head, value);
        let slot = select_unpredictable(alike != 0, slot_of(alike), taken(head).min(SLOTS - 1));
        &page[self.slot(home, slot)]
    }

    pub(super) fn tag(&self, place: Place) -> u8 {
        self.page(place.group).map_or(0, |page| page[self.slot(place.group, place.slot)] as u8)
    }

    pub(super) fn set_tag(&mut self, place: Place, tag: u8) {
        let at = self.slot(place.group, place.slot);
        let slot = &mut self.page_mut(place.group)[at];
        *slot = *slot & !TAG | u128::from(tag);
    }

    /// Puts a value that is not there into its home or the group where the search for it ended, or behind.
    pub(super) fn put(&mut self, mut group: usize, value: u128, tag: u8) {
        loop {
            let (head, slots) = (self.head(group), self.slot(group, 0));
            let page = self.page_mut(group);
            let slot = taken(page[head]);
            if slot < SLOTS {
                page[head] = (page[head] | (value & TAG) << (8 * (slot + 1))) + 1;
                page[slots + slot] = value & !TAG | u128::from(tag);
                return;
            }
            page[head] |= overflow(value);
            group += 1;
        }
    }

    /// Whether values of this group or one before it may lie behind it.
    pub(super) fn is_overflown(&self, group: usize) -> bool {
        self.page(group).is_some_and(|page| page[self.head(group)] & OVERFLOWN != 0)
    }

    /// Values and tags of a group.
    pub(super) fn values(&self, group: usize) -> impl Iterator<Item = (u128, u8)> {
        let (head, slots) = match self.page(group) {
            Some(page) => (page[self.head(group)], &page[self.slot(group, 0)..]),
            None => (0, &[][..]),
        };
        let bytes = (head >> 8).to_le_bytes();
        slots[..taken(head)].iter().zip(bytes).map(|(word, byte)| (word & !TAG | u128::from(byte), *word as u8))
    }

    /// Takes the page away that ends before a group, if one does.
    pub(super) fn take_page_before(&mut self, group: usize) -> Option<Page> {
        if self.head(group) > 0 {
            return None;
        }
        self.pages.get_mut((group >> self.page_bits).checked_sub(1)?).map(std::mem::take)
    }

    /// Brings a page that may be used again.
    pub(super) fn recycle(&mut self, mut page: Page) {
        if self.spare.is_empty() && page.len() == self.page_words() {
            page[..1 << self.page_bits].fill(0);
            self.spare = page;
        }
    }

    /// Bytes held.
    pub(super) fn allocated_bytes(&self) -> usize {
        let words: usize = self.pages.iter().chain([&self.spare]).map(|page| page.len()).sum();
        words * size_of::<u128>() + self.pages.capacity() * size_of::<Page>()
    }

    /// The largest piece of memory that is asked for at once.
    #[cfg(test)]
    pub(super) fn largest_allocation_bytes(&self) -> usize {
        (self.page_words() * size_of::<u128>()).max(self.pages.capacity() * size_of::<Page>())
    }

    fn page(&self, group: usize) -> Option<&Page> {
        self.pages.get(group >> self.page_bits).filter(|page| !page.is_empty())
    }

    fn page_mut(&mut self, group: usize) -> &mut Page {
        let at = group >> self.page_bits;
        if self.pages.get(at).is_none_or(|page| page.is_empty()) {
            self.make_page(at);
        }
        &mut self.pages[at]
    }

    #[cold]
    fn make_page(&mut self, at: usize) {
        let words = self.page_words();
        if self.pages.len() <= at {
            self.pages.resize_with(at + 1, Page::default);
        }
        self.pages[at] = std::mem::take(&mut self.spare);
        if self.pages[at].is_empty() {
            self.pages[at] = Page::new(words);
        }
    }

    fn page_words(&self) -> usize {
        (SLOTS + 1) << self.page_bits
    }

    /// Index of a head in its page.
    fn head(&self, group: usize) -> usize {
        group & ((1 << self.page_bits) - 1)
    }

    /// Index of a slot in its page.
    fn slot(&self, group: usize, slot: usize) -> usize {
        (1 << self.page_bits) + self.head(group) * SLOTS + slot
    }
}

/// How many slots are taken, by the head of the group.
fn taken(head: u128) -> usize {
    (head & TAKEN) as usize
}

/// The bit that tells whether a value like this lies behind.
fn overflow(value: u128) -> u128 {
    0x10 << (value >> 8 & 3)
}

/// The highest bit of each byte in the head that is that of the value, and perhaps of some behind one.
fn alike(head: u128, value: u128) -> u128 {
    let differing = head ^ u128::from_le_bytes([value as u8; 16]);
    // The lowest byte is the count.
    differing.wrapping_sub(LOWEST_BITS) & !differing & (LOWEST_BITS << 7) & !0xff
}

/// The first slot that is alike.
fn slot_of(alike: u128) -> usize {
    (alike.trailing_zeros() as usize / 8).wrapping_sub(1)
}
