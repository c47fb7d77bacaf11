//! The tables of docs/scaling.md.

use std::fmt::Write as _;

use anyhow::Result;

use super::costs::{Costs, Input, Results, variant};
use super::need::{Need, PLAN, need, window};
use super::simulate::{Hosts, Setup, simulate};

/// Partitions and consumers of the variants of `scale`.
pub(super) const MEASURED: [(u32, u32); 12] =
    [(1, 1), (1, 2), (1, 4), (2, 1), (2, 2), (2, 4), (4, 1), (4, 2), (4, 4), (8, 1), (8, 2), (8, 4)];
const RATES: [f64; 3] = [200e3, 2e6, 20e6];
const WINDOWS: [(&str, f64); 3] = [("10 min", 600.0), ("1 h", 3_600.0), ("24 h", 86_400.0)];
/// Of the efficiency table: what a consumer drains at its own speed takes a share of a server with sixteen cores.
const CONSUMERS_PER_SHARD: usize = 4;
const PARTITIONS_PER_CONSUMER: usize = 8;
/// Long enough that the start of a process is little of it.
const EVENTS_PER_CONSUMER: f64 = 100e6;
/// Memory of a consumer, and how long a take-over may last, where walls are told.
const CONSUMER_BYTES: f64 = 64.0 * GIB;
const TAKEOVER_SECONDS: f64 = 60.0;
/// What all writers of a table together are assumed to stay below (`consumers/src/clickhouse/insert.rs`).
const TOKENS_PER_SECOND: f64 = 250.0;
/// Of ClickHouse where parts were measured; a server is taken to have as many as cores.
const MERGE_THREADS: f64 = 2.0;
/// At the turn of a month an insert has rows of two of the table's partitions.
const TABLE_PARTITIONS: f64 = 2.0;
const GIB: f64 = (1_u64 << 30) as f64;
const SEED: u64 = 1;

/// All tables, as Markdown.
///
/// # Errors
/// A figure is missing.
pub(super) fn tables(results: &Results) -> Result<String> {
    let (costs, inputs) = results.costs()?;
    let needs = RATES.map(|rate| need(&costs, &PLAN, rate));
    Ok([
        section("What was measured", &measured(&inputs)),
        section("How far the model is from what was measured", &compared(results, &costs)?),
        section("What a rate needs", &needed(&needs)),
        section("What a window needs", &windows(&costs, &needs)),
        section("Where the next wall stands", &walls(&costs, &needs)),
        section("Efficiency by the number of consumers", &efficiency(&costs)),
    ]
    .join("\n"))
}

/// A variant of `scale`, as it was measured.
pub(super) fn as_measured(results: &Results, partitions: u32, consumers: u32) -> Result<Setup> {
    Ok(Setup {
        consumers: consumers as usize,
        partitions: partitions as usize,
        shards: 1,
        events: results.get("scale", &variant(partitions, consumers), "events")?,
        skew: 0.0,
        hosts: Hosts::Shared(2),
        replaced: false,
        seed: SEED,
    })
}

fn section(title: &str, body: &str) -> String {
    format!("### {title}\n\n{body}")
}

/// A table whose columns but the first are numbers.
fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut text = format!("| {} |\n|", head.join(" | "));
    for at in 0..head.len() {
        text += if at == 0 { " --- |" } else { " ---: |" };
    }
    text.push('\n');
    for row in rows {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "| {} |", row.join(" | "));
    }
    text
}

/// `1234567.8` as `1,234,568`.
fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

fn gib(bytes: f64) -> String {
    if bytes < 10.0 * GIB { format!("{:.1} GiB", bytes / GIB) } else { format!("{} GiB", grouped(bytes / GIB)) }
}

fn megabytes(bytes: f64) -> String {
    format!("{} MB/s", grouped(bytes / 1e6))
}

fn measured(inputs: &[Input]) -> String {
    let rows: Vec<Vec<String>> =
        inputs.iter().map(|input| vec![input.what.to_owned(), input.value.clone(), input.source.clone()]).collect();
    table(&["", "", "source: figure; scenario, day, commit"], &rows)
}

