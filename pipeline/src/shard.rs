//! Which shard of ClickHouse a Kafka partition belongs to.

/// The shard of a partition, of so many: its number modulo theirs, always. So it is known to whoever knows the two numbers, and
/// stays the same whoever reads the partition, when, and what other shards do.
///
/// # Panics
/// Without any shard.
pub fn shard_of(partition: i32, shards: usize) -> usize {
    // Kafka counts partitions from 0.
    partition.max(0) as usize % shards
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_belongs_to_its_number_modulo_the_shards() {
        assert_eq!((0..7).map(|partition| shard_of(partition, 3)).collect::<Vec<_>>(), [0, 1, 2, 0, 1, 2, 0]);
        assert!((0..7).all(|partition| shard_of(partition, 1) == 0));
    }
}
