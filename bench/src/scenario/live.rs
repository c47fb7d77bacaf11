//! Kind `live`: records are offered at a pace while `millrace` lands them; lag, speed and memory are sampled meanwhile.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::child::Child;
use super::kafka::Onlooker;
use super::landing::{account, look_at_table};
use super::meter::{Meter, Role};
use super::prober::Prober;
use super::result::{Run, Series};
use super::spec::{Live, Load, rate_name};
use super::stats::{second_half, slope};
use super::systems::{Job, Millrace, System};
use super::world::{Filled, SEED, World};
use crate::manifest::Manifest;

/// At most so many make the curve of the speed.
const POINTS: usize = 60;
/// Between two samples.
const LOOK: Duration = Duration::from_millis(500);
/// Nothing landing for this long while something is missing is a failure.
const STALLED: Duration = Duration::from_secs(60);
/// For the producer to end, once everything that it sent has landed.
const ENDS_WITHIN: Duration = Duration::from_secs(60);

/// Seconds of a load from which on its memory is told by the hour.
const LONG: f64 = 600.0;
/// A rate is offered if the producer comes so close to it,
const OFFERED_SHARE: f64 = 0.98;
/// and held if in the second half the lag never exceeds what is offered in so many seconds
const LAG_SECONDS: f64 = 5.0;
/// and does not grow by more than is offered in so many.
const LAG_GROWTH_SECONDS: f64 = 1.0;

/// Runs the rates, each `rounds` times; up to the first that is held if the scenario says so.
///
/// # Errors
/// If Ctrl-C comes. A run that fails is in the results, with the reason.
pub(crate) fn run(world: &World, live: &Live, rounds: u32, tell: &mut dyn FnMut(&Run)) -> Result<Vec<Run>> {
    let mut runs: Vec<Run> = Vec::new();
    for &rate in &live.rates {
        let first = runs.len();
        for round in 1..=rounds {
            let mut run = Run::new(&rate_name(rate), round);
            if let Err(error) = measure(world, live, rate, &mut run) {
                run.failure = Some(format!("{error:#}"));
            }
            tell(&run);
            runs.push(run);
            if world.interrupt.requested() {
                return Ok(runs);
            }
        }
        let held = runs[first..].iter().filter(|run| run.figures.get("held") == Some(&1.0)).count();
        if live.until_held && held * 2 > rounds as usize {
            break;
        }
    }
    Ok(runs)
}

fn measure(world: &World, live: &Live, rate: u64, run: &mut Run) -> Result<()> {
    let shape = &live.load;
    // The rate is of records; so many of them are events.
    let events = (rate * live.seconds) as f64 / (1.0 + shape.duplicates + shape.poison);
    let load = Load { events: events as u64, shape: shape.clone() };
    // Written before anything is measured.
    let written = if live.replay { Some(world.fill(&load)?) } else { None };
    let source = world.prepare(shape)?;
    let database = world.database()?;
    let job = Job::new(world, &source, &database, 1, &live.config)?;
    let mut millrace = Millrace::start(&job)?;
    millrace.until_ready(&world.interrupt)?;

    let mut meter = Meter::start(&world.stack_file)?;
    millrace.pids().into_iter().for_each(|pid| meter.add_running(Role::Consumer, pid));
    let prober = live.prober.then(|| Prober::start(world, &database));
    let (mut command, file) = world.generator(&source, &load, SEED, rate)?;
    if let Some(written) = &written {
        command = world.replayer(&written.prepared, &source, rate)?;
    }
    let producer = Child::start(command, &file.with_extension("log"))?;
    meter.add(Role::Producer, producer.pid());
    let mut samples = Samples::default();
    let onlooker = Onlooker::new(&world.stack, &source.topics.orders)?;
    let watched = samples.watch(world, &onlooker, &mut millrace, &producer, &mut meter);
    let ended = watched.and_then(|()| producer.finish(ENDS_WITHIN));
    samples.write_down(run);
    ended?;

    let (mut manifest, sent_seconds) = match written {
        Some(Filled { manifest, .. }) => (manifest, samples.sent_seconds),
        None => {
            let manifest = Manifest::read(&file).context("read what was sent")?;
            let seconds = manifest.seconds;
            (manifest, seconds)
        }
    };
    let records = manifest.delivered as f64;
    account(run, meter, records)?;
    run.extend(millrace.figures());
    run.set("events", records);
    run.set("rate", rate as f64);
    run.set("offered_per_second", records / sent_seconds);
    run.set("seconds", samples.seconds());
    run.set("events_per_second", records / samples.seconds());
    let held = samples.held(rate as f64) && records / sent_seconds >= rate as f64 * OFFERED_SHARE;
    run.set("held", f64::from(u8::from(held)));
    run.set("rate_held", if held { rate as f64 } else { 0.0 });
    if let Some(prober) = prober {
        prober.finish(world, &source.topics.orders, live.warm_up_seconds, run)?;
    }
    Box::new(millrace).stop()?;
    manifest.dead_letter_topic.clone_from(&job.dead_letter_topic);
    look_at_table(run, world, &database, &manifest, live.check)
}

