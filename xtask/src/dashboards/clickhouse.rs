//! The side of ClickHouse, by the endpoint of its own (`<prometheus>` in its configuration, with metrics and events on).

use super::model::{Dashboard, Row, curves};

pub(super) fn dashboard() -> Dashboard {
    let rate = |event: &str| format!("sum(rate(ClickHouseProfileEvents_{event}[$__rate_interval]))");
    Dashboard {
        name: "millrace-clickhouse",
        title: "Millrace: ClickHouse",
        description: "What inserts cost the server, and whether it keeps up with merging; by ClickHouse's own metrics.",
        topics_of: None,
        rows: vec![
            Row {
                title: "Inserts",
                panels: vec![
                    curves("Rows inserted", "cps", "By anybody, and by merges.")
                        .of(&rate("InsertedRows"), "inserted")
                        .of(&rate("MergedRows"), "merged"),
                    curves("Inserts per second", "cps", "Few and large is cheap.")
                        .of(&rate("InsertQuery"), "inserts")
                        .of(&rate("FailedInsertQuery"), "failed"),
                    curves(
                        "Delayed and rejected",
                        "cps",
                        "Too many parts: the server slows inserts down, then refuses them.",
                    )
                    .of(&rate("DelayedInserts"), "delayed")
                    .of(&rate("RejectedInserts"), "rejected"),
                    curves("Time of an insert", "s", "Mean, at the server.").of(
                        "sum(rate(ClickHouseProfileEvents_InsertQueryTimeMicroseconds[$__rate_interval])) / 1e6 \
                         / (sum(rate(ClickHouseProfileEvents_InsertQuery[$__rate_interval])) > 0) or vector(0)",
                        "mean",
                    ),
                    curves("Blocks known already", "cps", "Repetitions under the same token that the server left out.")
                        .of(&rate("DuplicatedInsertedBlocks"), "blocks"),
                    curves("Bytes inserted", "bytes", "Per second, uncompressed.").of(&rate("InsertedBytes"), "bytes"),
                ],
            },
            Row {
                title: "Server",
                panels: vec![
                    curves(
                        "Parts",
                        "short",
                        "Active ones, and those that wait to be removed. Growth without an end: merges do not keep up.",
                    )
                    .of("sum(ClickHouseMetrics_PartsActive)", "active")
                    .of("sum(ClickHouseMetrics_PartsOutdated)", "outdated"),
                    curves("Merges under way", "short", "And the threads for them.")
                        .of("sum(ClickHouseMetrics_Merge)", "merges")
                        .of("sum(ClickHouseMetrics_BackgroundMergesAndMutationsPoolSize)", "threads"),
                    curves("Memory", "bytes", "As ClickHouse counts it.")
                        .of("sum(ClickHouseMetrics_MemoryTracking)", "tracked"),
                    curves("Queries under way", "short", "Of all kinds.").of("sum(ClickHouseMetrics_Query)", "queries"),
                    curves("Queries that failed", "cps", "Of all kinds.")
                        .of(&rate("FailedQuery"), "failed")
                        .of(&rate("Query"), "all"),
                    curves("Processors", "short", "Cores that queries and merges use.").of(
                        "sum(rate(ClickHouseProfileEvents_OSCPUVirtualTimeMicroseconds[$__rate_interval])) / 1e6",
                        "cores",
                    ),
                ],
            },
        ],
    }
}