fn compared(results: &Results, costs: &Costs) -> Result<String> {
    let mut rows = Vec::new();
    for (scenario, at) in [("live", "180000/s"), ("latency", "100000/s"), ("latency", "50000/s")] {
        let figure = |figure: &str| results.get(scenario, at, figure);
        let consumer = costs.consumer_per_event + costs.consumer_idle_cores / figure("events_per_second")?;
        let insert = costs.insert_per_row + costs.insert_fixed / figure("rows_per_batch")?;
        for (what, model, measured) in [
            ("consumer, µs per event", consumer * 1e6, figure("cpu_us_consumer")?),
            ("ClickHouse, µs per row", insert * 1e6, figure("cpu_us_clickhouse")?),
        ] {
            rows.push(vec![
                format!("`{scenario}` {at}: {what}"),
                format!("{measured:.2}"),
                format!("{model:.2}"),
                difference(model, measured),
            ]);
        }
    }
    for (partitions, consumers) in MEASURED {
        let model = simulate(costs, as_measured(results, partitions, consumers)?).seconds;
        let measured = results.get("scale", &variant(partitions, consumers), "seconds")?;
        rows.push(vec![
            format!("`scale` {}: seconds", variant(partitions, consumers)),
            format!("{measured:.1}"),
            format!("{model:.1}"),
            difference(model, measured),
        ]);
    }
    Ok(table(&["", "measured", "model", "difference"], &rows))
}

fn difference(model: f64, measured: f64) -> String {
    format!("{:+.0} %", (model / measured - 1.0) * 100.0)
}

fn needed(needs: &[Need; 3]) -> String {
    type Figure = fn(&Need) -> String;
    let figures: [(&str, Figure); 18] = [
        ("consumers (at least two)", |need| grouped(need.consumers)),
        ("cores that they take together", |need| format!("{:.1}", need.consumer_cores)),
        ("Kafka partitions", |need| grouped(need.partitions)),
        ("brokers, by what they write", |need| grouped(need.brokers)),
        ("their cores, first copy only", |need| format!("{:.1}", need.broker_cores)),
        ("into Kafka, before copies", |need| megabytes(need.kafka_bytes)),
        ("ClickHouse shards of 16 cores", |need| grouped(need.shards)),
        ("servers with three copies", |need| grouped(need.shards * PLAN.copies)),
        ("cores that landing takes, first copy only", |need| format!("{:.1}", need.clickhouse_cores)),
        ("into ClickHouse, uncompressed", |need| megabytes(need.insert_bytes)),
        ("rows of an insert", |need| grouped(need.rows_per_insert)),
        ("inserts, and so new parts, of a shard", |need| format!("{:.1}/s", need.shard_inserts)),
        ("new parts on the disk of a shard", |need| megabytes(need.shard_disk_bytes)),
        ("times that merges write them again", |need| grouped(need.merge_writes)),
        ("disk a day, one copy", |need| format!("{:.1} TB", need.disk_bytes_per_day / 1e12)),
        ("commits of offsets", |need| format!("{:.0}/s", need.commits)),
        ("questions to the registry, when all start at once", |need| grouped(need.registry_calls)),
        ("the same while they run", |_| "0".to_owned()),
    ];
    let rows: Vec<Vec<String>> = figures
        .iter()
        .map(|(name, figure)| std::iter::once((*name).to_owned()).chain(needs.iter().map(figure)).collect())
        .collect();
    table(&["", "200,000/s", "2 million/s", "20 million/s"], &rows)
}

