//! What a rate needs, by arithmetic on what was measured.

use super::costs::Costs;

/// What is decided and not measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Plan {
    /// Share of the one thread of a topic that a consumer is planned for; the rest catches up after a pause.
    pub(crate) consumer_load: f64,
    /// Share of ClickHouse's cores that landing may take; the rest is for queries and for the merges after a pause.
    pub(crate) clickhouse_load: f64,
    /// Cores of one ClickHouse server.
    pub(crate) shard_cores: f64,
    /// Kafka partitions for each consumer: so many consumers more are of use one day.
    pub(crate) partitions_per_consumer: f64,
    /// Seconds that a batch may grow old.
    pub(crate) batch_age: f64,
    /// Bytes of an event in Kafka and of a row in an insert.
    pub(crate) event_bytes: f64,
    pub(crate) row_bytes: f64,
    /// Copies of everything in Kafka and in ClickHouse.
    pub(crate) copies: f64,
    /// Bytes a second that one broker is planned to write, copies for others included.
    pub(crate) broker_bytes: f64,
}

/// The plan of docs/scaling.md.
pub(crate) const PLAN: Plan = Plan {
    consumer_load: 0.5,
    clickhouse_load: 0.5,
    shard_cores: 16.0,
    partitions_per_consumer: 4.0,
    batch_age: 1.0,
    event_bytes: 250.0,
    row_bytes: 450.0,
    copies: 3.0,
    broker_bytes: 100e6,
};

/// The index expires whole generations: it holds an eighth more than the window.
const OVERSHOOT: f64 = 1.125;

/// What a rate needs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Need {
    pub(crate) consumers: f64,
    pub(crate) consumer_cores: f64,
    pub(crate) partitions: f64,
    pub(crate) brokers: f64,
    pub(crate) broker_cores: f64,
    /// Servers that share the rows; each has its copies besides.
    pub(crate) shards: f64,
    pub(crate) clickhouse_cores: f64,
    pub(crate) rows_per_insert: f64,
    /// Inserts, and so parts of one month, that a shard takes in a second.
    pub(crate) shard_inserts: f64,
    pub(crate) kafka_bytes: f64,
    pub(crate) insert_bytes: f64,
    /// Bytes a second of new parts on a shard, one copy; merges write each byte about so often again.
    pub(crate) shard_disk_bytes: f64,
    pub(crate) merge_writes: f64,
    pub(crate) disk_bytes_per_day: f64,
    /// Commits of offsets in a second, over all consumers.
    pub(crate) commits: f64,
    /// Questions to the registry when all consumers start anew.
    pub(crate) registry_calls: f64,
}

/// What a window of ids needs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Window {
    pub(crate) index_bytes: f64,
    pub(crate) bytes_per_consumer: f64,
    /// Ids of one consumer, as `dedup.max_ids` has to allow.
    pub(crate) max_ids: f64,
    /// Seconds until one that was restarted lands rows again.
    pub(crate) takeover: f64,
}

/// Rows of an insert of a consumer that reads so many events a second and has a batch open for each of so many shards.
pub(crate) fn rows_per_insert(costs: &Costs, plan: &Plan, rate: f64, shards: f64) -> f64 {
    (rate / shards * plan.batch_age).min(costs.full_insert_rows).max(1.0)
}

