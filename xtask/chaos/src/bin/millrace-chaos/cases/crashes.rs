//! Processes that die: at places chosen exactly, and at moments chosen by nobody.

use std::time::{Duration, Instant};

use millrace_chaos::config::Config;
use millrace_chaos::process::Millrace;
use millrace_chaos::stack::until;
use millrace_chaos::world::{Load, Random, World};
use rustix::process::Signal;

use super::Case;
use crate::fleet::{DEADLY, Fleet};
use crate::guard::Guard;
use crate::trial::Trial;

const LOAD: Load = Load { events: 300_000, rate: 20_000, duplicates: 0.05, poison: 0.002 };
/// Of a campaign: processes that have less to do come back sooner, and die more often.
const RATE: u64 = 8_000;
const PATIENCE: Duration = Duration::from_secs(90);
/// How long a process that is to die by itself is left to that.
const OWN_TIME: Duration = Duration::from_secs(4);
/// The longest that one run of a campaign injects faults: what a table holds is read back at each take-over, so more seeds
/// are worth more than a longer table.
const LONGEST: Duration = Duration::from_secs(120);

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case {
            number: 1,
            name: "acknowledged-not-committed",
            what: "SIGKILL between ClickHouse's acknowledgement and the commit, many times",
            rests_on: &[Guard::Load],
            run: acknowledged_not_committed,
        },
        Case {
            number: 2,
            name: "killed-under-load",
            what: "SIGKILL at random moments and at every place of the protocol, under load",
            rests_on: &[],
            run: killed_under_load,
        },
        Case {
            number: 3,
            name: "restarted-otherwise",
            what: "restarts with other batches, timers and workers, and another number of consumers",
            rests_on: &[Guard::Load],
            run: restarted_otherwise,
        },
    ]
}

/// How long a case injects faults that has time: one of a campaign.
pub(super) fn time(trial: &Trial) -> Option<Duration> {
    trial.time.map(|time| time.min(LONGEST))
}

/// For as long as the load lasts, or the time that is given.
pub(super) fn goes_on(trial: &mut Trial, begun: Instant) -> bool {
    let in_time = time(trial).is_none_or(|time| begun.elapsed() < time);
    in_time && trial.is_loading()
}

/// The load of a case that has time: as long as that.
pub(super) fn load_for(trial: &Trial, load: Load) -> Load {
    match time(trial) {
        None => load,
        Some(time) => {
            let rate = load.rate.min(RATE);
            Load { events: (rate as f64 * time.as_secs_f64()).max(20_000.0) as u64, rate, ..load }
        }
    }
}

fn acknowledged_not_committed(trial: &mut Trial) {
    let (config, begun) = (trial.world.config(), Instant::now());
    trial.load(load_for(trial, LOAD));
    let start = |trial: &mut Trial, slot| {
        let config = Fleet::config(&other_settings(&config, &mut trial.random), slot);
        let place = ["acknowledged", "durable"][trial.random.below(2) as usize];
        let fault = format!("kill@{place}:{}", 1 + trial.random.below(3));
        trial.start_faulty(&config, &fault)
    };
    // One at a time: a group of one has nobody to wait for, and the next one works within a second.
    let mut fleet = Fleet::start(1, |slot| start(trial, slot));
    let (mut struck, mut after_rows) = (0, 0);
    while goes_on(trial, begun) {
        let Some(slot) = fleet.dead() else {
            std::thread::sleep(Duration::from_millis(10));
            continue;
        };
        struck += 1;
        after_rows += u64::from(rows_beyond_commits(&trial.world) > 0);
        fleet.succeed(slot, start(trial, slot));
    }
    trial.killed(struck);
    trial.note(format!(
        "{struck} processes died between acknowledgement and commit, after {after_rows} of them rows lay beyond what is committed"
    ));
    trial.expect(after_rows >= 3, "too few died there");
    fleet.replace(trial, 0, |trial| trial.start(&Fleet::config(&config, 0)));
    fleet.keep(trial);
}

/// Rows at or past the committed offsets.
fn rows_beyond_commits(world: &World) -> u64 {
    let committed = world.kafka.committed(&world.topic());
    let of_one = |(partition, offset)| format!("(_partition = {partition} AND _offset >= {offset})");
    let beyond: Vec<String> = committed.into_iter().map(of_one).collect();
    // A partition without a committed offset is read from its beginning.
    let condition = if beyond.is_empty() { "true".to_owned() } else { beyond.join(" OR ") };
    world.stack.count(&format!("SELECT count() FROM {} WHERE {condition}", world.table()))
}

