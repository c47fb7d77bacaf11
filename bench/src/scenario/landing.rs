//! Watches rows land in a table, by asking the server and not the system that lands them; and judges the outcome.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::meter::{Meter, Role};
use super::result::{Outcome, Run};
use super::spec::Check;
use super::stats::slope;
use super::systems::System;
use super::world::{Database, World};
use crate::manifest::Manifest;

/// Between two questions for the number of rows; one takes the server 2 ms of processor time.
const LOOK: Duration = Duration::from_millis(200);
/// Between two looks at processes.
const LOOK_AT_PROCESSES: Duration = Duration::from_secs(1);
/// Fewer steps make no line.
const STEPS_MIN: usize = 4;
/// Different ids that are counted with some hundred MB.
const IDS_AT_ONCE: f64 = 10_000_000.0;
const NEARLY_ALL: f64 = 0.99;
/// Nothing landing for this long while something is missing is a failure.
const STALLED: Duration = Duration::from_secs(60);

/// When rows came. Times are seconds since the begin of the span.
#[derive(Clone, Debug, Default)]
pub(crate) struct Landed {
    /// Each time that there were more rows: when, and how many.
    pub(crate) rows: Vec<(f64, f64)>,
    /// Memory of the consumer, in MiB.
    pub(crate) memory: Vec<(f64, f64)>,
    /// When everything had landed.
    pub(crate) seconds: f64,
}

/// What has to land.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    pub(crate) rows: u64,
    /// Records that a system which counts them has to be done with.
    pub(crate) records: u64,
}

/// Rows in the table of events.
///
/// # Errors
/// If ClickHouse does not answer.
pub(crate) fn rows_in(world: &World, database: &Database) -> Result<f64> {
    let statement =
        format!("SELECT total_rows FROM system.tables WHERE database = '{}' AND name = 'orders'", database.name);
    Ok(world.clickhouse.numbers::<1>("system", &statement)?[0])
}

/// Waits until all is there.
///
/// # Errors
/// If the system ends, nothing lands for a minute, or Ctrl-C comes.
pub(crate) fn until_landed(
    world: &World,
    database: &Database,
    system: &mut dyn System,
    expected: Expected,
    meter: &mut Meter,
    begun: Instant,
) -> Result<Landed> {
    let mut landed = Landed::default();
    let (mut moved, mut looked) = (Instant::now(), Instant::now());
    let (mut rows, mut settled) = (0.0, 0);
    loop {
        let now = rows_in(world, database)?;
        let seconds = begun.elapsed().as_secs_f64();
        if now > rows {
            (rows, moved) = (now, Instant::now());
            landed.rows.push((seconds, rows));
        }
        if rows >= expected.rows as f64 {
            match system.settled() {
                Some(now) if now < expected.records => {
                    if now > settled {
                        (settled, moved) = (now, Instant::now());
                    }
                }
                _ => {
                    landed.seconds = seconds;
                    return Ok(landed);
                }
            }
        }
        if looked.elapsed() >= LOOK_AT_PROCESSES {
            looked = Instant::now();
            system.check()?;
            let memory = meter.look();
            landed.memory.extend(memory.get(&Role::Consumer).map(|mib| (seconds, *mib)));
        }
        if moved.elapsed() > STALLED {
            bail!("nothing has landed for {STALLED:?}: {rows} rows of {}", expected.rows);
        }
        world.interrupt.pause(LOOK)?;
    }
}

impl Landed {
    /// Records per second while there was work: the slope of the straight line (least squares) through what was in the table
    /// each time that it grew, up to nearly all; where it grew only a few times, all of the time until then counts instead.
    ///
    /// The first and the last batch alone say little where there are only ten: half of the error of such a figure would be
    /// whether two inserts ended together. And a system that collects a block may wait for seconds with the last few rows.
    pub(crate) fn records_per_second(&self, records: f64) -> Option<f64> {
        let all = self.rows.last()?.1;
        let nearly = self.rows.iter().position(|point| point.1 >= all * NEARLY_ALL)?;
        let steps = &self.rows[..=nearly];
        let last = steps[nearly];
        let rows_per_second = if steps.len() >= STEPS_MIN { slope(steps) } else { last.1 / last.0 };
        Some(rows_per_second / all * records)
    }
}