/// What `rate` events a second need, at least two consumers and one shard.
pub(crate) fn need(costs: &Costs, plan: &Plan, rate: f64) -> Need {
    let most = (plan.consumer_load - costs.consumer_idle_cores) / costs.consumer_per_event;
    let consumers = (rate / most).ceil().max(2.0);
    let each = rate / consumers;
    let consumer_cores = consumers * costs.consumer_idle_cores + rate * costs.consumer_per_event;
    // The more shards a consumer has partitions of, the smaller are its inserts, and the more they cost.
    let mut shards: f64 = 1.0;
    let (rows, clickhouse_cores) = loop {
        let rows = rows_per_insert(costs, plan, each, shards.min(plan.partitions_per_consumer));
        let cores = rate * (costs.insert_per_row + costs.insert_fixed / rows);
        let wanted = (cores / (plan.shard_cores * plan.clickhouse_load)).ceil().max(1.0);
        if wanted <= shards {
            break (rows, cores);
        }
        shards += 1.0;
    };
    let inserts = rate / rows;
    let kafka_bytes = rate * plan.event_bytes;
    Need {
        consumers,
        consumer_cores,
        partitions: (consumers * plan.partitions_per_consumer / shards).ceil() * shards,
        brokers: (kafka_bytes * plan.copies / plan.broker_bytes).ceil().max(plan.copies),
        broker_cores: rate * costs.kafka_per_event,
        shards,
        clickhouse_cores,
        rows_per_insert: rows,
        shard_inserts: inserts / shards,
        kafka_bytes,
        insert_bytes: rate * plan.row_bytes,
        shard_disk_bytes: rate * costs.disk_bytes_per_row / shards,
        merge_writes: merge_writes(rows),
        disk_bytes_per_day: rate * costs.disk_bytes_per_row * 86_400.0,
        // One for each insert that was acknowledged.
        commits: inserts,
        // Reader's schema of the topic and of two lookups, and two writer's schemas of each.
        registry_calls: consumers * 9.0,
    }
}

/// How often a row is written again by merges of ten parts each until a part has 100 million rows.
fn merge_writes(rows_per_insert: f64) -> f64 {
    (1e8 / rows_per_insert).log10().max(0.0).ceil()
}

/// What it takes to remember the ids of `seconds`.
pub(crate) fn window(costs: &Costs, need: &Need, rate: f64, seconds: f64) -> Window {
    let ids = rate * seconds;
    let index_bytes = ids * OVERSHOOT * costs.index_bytes_per_id;
    Window {
        index_bytes,
        bytes_per_consumer: index_bytes / need.consumers,
        max_ids: ids * OVERSHOOT / need.consumers,
        takeover: costs.takeover_fixed + ids / need.consumers / costs.takeover_ids_per_second,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::ROUND;
    use super::*;

    #[test]
    fn a_rate_needs_what_its_parts_need() {
        // Half a core less a tenth for idling, at 1 µs an event, is 400,000/s for each consumer.
        let need = need(&ROUND, &PLAN, 1_000_000.0);
        assert_eq!((need.consumers, need.partitions), (3.0, 12.0));
        assert!((need.consumer_cores - 1.3).abs() < 1e-9, "{need:?}");
        // Full inserts of 100,000 rows: 0.1 s and 2 µs for each row are 3 µs, 3 cores of 8.
        assert_eq!((need.rows_per_insert, need.shards), (100_000.0, 1.0));
        assert!((need.clickhouse_cores - 3.0).abs() < 1e-9 && (need.shard_inserts - 10.0).abs() < 1e-9, "{need:?}");
        assert_eq!((need.brokers, need.merge_writes), (8.0, 3.0));
    }

    #[test]
    fn more_shards_make_smaller_inserts_which_need_more_shards() {
        let rows = |shards| rows_per_insert(&ROUND, &PLAN, 200_000.0, shards);
        assert_eq!((rows(1.0), rows(4.0)), (100_000.0, 50_000.0));
        let need = need(&ROUND, &PLAN, 20_000_000.0);
        // 50 consumers at 400,000/s with 4 shards each: full inserts still. 60 cores at half load are 7.5 servers of 16.
        assert_eq!((need.consumers, need.rows_per_insert, need.shards), (50.0, 100_000.0, 8.0));
        assert_eq!(need.partitions % need.shards, 0.0, "every shard has as many partitions");
    }

    #[test]
    fn a_window_costs_memory_and_time_to_load() {
        let need = need(&ROUND, &PLAN, 1_000_000.0);
        let window = window(&ROUND, &need, 1_000_000.0, 3_600.0);
        assert!((window.index_bytes - 3.6e9 * 1.125 * 20.0).abs() < 1.0, "{window:?}");
        assert!((window.max_ids - 1.35e9).abs() < 1.0 && (window.takeover - (1.0 + 120.0)).abs() < 1e-6, "{window:?}");
    }
}
