//! Inserts that have landed in some of the table's partitions only: each of them commits by itself.

use std::time::{Duration, Instant};

use millrace_chaos::parts::{self, Part};
use millrace_chaos::stack::until;
use millrace_chaos::world::{Load, World};

use super::Case;
use super::crashes::{goes_on, load_for};
use super::inserts::rows_read;
use crate::fleet::Fleet;
use crate::guard::Guard;
use crate::trial::Trial;

/// Months that the events of a run lie in; a batch has a share of them, each of which the server commits by itself.
const MONTHS: &str = "480";
const LOAD: Load = Load { events: 300_000, rate: 25_000, duplicates: 0.05, poison: 0.0 };
const PATIENCE: Duration = Duration::from_secs(30);
/// Nothing is inserted any more if nothing was for so long.
const IDLE: Duration = Duration::from_secs(6);
/// Rows that an insert reads beside its own: those of the claims, at most.
const CLAIMS: u64 = 100;

pub(super) fn cases() -> Vec<Case> {
    vec![Case {
        number: 8,
        name: "many-months",
        what: "an insert into some hundred months is killed in the middle, with ClickHouse, millrace or both",
        rests_on: &[Guard::Token, Guard::Load],
        run: many_months,
    }]
}

fn many_months(trial: &mut Trial) {
    let config = trial.world.config().with_raw("[topics.batch]", "max_rows", "60_000");
    let config = config.with("[topics.batch]", "max_age", "2s").with_raw("[clickhouse]", "inserts_in_flight", "1");
    let begun = Instant::now();
    trial.load_with(load_for(trial, LOAD), &["--span-months", MONTHS]);
    let mut one = Fleet::start(1, |slot| trial.start(&Fleet::config(&config, slot)));
    let mut interrupted = Vec::new();
    for round in 0.. {
        if round >= 3 && !goes_on(trial, begun) {
            break;
        }
        let server = Part::ClickHouse.pid();
        let Some(insert) = commits(&trial.world) else { break };
        std::thread::sleep(Duration::from_millis(trial.random.below(80)));
        let (with_server, with_millrace) = [(true, false), (true, true), (false, true)][round % 3];
        if with_server {
            parts::kill(server);
            trial.killed(1);
        }
        if with_millrace {
            one.replace(trial, 0, |trial| trial.start(&Fleet::config(&config, 0)));
        }
        if with_server {
            parts::bring_back();
        }
        let world = &trial.world;
        until("rows land again", PATIENCE, || latest(world).is_some_and(|latest| latest > insert.at));
        interrupted.push((landed(world, insert.at), insert.rows));
    }
    trial.healed();
    one.keep(trial);
    let half = interrupted.iter().filter(|(landed, read)| landed + CLAIMS < *read).count();
    trial.note(format!(
        "{} inserts were interrupted while the server committed their months, and {half} of them were half applied, \
         before they were completed: rows that were in, and rows that the server had read: {interrupted:?}",
        interrupted.len()
    ));
    trial.expect(half > 0, "no insert was half applied");
}

/// An insert that was seen to commit its months.
#[derive(Clone, Copy)]
struct Insert {
    /// The time that the server has given its rows, which is one for all of them, in milliseconds since 1970.
    at: u64,
    /// Rows that the server has read of it.
    rows: u64,
}

/// Waits until an insert commits its months; `None` if nothing is inserted any more.
fn commits(world: &World) -> Option<Insert> {
    let settled = latest(world);
    let begun = Instant::now();
    while begun.elapsed() < IDLE {
        if let Some(at) = latest(world).filter(|latest| Some(*latest) > settled) {
            if let Some(rows) = rows_read(world) {
                return Some(Insert { at, rows });
            }
            return commits(world);
        }
    }
    None
}

/// When the latest rows were inserted; `None` while the table is empty or the server away.
fn latest(world: &World) -> Option<u64> {
    let latest = format!("SELECT toUnixTimestamp64Milli(max(_ingested_at)) FROM {}", world.table());
    world.stack.ask(&world.stack.admin, &latest).ok()?.parse().ok().filter(|at| *at > 0)
}

/// Rows that have landed with that very insert; a later attempt has another time.
fn landed(world: &World, at: u64) -> u64 {
    let time = format!("fromUnixTimestamp64Milli({at}, 'UTC')");
    world.stack.count(&format!("SELECT count() FROM {} WHERE _ingested_at = {time}", world.table()))
}
