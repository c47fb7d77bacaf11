//! Processes that die: at places chosen exactly, and at moments chosen by nobody.

use std::time::{Duration, Instant};

use millrace_chaos::config::Config;
use millrace_chaos::world::{Load, Random};

use super::Case;
use crate::fleet::{DEADLY, Fleet};
use crate::guard::Guard;
use crate::trial::Trial;

const LOAD: Load = Load { events: 300_000, rate: 20_000, duplicates: 0.05, poison: 0.002 };

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
    ]
}

/// For as long as the load lasts, or the time that is given.
pub(super) fn goes_on(trial: &mut Trial, begun: Instant) -> bool {
    let in_time = trial.time.is_none_or(|time| begun.elapsed() < time);
    in_time && trial.is_loading()
}

/// The load of a case that has `trial.time`: as long as that.
pub(super) fn load_for(trial: &Trial, load: Load) -> Load {
    match trial.time {
        None => load,
        Some(time) => Load { events: (load.rate as f64 * time.as_secs_f64()) as u64, ..load },
    }
}

fn acknowledged_not_committed(trial: &mut Trial) {
    let (config, begun) = (trial.world.config(), Instant::now());
    trial.load(load_for(trial, LOAD));
    let mut struck = 0;
    while goes_on(trial, begun) {
        let config = other_settings(&config, &mut trial.random);
        let place = ["acknowledged", "durable"][trial.random.below(2) as usize];
        let fault = format!("kill@{place}:{}", 1 + trial.random.below(3));
        let mut one = Fleet::start(1, |slot| trial.start_faulty(&Fleet::config(&config, slot), &fault));
        if one.await_death(0, Duration::from_secs(15)) {
            struck += 1;
        }
    }
    trial.killed(struck);
    trial.note(format!("{struck} processes died between acknowledgement and commit"));
    trial.expect(struck >= 3, "too few died there");
}

fn killed_under_load(trial: &mut Trial) {
    let (config, begun) = (trial.world.config(), Instant::now());
    trial.load(load_for(trial, LOAD));
    let mut fleet = Fleet::start(3, |slot| trial.start(&Fleet::config(&config, slot)));
    while goes_on(trial, begun) {
        // The moment is the fault that is tried here, and waits for nothing.
        std::thread::sleep(Duration::from_millis(100 + trial.random.below(700)));
        let slot = trial.random.below(3) as usize;
        let config = Fleet::config(&other_settings(&config, &mut trial.random), slot);
        let (place, times) = DEADLY[trial.random.below(DEADLY.len() as u64) as usize];
        let fault = format!("kill@{place}:{}", 1 + trial.random.below(times));
        let faulty = trial.random.below(2) == 0;
        fleet.replace(
            trial,
            slot,
            |trial| {
                if faulty { trial.start_faulty(&config, &fault) } else { trial.start(&config) }
            },
        );
    }
    for slot in 0..3 {
        fleet.replace(trial, slot, |trial| trial.start(&Fleet::config(&config, slot)));
    }
    fleet.keep(trial);
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
