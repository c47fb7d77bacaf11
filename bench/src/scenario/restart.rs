//! Kind `restart`: `millrace` is started beside a table that holds the ids of its window already. The rows are made by the
//! server itself; the offsets were committed by a real run before.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::drain::without_freshness;
use super::landing::{Expected, account, count, rows_in, until_landed};
use super::meter::{Meter, Role};
use super::result::{Outcome, Run};
use super::spec::{Restart, ids_name};
use super::systems::{Job, Millrace, System};
use super::world::{BACKLOG_SEED, Database, SEED, World};

const FIRST_ROW_WITHIN: Duration = Duration::from_secs(600);
/// Rows that the server makes in one statement.
const ROWS_AT_ONCE: u64 = 10_000_000;

/// Runs every size, `rounds` times in turns.
///
/// # Errors
/// None but of the runner itself: a run that fails is in the results, with the reason.
pub(crate) fn run(world: &World, restart: &Restart, rounds: u32, tell: &mut dyn FnMut(&Run)) -> Result<Vec<Run>> {
    let mut runs = Vec::new();
    for round in 1..=rounds {
        for &ids in &restart.ids {
            let mut run = Run::new(&ids_name(ids), round);
            if let Err(error) = measure(world, restart, ids, &mut run) {
                run.failure = Some(format!("{error:#}"));
            }
            tell(&run);
            runs.push(run);
            if world.interrupt.requested() {
                return Ok(runs);
            }
        }
    }
    Ok(runs)
}

fn measure(world: &World, restart: &Restart, ids: u64, run: &mut Run) -> Result<()> {
    let source = world.prepare(&restart.load.shape)?;
    let database = world.database()?;
    let job = Job::new(world, &source, &database, 1, &restart.config)?;
    let before = world.send(&source, &restart.load, SEED)?;
    let mut meter = Meter::start(&world.stack_file)?;
    let mut first = Millrace::start(&job)?;
    let expected = Expected { rows: before.events, records: before.delivered };
    until_landed(world, &database, &mut first, expected, &mut meter, Instant::now())?;
    Box::new(first).stop()?;

    fill(world, &database, ids, restart.load.shape.partitions)?;
    let backlog = world.send(&source, &restart.load, BACKLOG_SEED)?;
    let rows_before = rows_in(world, &database)?;

    let mut meter = Meter::start(&world.stack_file)?;
    let begun = Instant::now();
    let mut second = Millrace::start(&job)?;
    second.pids().into_iter().for_each(|pid| meter.add(Role::Consumer, pid));
    let seconds = world.interrupt.until("the first row lands", FIRST_ROW_WITHIN, || {
        second.check()?;
        Ok((rows_in(world, &database)? > rows_before).then(|| begun.elapsed().as_secs_f64()))
    })?;
    run.set("first_row_after_seconds", seconds);
    let all = rows_before as u64 + backlog.events;
    let expected = Expected { rows: all, records: backlog.delivered };
    let landed = until_landed(world, &database, &mut second, expected, &mut meter, begun)?;
    run.set("seconds", landed.seconds);
    // Until rows of every partition are there, each of which waits for its own ids; start of the process and batches included.
    run.set("ids_per_second", ids as f64 / landed.seconds);
    account(run, meter, ids.max(1) as f64)?;
    run.extend(without_freshness(second.figures()));
    Box::new(second).stop()?;
    let (rows, found) = count(world, &database)?;
    run.outcome = Some(Outcome {
        events: all,
        rows: rows as u64,
        lost: all.saturating_sub(found as u64),
        doubled: (rows - found) as u64,
        ..Outcome::default()
    });
    Ok(())
}

/// Rows with new ids, ingested now, of offsets that were committed long ago.
fn fill(world: &World, database: &Database, ids: u64, partitions: i32) -> Result<()> {
    for first in (0..ids).step_by(ROWS_AT_ONCE as usize) {
        let count = ROWS_AT_ONCE.min(ids - first);
        let statement = format!(
            "INSERT INTO orders (event_id, event_type, timestamp, _partition, _offset) \
             SELECT generateUUIDv4(), 'created', now64(3), number % {partitions}, 0 FROM numbers({count}) \
             SETTINGS max_insert_threads = 1"
        );
        world.clickhouse.ask(&database.name, &statement).context("fill the table")?;
        world.interrupt.pause(Duration::ZERO)?;
    }
    Ok(())
}
