//! Inserts that have landed in some of the table's partitions only: each of them commits by itself.

use std::time::{Duration, Instant};

use millrace_chaos::parts::{self, Part};
use millrace_chaos::proxy::{Fault, Proxy};
use millrace_chaos::stack::until;
use millrace_chaos::world::{Load, World};

use super::Case;
use super::crashes::{goes_on, load_for};
use super::inserts::{CLAIMS, IDLE, rows_read};
use crate::fleet::Fleet;
use crate::guard::Guard;
use crate::trial::Trial;

/// Months that the events of a run lie in; a batch has a share of them, each of which the server commits by itself.
const MONTHS: &str = "480";
const LOAD: Load = Load { events: 300_000, rate: 25_000, duplicates: 0.05, poison: 0.0 };
/// Thirty seconds were too few on a slow disk: an insert writes each of its months as a part before it commits the first.
const PATIENCE: Duration = Duration::from_secs(120);

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case {
            number: 8,
            name: "many-months",
            what: "an insert into some hundred months is killed in the middle, with ClickHouse, millrace or both",
            rests_on: &[Guard::Token, Guard::Load, Guard::Rollups],
            run: many_months,
        },
        Case {
            number: 9,
            name: "window-overrun",
            what: "an answer is lost, and other inserts make the server forget the token before the insert is sent again",
            rests_on: &[Guard::Load],
            run: window_overrun,
        },
    ]
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

/// Tokens that the table remembers, and inserts of others that push them out.
const WINDOW: u64 = 20;

fn window_overrun(trial: &mut Trial) {
    let (proxy, begun) = (Proxy::to(&trial.world.stack.clickhouse), Instant::now());
    let (stack, table) = (trial.world.stack.clone(), trial.world.table());
    stack.sql(&format!("ALTER TABLE {table} MODIFY SETTING non_replicated_deduplication_window = {WINDOW}"));
    let config = trial.world.config().with("[clickhouse]", "url", &proxy.url(&stack.clickhouse));
    let mut millrace = trial.start(&config);
    millrace.until_ready();
    trial.load(load_for(trial, Load { events: 200_000, rate: 20_000, ..LOAD }));
    let mut overruns = 0;
    // An overrun needs rows to come after it: in a short run two are safely within the load.
    while overruns < 2 || trial.time.is_some() && goes_on(trial, begun) {
        let before = millrace.rows();
        millrace.until("rows land", PATIENCE, |it| it.rows() > before);
        let hits = proxy.hits();
        proxy.fail(Fault::LoseAnswer, 1);
        until("an answer is lost", PATIENCE, || proxy.hits() > hits);
        // Whoever sends it again comes after the others.
        proxy.set_open(false);
        for _ in 0..=WINDOW {
            let id = format!("00000000-0000-4000-8000-{:012}", trial.random.below(1_000_000_000_000));
            let insert = format!("INSERT INTO {table} (event_id, _partition) SETTINGS async_insert = 0,");
            stack.sql(&format!("{insert} insert_deduplication_token = '{id}' VALUES ('{id}', -1)"));
        }
        proxy.set_open(true);
        overruns += 1;
    }
    trial.healed();
    trial.injected(overruns);
    let applied = proxy.answers().iter().filter(|line| line.starts_with("HTTP/1.1 200")).count();
    let before = millrace.rows();
    millrace.until("rows land", PATIENCE, |it| it.rows() > before || it.metric("millrace_lag_events") == 0.0);
    let again = millrace.lines(&["taken over again"]).len();
    trial.note(format!(
        "{overruns} answers were lost, {applied} of them of inserts that had been applied; {} inserts of others followed \
         each, where the table remembers {WINDOW} tokens; partitions were taken over again {again} times",
        WINDOW + 1
    ));
    trial.expect(applied as u64 == overruns, "an answer that was lost was not of an insert that had been applied");
    stack.sql(&format!("DELETE FROM {table} WHERE _partition = -1"));
    trial.keep(millrace);
    trial.lasts(proxy);
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
            if let Some(rows) = rows_read(world).filter(|rows| *rows > CLAIMS) {
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