fn windows(costs: &Costs, needs: &[Need; 3]) -> String {
    let mut rows = Vec::new();
    for (need, rate) in needs.iter().zip(RATES) {
        for (name, seconds) in WINDOWS {
            let window = window(costs, need, rate, seconds);
            rows.push(vec![
                format!("{}/s, {name}", grouped(rate)),
                gib(window.index_bytes),
                gib(window.bytes_per_consumer),
                format!("{} million", grouped(window.max_ids / 1e6)),
                format!("{} s", grouped(window.takeover)),
            ]);
        }
    }
    table(&["rate, `dedup.window`", "index", "of each consumer", "`dedup.max_ids` of each", "take-over of one"], &rows)
}

fn walls(costs: &Costs, needs: &[Need; 3]) -> String {
    let hour = 3_600.0;
    let of = |share: &dyn Fn(&Need, f64) -> f64| -> Vec<String> {
        needs.iter().zip(RATES).map(|(need, rate)| percent(share(need, rate))).collect()
    };
    let parts = costs.parts_per_second * PLAN.shard_cores / MERGE_THREADS;
    let thread = 1.0 / costs.consumer_per_event;
    let rows = [
        (
            format!("one thread of a topic: {}/s a process", grouped(thread)),
            of(&|need, rate| rate / need.consumers / thread),
        ),
        (
            format!("ids of 1 h in {} of a consumer", gib(CONSUMER_BYTES)),
            of(&|need, rate| window(costs, need, rate, hour).bytes_per_consumer / CONSUMER_BYTES),
        ),
        (
            format!("ids of 24 h in {} of a consumer", gib(CONSUMER_BYTES)),
            of(&|need, rate| window(costs, need, rate, 24.0 * hour).bytes_per_consumer / CONSUMER_BYTES),
        ),
        (
            format!("take-over of 1 h of ids within {TAKEOVER_SECONDS:.0} s"),
            of(&|need, rate| window(costs, need, rate, hour).takeover / TAKEOVER_SECONDS),
        ),
        (
            format!(
                "new parts of a shard, of {parts:.0}/s: as many as {MERGE_THREADS} threads kept merged, for each such pair"
            ),
            of(&|need, _| need.shard_inserts / parts),
        ),
        (
            format!("tokens of a shard, of {TOKENS_PER_SECOND:.0}/s"),
            of(&|need, _| need.shard_inserts * TABLE_PARTITIONS / TOKENS_PER_SECOND),
        ),
    ];
    let rows: Vec<Vec<String>> =
        rows.into_iter().map(|(name, shares)| std::iter::once(name).chain(shares).collect()).collect();
    table(&["of this so much is used", "200,000/s", "2 million/s", "20 million/s"], &rows)
}

fn efficiency(costs: &Costs) -> String {
    let speed = |consumers: usize, partitions: usize, skew: f64| {
        let setup = Setup {
            consumers,
            partitions,
            shards: consumers.div_ceil(CONSUMERS_PER_SHARD),
            events: EVENTS_PER_CONSUMER * consumers as f64,
            skew,
            hosts: Hosts::Apart(PLAN.shard_cores as usize),
            replaced: true,
            seed: SEED,
        };
        setup.events / simulate(costs, setup).seconds
    };
    let alone = speed(1, PARTITIONS_PER_CONSUMER, 0.0);
    let row = |name: String, consumers: usize, partitions: usize, skew: f64| {
        let speed = speed(consumers, partitions, skew);
        vec![name, grouped(partitions as f64), grouped(speed), percent(speed / alone / consumers as f64)]
    };
    let mut rows: Vec<Vec<String>> = [1, 2, 4, 8, 16, 32, 64]
        .into_iter()
        .map(|consumers| row(consumers.to_string(), consumers, PARTITIONS_PER_CONSUMER * consumers, 0.1))
        .collect();
    for (name, partitions, skew) in [
        ("64, partitions of one size", 512, 0.0),
        ("64, partitions that differ by half", 512, 0.5),
        ("64, one partition each, that differ by a tenth", 64, 0.1),
        ("64, three partitions for two consumers", 96, 0.1),
    ] {
        rows.push(row(name.to_owned(), 64, partitions, skew));
    }
    table(&["consumers", "partitions", "events/s", "of so many times one"], &rows)
}