/// What was seen over time; all times are seconds since the producer was started.
#[derive(Debug, Default)]
struct Samples {
    /// Records in the topic that are not dealt with.
    lag: Vec<(f64, f64)>,
    /// Records dealt with.
    settled: Vec<(f64, f64)>,
    memory: Vec<(f64, f64)>,
    /// When the producer was seen to have ended.
    sent_seconds: f64,
}

impl Samples {
    /// Samples until the producer has ended and everything in the topic is dealt with.
    fn watch(
        &mut self,
        world: &World,
        onlooker: &Onlooker,
        millrace: &mut Millrace,
        producer: &Child,
        meter: &mut Meter,
    ) -> Result<()> {
        let (begun, mut moved) = (Instant::now(), Instant::now());
        let (mut before, mut sent) = (0, false);
        loop {
            // Asked first: what the topic then holds is all that it will hold.
            let ended = producer.has_ended();
            millrace.check()?;
            let offered = onlooker.records()?;
            let settled = millrace.settled().unwrap_or_default();
            let seconds = begun.elapsed().as_secs_f64();
            if settled > before {
                (before, moved) = (settled, Instant::now());
            }
            self.settled.push((seconds, settled as f64));
            let memory = meter.look();
            self.memory.extend(memory.get(&Role::Consumer).map(|mib| (seconds, *mib)));
            if !sent {
                self.lag.push((seconds, offered.saturating_sub(settled) as f64));
                self.sent_seconds = seconds;
                sent = ended;
            }
            if ended && settled >= offered {
                return Ok(());
            }
            if moved.elapsed() > STALLED {
                bail!("nothing has landed for {STALLED:?}: {settled} records of {offered}");
            }
            world.interrupt.pause(LOOK)?;
        }
    }

    fn seconds(&self) -> f64 {
        self.settled.last().map_or(0.0, |last| last.0)
    }

    /// Whether the lag stayed within bounds while the rate was offered.
    fn held(&self, rate: f64) -> bool {
        let half = second_half(&self.lag);
        let growth = slope(half) * self.sent_seconds / 2.0;
        !half.is_empty() && growth <= rate * LAG_GROWTH_SECONDS && most(half) <= rate * LAG_SECONDS
    }

    fn write_down(&self, run: &mut Run) {
        run.set("lag_events_max", most(&self.lag));
        run.set("lag_events_at_end_of_load", self.lag.last().map_or(0.0, |last| last.1));
        run.set("lag_growth_events_per_second", slope(second_half(&self.lag)));
        // Rows come in batches: between two samples there may be none or many, so the speed is that of longer times.
        let far_apart: Vec<&(f64, f64)> = self.settled.iter().step_by(self.settled.len() / POINTS + 1).collect();
        let landed = far_apart.iter().zip(far_apart.iter().skip(1));
        let landed = landed.map(|(before, after)| (after.0, (after.1 - before.1) / (after.0 - before.0)));
        run.series.push(Series::new("landed_per_second", landed));
        run.series.push(Series::new("lag_events", self.lag.iter().copied()));
        run.series.push(Series::new("memory_mib", self.memory.iter().copied()));
        // A minute tells nothing of an hour.
        if self.seconds() >= LONG {
            run.set("memory_growth_mib_per_hour", slope(second_half(&self.memory)) * 3600.0);
        }
    }
}

fn most(points: &[(f64, f64)]) -> f64 {
    points.iter().map(|point| point.1).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(lag: impl Fn(f64) -> f64) -> Samples {
        let lag = (0..200).map(|n| f64::from(n) / 2.0).map(|seconds| (seconds, lag(seconds))).collect();
        Samples { lag, sent_seconds: 100.0, ..Samples::default() }
    }

    #[test]
    fn a_rate_is_held_if_its_lag_neither_grows_nor_is_large() {
        assert!(samples(|_| 300.0).held(1000.0));
        assert!(
            samples(|seconds| if seconds < 20.0 { 9000.0 } else { 300.0 }).held(1000.0),
            "a slow start is no fault"
        );
        assert!(!samples(|_| 6000.0).held(1000.0));
        assert!(!samples(|seconds| seconds * 30.0).held(1000.0));
        assert!(!Samples::default().held(1000.0));
    }
}