fn killed_under_load(trial: &mut Trial) {
    let (config, begun) = (trial.world.config(), Instant::now());
    trial.load(load_for(trial, LOAD));
    let mut fleet = Fleet::start(3, |slot| trial.start(&Fleet::config(&config, slot)));
    let (mut by_themselves, mut with_rows) = (0, 0);
    // One that is to die by itself is left to that for a while.
    let mut own_time = [begun; 3];
    while goes_on(trial, begun) {
        // The moment is the fault that is tried here, and waits for nothing.
        std::thread::sleep(Duration::from_millis(50 + trial.random.below(200)));
        let slot = match fleet.dead() {
            Some(slot) => {
                by_themselves += 1;
                slot
            }
            None => {
                let slot = trial.random.below(3) as usize;
                let at_work = fleet.member(slot).rows() > 0;
                // Most die at work; some on their way to it.
                if Instant::now() < own_time[slot] || !at_work && trial.random.below(6) > 0 {
                    continue;
                }
                with_rows += u64::from(at_work);
                slot
            }
        };
        let config = Fleet::config(&other_settings(&config, &mut trial.random), slot);
        let fault = deadly(&mut trial.random);
        let faulty = trial.random.below(2) == 0;
        own_time[slot] = Instant::now() + if faulty { OWN_TIME } else { Duration::ZERO };
        fleet.replace(
            trial,
            slot,
            |trial| {
                if faulty { trial.start_faulty(&config, &fault) } else { trial.start(&config) }
            },
        );
    }
    trial.note(format!(
        "{by_themselves} processes died at places of the protocol, {with_rows} at other moments after they had landed rows"
    ));
    trial.expect(by_themselves > 0 && with_rows > 0, "too few died at work");
    for slot in 0..3 {
        fleet.replace(trial, slot, |trial| trial.start(&Fleet::config(&config, slot)));
    }
    fleet.keep(trial);
}

/// A place to die at.
pub(super) fn deadly(random: &mut Random) -> String {
    let (place, times) = DEADLY[random.below(DEADLY.len() as u64) as usize];
    format!("kill@{place}:{}", 1 + random.below(times))
}

fn restarted_otherwise(trial: &mut Trial) {
    let (config, begun) = (trial.world.config(), Instant::now());
    trial.load(load_for(trial, Load { events: 400_000, ..LOAD }));
    let (mut size, mut sizes, mut died) = (0, Vec::new(), 0);
    while goes_on(trial, begun) {
        // Any number from 1 to 4 but the last one.
        size = (size + trial.random.below(3)) % 4 + 1;
        let config = other_settings(&config, &mut trial.random);
        let mut all: Vec<Millrace> = (0..size).map(|_| trial.start(&config)).collect();
        all.iter_mut().for_each(Millrace::until_ready);
        // Every partition is read by one of them, and rows land.
        until("all of them work together", PATIENCE, || {
            let sum = |count: fn(&Millrace) -> f64| all.iter().map(count).sum::<f64>();
            sum(|it| it.metric("millrace_partitions_assigned")) >= 4.0 && sum(|it| it.rows() as f64) > 5_000.0
        });
        sizes.push(size.to_string());
        if trial.random.below(2) == 0 {
            all.iter().for_each(|it| it.signal(Signal::TERM));
            for millrace in &mut all {
                let (status, _) = millrace.wait(PATIENCE);
                assert!(status.success(), "after SIGTERM: {status}");
            }
        } else {
            all.iter_mut().for_each(Millrace::kill);
            died += size;
        }
    }
    trial.killed(died);
    trial.injected(sizes.len() as u64);
    trial.note(format!("consumers in each round, all with settings of their own: {}", sizes.join(", ")));
    trial.expect(sizes.len() >= 3, "too few restarts");
}

/// A restart may bring other settings for batches.
pub(super) fn other_settings(config: &Config, random: &mut Random) -> Config {
    let rows = [2_000, 20_000, 200_000][random.below(3) as usize];
    config
        .clone()
        .with("[topics.batch]", "max_age", &format!("{}ms", 20 + random.below(500)))
        .with_raw("[topics.batch]", "max_rows", &rows.to_string())
        .with_raw("[clickhouse]", "inserts_in_flight", &(1 + random.below(4)).to_string())
}
