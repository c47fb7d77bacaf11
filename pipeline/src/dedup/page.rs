//! The memory of a table, in pages.

use std::ops::{Deref, DerefMut};

use memmap2::MmapMut;
use zerocopy::FromBytes;

/// Pages of so many bytes and more are mapped each by itself, in huge pages where the system has them (on Linux: unless
/// `transparent_hugepage` is `never`). An allocator hands memory back in one piece, which stopped an index of 100 million
/// ids for 190 ms as it ran empty, and keeps what lies between other things: 600 MiB beside an index of 16 million ids,
/// 390 MiB with these. Neighbours are one mapping to the system, so that there are some dozens of them.
const MAPPED_BYTES: usize = 128 << 10;

/// Words that begin as zero.
#[derive(Debug)]
pub(super) enum Page {
    Allocated(Box<[u128]>),
    Mapped(MmapMut),
}

impl Page {
    pub(super) fn new(words: usize) -> Self {
        let bytes = words * size_of::<u128>();
        if bytes >= MAPPED_BYTES
            && let Ok(map) = MmapMut::map_anon(bytes)
        {
            // Only faster.
            #[cfg(target_os = "linux")]
            let _ = map.advise(memmap2::Advice::HugePage);
            return Self::Mapped(map);
        }
        Self::Allocated(vec![0; words].into_boxed_slice())
    }
}

impl Default for Page {
    fn default() -> Self {
        Self::Allocated(Box::default())
    }
}

impl Deref for Page {
    type Target = [u128];

    fn deref(&self) -> &[u128] {
        match self {
            Self::Allocated(words) => words,
            // A map begins at a page of the system and is a whole number of words.
            Self::Mapped(map) => <[u128]>::ref_from_bytes(map).unwrap_or_default(),
        }
    }
}

impl DerefMut for Page {
    fn deref_mut(&mut self) -> &mut [u128] {
        match self {
            Self::Allocated(words) => words,
            Self::Mapped(map) => <[u128]>::mut_from_bytes(map).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_zero_and_keeps_what_is_written_whether_mapped_or_not() {
        for words in [256, MAPPED_BYTES / 16, MAPPED_BYTES] {
            let mut page = Page::new(words);
            assert_eq!(matches!(page, Page::Mapped(_)), words > 256);
            assert_eq!(page.len(), words);
            assert!(page.iter().all(|word| *word == 0));
            page[words - 1] = u128::MAX;
            assert_eq!(page.iter().filter(|word| **word == u128::MAX).count(), 1);
        }
        assert!(Page::default().is_empty());
    }
}
