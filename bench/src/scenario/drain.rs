//! Kind `drain`: each load is written to a topic once; then the variants land it in turns, each time by a new consumer
//! group into a new table.

use std::time::Instant;

use anyhow::{Context, Result};

use super::landing::{Expected, account, look_at_table, until_landed};
use super::meter::{Meter, Role};
use super::result::{Figures, Run, Series};
use super::sink::Sink;
use super::spec::{Check, Drain, Load, SystemName, Variant};
use super::systems::{self, Job};
use super::world::{Filled, World};
use crate::manifest::Manifest;

/// Runs all variants, `rounds` times in turns (A B C A B C).
///
/// # Errors
/// If the topics cannot be filled, or Ctrl-C comes. A run that fails is in the results, with the reason.
pub(crate) fn run(world: &World, drain: &Drain, rounds: u32, tell: &mut dyn FnMut(&Run)) -> Result<Vec<Run>> {
    let mut topics: Vec<(Load, Filled)> = Vec::new();
    for variant in &drain.variants {
        let load = variant.load(&drain.load);
        if topics.iter().all(|(known, _)| *known != load) {
            let filled = world.fill(&load).with_context(|| format!("fill the topic for {}", variant.name))?;
            topics.push((load, filled));
        }
    }
    let mut runs = Vec::new();
    for round in 1..=rounds {
        for variant in &drain.variants {
            let load = variant.load(&drain.load);
            let filled = topics.iter().find(|(known, _)| *known == load).context("the topic was filled")?;
            let mut run = Run::new(&variant.name, round);
            if let Err(error) = measure(world, variant, &filled.1, drain.check, &mut run) {
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

fn measure(world: &World, variant: &Variant, filled: &Filled, check: Check, run: &mut Run) -> Result<()> {
    let database = world.database()?;
    let (sink, config) = Sink::started(&variant.config)?;
    let job = Job::new(world, &filled.prepared, &database, variant.consumers, &config)?;
    let manifest = Manifest { dead_letter_topic: job.dead_letter_topic.clone(), ..filled.manifest.clone() };
    let records = manifest.delivered as f64;
    run.set("events", records);
    run.set("partitions", manifest.end_offsets.len() as f64);
    run.set("consumers", f64::from(variant.consumers));
    let with_rows =
        if systems::deduplicates(variant.system) { manifest.events } else { manifest.events + manifest.duplicates };
    let expected = Expected { rows: with_rows, records: manifest.delivered };

    let mut meter = Meter::start(&world.stack_file)?;
    let begun = Instant::now();
    let mut system = systems::start(variant.system, &job)?;
    system.pids().into_iter().for_each(|pid| meter.add(Role::Consumer, pid));
    let landed = until_landed(world, &database, system.as_mut(), expected, &mut meter, begun);
    account(run, meter, records)?;
    // The age of what has waited says nothing.
    run.extend(without_freshness(system.figures()));
    if let Ok(landed) = &landed {
        run.set("seconds", landed.seconds);
        run.set("events_per_second_from_start", records / landed.seconds);
        run.set("first_row_after_seconds", landed.rows.first().map_or(0.0, |first| first.0));
        run.set("events_per_second", landed.records_per_second(records).unwrap_or_default());
        run.series.push(Series::new("rows", landed.rows.iter().copied()));
        run.series.push(Series::new("memory_mib", landed.memory.iter().copied()));
    }
    let stopped = system.stop();
    if let Some(sink) = sink {
        run.set("trace_requests", sink.requests() as f64);
    }
    // Duplicates of peers are no fault of theirs when they were sent; so only what is beyond them is doubled.
    look_at_table(run, world, &database, &manifest, check_for(variant.system, check))?;
    if !systems::deduplicates(variant.system)
        && let Some(outcome) = &mut run.outcome
    {
        outcome.duplicates_kept = outcome.doubled.min(manifest.duplicates);
        outcome.doubled -= outcome.duplicates_kept;
    }
    landed.and(stopped)
}

/// Figures but those of freshness.
pub(crate) fn without_freshness(mut figures: Figures) -> Figures {
    figures.retain(|name, _| !name.starts_with("own_freshness"));
    figures
}

/// Rows without enrichment cannot be compared column by column.
fn check_for(system: SystemName, check: Check) -> Check {
    if system == SystemName::Millrace { check } else { Check::Count }
}
