//! Seeded chance, and the topic that the model reads.

use std::sync::OnceLock;

use millrace_schemas::golden;

use super::world::order;

pub(super) const PARTITIONS: usize = 3;
pub(super) const EVENTS: usize = 48;
pub(super) const CUSTOMERS: usize = 4;

/// Records of each partition by offset.
pub(super) type Log = Vec<Vec<(i64, What)>>;

/// A topic in which events come again and again, each in its own partition, among poison and with gaps in the offsets.
pub(super) fn log(random: &mut Random) -> Log {
    let mut log: Log = vec![Vec::new(); PARTITIONS];
    let mut ends = [0; PARTITIONS];
    for _ in 0..60 + random.below(120) {
        let event = random.below(EVENTS);
        let partition = event % PARTITIONS;
        ends[partition] += if random.one_in(8) { 3 } else { 1 };
        let what = if random.one_in(10) { What::Poison(random.below(poison().len())) } else { What::Event(event) };
        log[partition].push((ends[partition] - 1, what));
    }
    log
}

pub(super) struct Random(pub(super) u64);

impl Random {
    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub(super) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

#[derive(Clone, Copy)]
pub(super) enum What {
    Event(usize),
    Poison(usize),
}

impl What {
    pub(super) fn event(self) -> Option<usize> {
        match self {
            Self::Event(event) => Some(event),
            Self::Poison(_) => None,
        }
    }

    pub(super) fn value(self) -> &'static [u8] {
        match self {
            Self::Event(event) => &values()[event],
            Self::Poison(poison_at) => &poison()[poison_at].bytes,
        }
    }
}

/// Values of the events by number, made once; event `n` has id `n` and customer `n % CUSTOMERS`.
pub(super) fn values() -> &'static [Vec<u8>] {
    static VALUES: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    VALUES
        .get_or_init(|| (0..EVENTS).map(|n| order(n as u128, &format!("customer-{}", n % CUSTOMERS), &["s"])).collect())
}

pub(super) fn poison() -> &'static [golden::Bad] {
    static POISON: OnceLock<Vec<golden::Bad>> = OnceLock::new();
    POISON.get_or_init(golden::bad)
}
