//! Kind `queries`: how long named queries take, and what rows take on disk, over a table that is made inside ClickHouse. A
//! variant alters the table or the rollups before they are filled.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use millrace_schemas::{CLICKHOUSE_DDL, QUERIES};

use super::http::ClickHouse;
use super::result::Run;
use super::spec::{Queries, QueriesVariant};
use super::stats::percentile;
use super::world::World;

const FILL: &str = include_str!("../../queries/orders.sql");
/// Merges go on for so long at most after the last row.
const MERGED_WITHIN: Duration = Duration::from_secs(1800);
/// Made in one statement: one part of the table for each month, and one of each rollup.
const ROWS_AT_ONCE: u64 = 500_000;

/// Fills a database for each variant, and asks everything of it.
///
/// # Errors
/// None but of the runner itself: a run that fails is in the results, with the reason.
pub(crate) fn run(world: &World, queries: &Queries, rounds: u32, tell: &mut dyn FnMut(&Run)) -> Result<Vec<Run>> {
    let mut runs = Vec::new();
    for variant in &queries.variants {
        let name = world.name("millrace_test_bench");
        let filled = fill(world, queries, variant, &name);
        for round in 1..=rounds {
            let mut run = Run::new(&variant.name, round);
            let measured = match &filled {
                Ok(()) => measure(world, queries, &name, &mut run),
                Err(error) => Err(anyhow::anyhow!("{error:#}")),
            };
            if let Err(error) = measured {
                run.failure = Some(format!("{error:#}"));
            }
            tell(&run);
            runs.push(run);
        }
        world.clickhouse.ask("system", &format!("DROP DATABASE IF EXISTS {name} SYNC"))?;
        if world.interrupt.requested() {
            break;
        }
    }
    Ok(runs)
}

fn fill(world: &World, queries: &Queries, variant: &QueriesVariant, database: &str) -> Result<()> {
    let clickhouse = &world.clickhouse;
    clickhouse.ask("system", &format!("CREATE DATABASE {database}"))?;
    for (_, statement) in CLICKHOUSE_DDL {
        clickhouse.ask(database, statement)?;
    }
    for statement in &variant.statements {
        clickhouse.ask(database, statement)?;
    }
    // The last event is of now.
    let start = format!("SELECT toUnixTimestamp64Milli(now64(3)) - {} * 26", queries.rows);
    let start = clickhouse.ask(database, &start)?;
    for first in (0..queries.rows).step_by(ROWS_AT_ONCE as usize) {
        ensure!(!world.interrupt.requested(), "interrupted");
        let rows = ROWS_AT_ONCE.min(queries.rows - first);
        let fill = FILL
            .replace("{first}", &first.to_string())
            .replace("{rows}", &rows.to_string())
            .replace("{start_ms}", &start);
        // One block, as inserts of the pipeline are.
        let settings = "SETTINGS async_insert = 0, max_insert_threads = 1, max_block_size = 1000000, \
                        min_insert_block_size_rows = 1048449, min_insert_block_size_bytes = 1000000000";
        clickhouse.ask(database, &format!("{fill} {settings}"))?;
    }
    settled(world, database)
}

/// Waits until no merge is under way: what is measured is the table, and not its making.
fn settled(world: &World, database: &str) -> Result<()> {
    let merges = format!("SELECT count() FROM system.merges WHERE database = '{database}'");
    world.interrupt.until("merges have ended", MERGED_WITHIN, || {
        let [merges] = world.clickhouse.numbers(database, &merges)?;
        Ok((merges == 0.0).then_some(()))
    })
}

fn measure(world: &World, queries: &Queries, database: &str, run: &mut Run) -> Result<()> {
    let clickhouse = &world.clickhouse;
    let [rows] = clickhouse.numbers(database, "SELECT count() FROM orders")?;
    run.set("rows", rows);
    sizes(clickhouse, database, rows, run)?;
    let orders =
        "SELECT order_id FROM orders WHERE cityHash64(_offset) % 100003 = 7 ORDER BY cityHash64(order_id) LIMIT 100";
    let orders = clickhouse.ask(database, orders)?;
    let orders: Vec<&str> = orders.lines().collect();
    for (name, text) in QUERIES {
        // There are no dead letters here.
        if *name == "dead_letters_by_reason" {
            continue;
        }
        let mut took_ms = Vec::new();
        for time in 0..=queries.times {
            let order = orders.get(time as usize % orders.len().max(1)).copied().unwrap_or_default();
            let sql = with_defaults(text, order).with_context(|| format!("read the parameters of {name}"))?;
            let begun = Instant::now();
            clickhouse.ask(database, &format!("{sql}\nFORMAT Null"))?;
            // The first time is that of a query nobody asks.
            if time > 0 {
                took_ms.push(begun.elapsed().as_secs_f64() * 1000.0);
            }
        }
        took_ms.sort_by(f64::total_cmp);
        for (label, share) in [("p50", 0.5), ("p95", 0.95)] {
            run.set(&format!("query_{name}_{label}_ms"), percentile(&took_ms, share).unwrap_or(f64::NAN));
        }
    }
    Ok(())
}

/// Bytes of a row on disk, by column, and of the rollups by row of the table.
fn sizes(clickhouse: &ClickHouse, database: &str, rows: f64, run: &mut Run) -> Result<()> {
    for (sql, prefix) in [
        (
            "SELECT replaceAll(name, '.', '_'), data_compressed_bytes FROM system.columns \
             WHERE database = currentDatabase() AND table = 'orders'",
            "bytes_per_row_of",
        ),
        (
            "SELECT table, sum(bytes_on_disk) FROM system.parts WHERE active AND database = currentDatabase() GROUP BY table",
            "bytes_per_row_in",
        ),
    ] {
        for line in clickhouse.ask(database, sql)?.lines() {
            let (name, bytes) = line.split_once('\t').context("read the sizes of columns")?;
            let bytes: f64 = bytes.parse().context("read the sizes of columns")?;
            run.set(&format!("{prefix}_{}", name.trim_start_matches('_')), (bytes / rows * 100.0).round() / 100.0);
        }
    }
    Ok(())
}

/// A named query whose parameters have their defaults, and its order this id.
fn with_defaults(text: &str, order: &str) -> Option<String> {
    let (head, sql) = text.split_at(text.find("\nSELECT ")?);
    head.lines().filter_map(|line| line.strip_prefix("-- param ")).try_fold(sql.to_owned(), |sql, param| {
        let (declared, rest) = param.split_once(" = ")?;
        let (name, type_) = declared.split_once(' ')?;
        let value = if name == "order_id" { order } else { rest.split(':').next()? };
        let literal = if type_ == "String" { format!("'{value}'") } else { value.to_owned() };
        Some(sql.replace(&format!("{{{name}:{type_}}}"), &literal))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_parameter_of_every_named_query_gets_a_value() {
        for (name, text) in QUERIES {
            let sql = with_defaults(text, "ord-1").unwrap();
            assert!(!sql.contains('{'), "{name}: {sql}");
        }
    }
}