/// Writes down what the span has cost, per record.
///
/// # Errors
/// If that cannot be told.
pub(crate) fn account(run: &mut Run, meter: Meter, records: f64) -> Result<()> {
    let (seconds, resident) = meter.stop()?;
    let mut total = 0.0;
    for (role, seconds) in seconds {
        let us = seconds * 1e6 / records;
        run.set(&format!("cpu_us_{}", role.name()), us);
        // What the producer takes is the same for all, and what the harness takes is not theirs.
        if matches!(role, Role::Consumer | Role::ClickHouse | Role::Kafka) {
            total += us;
        }
    }
    run.set("cpu_us_total", total);
    for (role, mib) in resident {
        run.set(&format!("memory_mib_{}", role.name()), mib);
    }
    Ok(())
}

/// Rows and different ids. They are counted in portions: the set of 100 million ids is larger than the server's memory.
///
/// # Errors
/// If ClickHouse does not answer.
pub(crate) fn count(world: &World, database: &Database) -> Result<(f64, f64)> {
    let portions = (rows_in(world, database)? / IDS_AT_ONCE) as u32 + 1;
    let (mut rows, mut ids) = (0.0, 0.0);
    for portion in 0..portions {
        let statement = format!(
            "SELECT count(), uniqExact(event_id) FROM orders WHERE cityHash64(event_id) % {portions} = {portion}"
        );
        let [rows_here, ids_here] = world.clickhouse.numbers(&database.name, &statement)?;
        rows += rows_here;
        ids += ids_here;
    }
    Ok((rows, ids))
}

/// Writes down what lies in the table, and compares it with what was sent.
///
/// # Errors
/// If ClickHouse does not answer.
pub(crate) fn look_at_table(
    run: &mut Run,
    world: &World,
    database: &Database,
    manifest: &Manifest,
    check: Check,
) -> Result<()> {
    let table = format!("database = '{}' AND table = 'orders'", database.name);
    // Block numbers of a table partition are given one to each part that an insert makes, from 1.
    let [parts_made, parts_active, bytes] = world.clickhouse.numbers("system", &format!(
        "SELECT sum(made), sum(still), sum(bytes) FROM (SELECT max(max_block_number) AS made, countIf(active) AS still, \
         sumIf(bytes_on_disk, active) AS bytes FROM parts WHERE {table} GROUP BY partition_id)"
    ))?;
    let (rows, ids) = count(world, database)?;
    run.set("rows", rows);
    run.set("parts_made", parts_made);
    run.set("parts_active_at_end", parts_active);
    run.set("rows_per_part_made", rows / parts_made.max(1.0));
    run.set("bytes_per_row", bytes / rows.max(1.0));
    let mut outcome = Outcome {
        events: manifest.events,
        rows: rows as u64,
        lost: manifest.events.saturating_sub(ids as u64),
        doubled: (rows - ids) as u64,
        duplicates_kept: 0,
        wrong: None,
        dead_letters_wrong: None,
    };
    if check == Check::Full {
        let verdict = world.verify(manifest, database)?;
        outcome = Outcome {
            lost: verdict.lost,
            doubled: verdict.doubled,
            wrong: Some(verdict.wrong),
            dead_letters_wrong: Some(
                verdict.dead_letters_missing + verdict.dead_letters_unexpected + verdict.dead_letters_wrong,
            ),
            ..outcome
        };
    }
    run.outcome = Some(outcome);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_speed_is_that_of_the_rows_after_the_first_and_without_the_wait_for_the_last_few() {
        let mut rows: Vec<(f64, f64)> = (1..=6).map(|n| (3.0 + f64::from(n), 1000.0 * f64::from(n))).collect();
        rows.push((20.0, 6001.0));
        let speed =
            |rows: &[(f64, f64)]| Landed { rows: rows.to_vec(), ..Landed::default() }.records_per_second(12_002.0);
        assert!((speed(&rows).unwrap() - 2000.0).abs() < 1e-9);
        // Two steps make no line: 6,000 rows in nine seconds.
        assert!((speed(&rows[5..]).unwrap() - 2.0 * 6000.0 / 9.0).abs() < 1e-9);
        assert_eq!(speed(&[]), None);
    }
}
