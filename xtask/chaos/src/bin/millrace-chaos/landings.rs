//! When rows of each partition became visible, as the rows themselves tell.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use millrace_chaos::world::World;

/// Times of inserts by partition, milliseconds since 1970.
pub(crate) struct Landings(BTreeMap<i32, Vec<i64>>);

impl Landings {
    /// What the table tells now.
    pub(crate) fn of(world: &World) -> Self {
        let sql = format!(
            "SELECT DISTINCT _partition, toUnixTimestamp64Milli(_ingested_at) AS at FROM {} ORDER BY _partition, at",
            world.table()
        );
        let mut times: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
        for line in world.stack.sql(&sql).lines() {
            let (partition, at) = line.split_once('\t').expect("two columns");
            times.entry(partition.parse().unwrap()).or_default().push(at.parse().unwrap());
        }
        Self(times)
    }

    /// Partitions that have rows.
    pub(crate) fn partitions(&self) -> impl Iterator<Item = i32> {
        self.0.keys().copied()
    }

    /// The longest time within `from..to` in which no row of the partition became visible.
    pub(crate) fn longest_pause(&self, partition: i32, from: i64, to: i64) -> Duration {
        let inside = self.0[&partition].iter().copied().filter(|at| (from..to).contains(at));
        let marks: Vec<i64> = [from].into_iter().chain(inside).chain([to]).collect();
        let longest = marks.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0);
        Duration::from_millis(longest.max(0) as u64)
    }
}

/// Milliseconds since 1970: the stack's parts have the clock of this process.
pub(crate) fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}
