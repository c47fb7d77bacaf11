//! A hash table of tagged 128-bit values without empty space to speak of, kept in the order of the values.
//!
//! A *group* is 15 slots of 16 bytes and a head of 16 bytes: how many slots are taken, and one byte of each value in
//! them. A value that is absent costs one look at one head, mostly. A value lies in its *home* group or, when that is
//! full, in the next one that was not; nothing is ever taken out, so a search ends at the first group with room. Homes
//! rise with the values, so that a walk over the groups can copy them into a table of another size front to back.

/// Slots of a group.
pub(super) const SLOTS: usize = 15;
/// Groups of a page, the unit of allocation: 32 KiB, whatever the size of the table.
pub(super) const PAGE_GROUPS: usize = 128;
/// Size of a page.
pub(super) const PAGE_BYTES: usize = PAGE_GROUPS * (SLOTS + 1) * size_of::<u128>();

const PAGE_WORDS: usize = PAGE_GROUPS * (SLOTS + 1);
/// The byte of a value that stands in the head; in the slot its place is taken by the tag.
const TAG: u128 = 0xff;
const LOWEST_BITS: u128 = u128::MAX / 0xff;

/// All heads, then the slots of one group after those of another.
pub(super) type Page = Box<[u128]>;

/// Groups in order.
#[derive(Debug)]
pub(super) struct Groups {
    /// Values are spread over so many groups; the last ones may overflow into groups past them.
    homes: usize,
    /// Made when something is put into them.
    pages: Vec<Option<Page>>,
    /// A page to be used again.
    spare: Option<Page>,
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
        let pages = Vec::with_capacity(homes / PAGE_GROUPS + 2);
        Self { homes, pages, spare: None }
    }

    /// How many groups values are spread over.
    pub(super) fn homes(&self) -> usize {
        self.homes
    }

    /// The group where the search for a value begins.
    pub(super) fn home(&self, value: u128) -> usize {
        (((value >> 64) * self.homes as u128) >> 64) as usize
    }

    /// Where the value lies, or the group that it would be put into.
    pub(super) fn find(&self, value: u128) -> Result<Place, usize> {
        let mut group = self.home(value);
        loop {
            let Some(page) = self.page(group) else { return Err(group) };
            let head = page[group % PAGE_GROUPS];
            let taken = taken(head);
            for slot in alike(head, value) {
                // The bytes of free slots are zero and may look alike too.
                if slot < taken && (page[word(group, slot)] ^ value) <= TAG {
                    return Ok(Place { group, slot });
                }
            }
            if taken < SLOTS {
                return Err(group);
            }
            group += 1;
        }
    }

    /// Reads what [`Groups::find`] will read first, for its cost only: to have it in the cache before it is needed.
    pub(super) fn touch_head(&self, value: u128) -> u128 {
        let home = self.home(value);
        self.page(home).map_or(0, |page| page[home % PAGE_GROUPS])
    }

    /// Reads what [`Groups::find`] will read next, if anything.
    pub(super) fn touch_slot(&self, value: u128) -> u128 {
        let home = self.home(value);
        let Some(page) = self.page(home) else { return 0 };
        alike(page[home % PAGE_GROUPS], value).next().map_or(0, |slot| page[word(home, slot)])
    }

    pub(super) fn tag(&self, place: Place) -> u8 {
        self.page(place.group).map_or(0, |page| page[word(place.group, place.slot)] as u8)
    }

    pub(super) fn set_tag(&mut self, place: Place, tag: u8) {
        let slot = &mut self.page_mut(place.group)[word(place.group, place.slot)];
        *slot = *slot & !TAG | u128::from(tag);
    }

    /// Puts a value that is not there into the group that [`Groups::find`] named.
    pub(super) fn put(&mut self, group: usize, value: u128, tag: u8) {
        let page = self.page_mut(group);
        let head = &mut page[group % PAGE_GROUPS];
        let slot = taken(*head);
        debug_assert!(slot < SLOTS, "group {group} is full");
        *head = (*head | (value & TAG) << (8 * (slot + 1))) + 1;
        page[word(group, slot)] = value & !TAG | u128::from(tag);
    }

    /// Puts a value that is not there where it belongs.
    pub(super) fn append(&mut self, value: u128, tag: u8) {
        let mut group = self.home(value);
        while self.is_full(group) {
            group += 1;
        }
        self.put(group, value, tag);
    }

    /// Whether values of this group or one before it may lie behind it.
    pub(super) fn is_full(&self, group: usize) -> bool {
        self.page(group).is_some_and(|page| taken(page[group % PAGE_GROUPS]) == SLOTS)
    }

    /// Values and tags of a group.
    pub(super) fn values(&self, group: usize) -> impl Iterator<Item = (u128, u8)> {
        self.page(group).into_iter().flat_map(move |page| {
            let head = page[group % PAGE_GROUPS];
            let from = word(group, 0);
            page[from..from + taken(head)].iter().enumerate().map(move |(slot, word)| {
                let byte = head >> (8 * (slot + 1)) & TAG;
                (word & !TAG | byte, *word as u8)
            })
        })
    }

    /// Takes the page of a group away.
    pub(super) fn take_page(&mut self, group: usize) -> Option<Page> {
        self.pages.get_mut(group / PAGE_GROUPS)?.take()
    }

    /// Brings a page that may be used again.
    pub(super) fn recycle(&mut self, mut page: Page) {
        if self.spare.is_none() {
            page[..PAGE_GROUPS].fill(0);
            self.spare = Some(page);
        }
    }

    /// Bytes held.
    pub(super) fn allocated_bytes(&self) -> usize {
        let pages = self.pages.iter().chain([&self.spare]).flatten().count();
        pages * PAGE_BYTES + self.pages.capacity() * size_of::<Option<Page>>()
    }

    fn page(&self, group: usize) -> Option<&Page> {
        self.pages.get(group / PAGE_GROUPS)?.as_ref()
    }

    fn page_mut(&mut self, group: usize) -> &mut Page {
        let at = group / PAGE_GROUPS;
        if self.pages.len() <= at {
            self.pages.resize_with(at + 1, || None);
        }
        let spare = &mut self.spare;
        self.pages[at].get_or_insert_with(|| spare.take().unwrap_or_else(|| vec![0; PAGE_WORDS].into_boxed_slice()))
    }
}

/// How many slots are taken, by the head of the group.
fn taken(head: u128) -> usize {
    (head & 0xff) as usize
}

/// The slots whose byte in the head is that of the value, and perhaps some behind one of them.
fn alike(head: u128, value: u128) -> impl Iterator<Item = usize> {
    let differing = head ^ (value & TAG) * LOWEST_BITS;
    // The highest bit of each byte that is zero (and perhaps of a one behind it), save that of the count.
    let mut found = differing.wrapping_sub(LOWEST_BITS) & !differing & (LOWEST_BITS << 7) & !0xff;
    std::iter::from_fn(move || {
        let slot = (found != 0).then(|| found.trailing_zeros() as usize / 8 - 1);
        found &= found.wrapping_sub(1);
        slot
    })
}

/// Index of a slot in its page.
fn word(group: usize, slot: usize) -> usize {
    PAGE_GROUPS + group % PAGE_GROUPS * SLOTS + slot
}
