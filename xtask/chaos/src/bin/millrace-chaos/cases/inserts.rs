//! Inserts that end otherwise than the client believes: the server dies under them, the answer is lost, the body is cut, a
//! failure looks like a success.

use std::time::{Duration, Instant};

use millrace_chaos::config::Config;
use millrace_chaos::parts::{self, Part};
use millrace_chaos::process::Millrace;
use millrace_chaos::proxy::{EXCEPTION_CODE, Fault, Proxy};
use millrace_chaos::stack::until;
use millrace_chaos::world::{Load, World};

use super::Case;
use super::crashes::{goes_on, load_for};
use crate::guard::Guard;
use crate::trial::Trial;

const LOAD: Load = Load { events: 300_000, rate: 25_000, duplicates: 0.05, poison: 0.002 };
/// Sent for as long as a few restarts of ClickHouse take, each of them followed by the breaker's rest.
const KILLED_LOAD: Load = Load { events: 400_000, rate: 12_000, ..LOAD };
const PATIENCE: Duration = Duration::from_secs(90);
/// Cuts a body where the server has only begun to read it, and where it has read a chunk.
const CUTS: [Fault; 2] = [Fault::CutBody { after: 20_000 }, Fault::CutBody { after: 1_200_000 }];
/// A status is told before the insert has ended, as it is when its progress is told in headers.
const EARLY_STATUS: Fault =
    Fault::With { settings: "wait_end_of_query=0&send_progress_in_http_headers=1&http_headers_progress_interval_ms=1" };

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case {
            number: 4,
            name: "clickhouse-killed",
            what: "ClickHouse is killed in the middle of inserts, many times",
            rests_on: &[],
            run: clickhouse_killed,
        },
        Case {
            number: 5,
            name: "answer-lost",
            what: "the answer to an insert that was applied is lost",
            rests_on: &[Guard::Token],
            run: answer_lost,
        },
        Case {
            number: 6,
            name: "body-cut",
            what: "the body of an insert is cut, early and half-way",
            rests_on: &[],
            run: body_cut,
        },
        Case {
            number: 7,
            name: "false-success",
            what: "HTTP 200 with the code of an exception: from a proxy, and from ClickHouse itself",
            rests_on: &[],
            run: false_success,
        },
    ]
}

/// Nothing is inserted any more if nothing was for so long.
pub(super) const IDLE: Duration = Duration::from_secs(6);
/// Rows that an insert reads beside its own: those of the claims, at most.
pub(super) const CLAIMS: u64 = 100;

/// Rows of the insert that runs now in this world, as far as the server has read them; `None` if none runs.
pub(super) fn rows_read(world: &World) -> Option<u64> {
    let running = "SELECT max(read_rows) FROM system.processes WHERE query_kind = 'Insert' AND query LIKE";
    let running = format!("{running} '%{}%throwIf%'", world.database);
    world.stack.ask(&world.stack.admin, &running).ok()?.parse().ok().filter(|rows| *rows > 0)
}

/// Rows in the table.
fn rows(world: &World) -> u64 {
    world.stack.count(&format!("SELECT count() FROM {}", world.table()))
}

fn through(trial: &Trial, proxy: &Proxy) -> Config {
    let url = proxy.url(&trial.world.stack.clickhouse);
    trial.world.config().with("[clickhouse]", "url", &url).with("[topics.batch]", "max_age", "600ms")
}

/// Lets an insert land between two faults, so that each strikes another batch.
/// Whether more rows land; not if the load has ended meanwhile.
fn rows_land(trial: &mut Trial, millrace: &mut Millrace) -> bool {
    let before = millrace.rows();
    millrace.until("rows land", PATIENCE, |it| it.rows() > before || !trial.is_loading());
    millrace.rows() > before
}

/// What every one of these faults must not lead to.
fn expect_quiet_recovery(trial: &mut Trial, millrace: &Millrace) {
    let metric = |name: &str| millrace.metric(&format!("millrace_{name}_total")) as u64;
    let (refusals, rebalances) = (metric("fence_refusals"), metric("rebalances"));
    // A batch that stays unsettled has its partitions claimed anew, which refuses what else is in flight of them.
    let unsettled =
        millrace.lines(&["cannot be settled"]).len() + millrace.lines(&["ClickHouse was started anew"]).len();
    trial.note(format!("{} inserts were sent again, {unsettled} stayed unsettled", metric("insert_retries")));
    let by_itself = refusals == 0 || unsettled > 0;
    trial.expect(by_itself, format!("{refusals} inserts were refused, though nobody claimed anything anew"));
    trial.expect(rebalances == 1, format!("{rebalances} rebalances: the group did not stay as it was"));
}

fn clickhouse_killed(trial: &mut Trial) {
    let (config, begun) = (trial.world.config(), Instant::now());
    trial.load(load_for(trial, KILLED_LOAD));
    let mut millrace = trial.start(&config);
    // A connection that was never made is told otherwise.
    let broken = |it: &Millrace| it.lines(&["an insert failed", "class=UnknownOutcome"]).len();
    let (mut kills, mut struck, mut read) = (0, 0, 0);
    while goes_on(trial, begun) {
        if !rows_land(trial, &mut millrace) {
            break;
        }
        let (server, before, begun) = (Part::ClickHouse.pid(), broken(&millrace), Instant::now());
        let mut seen = None;
        while seen.is_none() && begun.elapsed() < IDLE {
            seen = rows_read(&trial.world).filter(|rows| *rows > CLAIMS);
        }
        let Some(rows) = seen else { break };
        parts::kill(server);
        trial.killed(1);
        kills += 1;
        parts::bring_back();
        read += rows;
        struck += u64::from(broken(&millrace) > before);
    }
    trial.healed();
    trial.note(format!(
        "ClickHouse was killed {kills} times when it had read rows of an insert, {} of them on average; {struck} times \
         the insert had not ended",
        read / kills.max(1)
    ));
    trial.expect(struck >= 2, "too few inserts were interrupted");
    rows_land(trial, &mut millrace);
    expect_quiet_recovery(trial, &millrace);
    trial.keep(millrace);
}

fn answer_lost(trial: &mut Trial) {
    let (proxy, begun) = (Proxy::to(&trial.world.stack.clickhouse), Instant::now());
    let mut millrace = trial.start(&through(trial, &proxy));
    millrace.until_ready();
    trial.load(load_for(trial, LOAD));
    let mut lost = 0;
    while goes_on(trial, begun) {
        if !rows_land(trial, &mut millrace) {
            break;
        }
        let times = 1 + trial.random.below(3) as u32;
        proxy.fail(Fault::LoseAnswer, times);
        until("answers are lost", PATIENCE, || proxy.hits() >= lost + times || !trial.is_loading());
        lost = proxy.hits();
    }
    trial.healed();
    trial.injected(u64::from(lost));
    let applied = proxy.answers().iter().filter(|line| line.starts_with("HTTP/1.1 200")).count();
    trial.note(format!("{lost} answers were lost, {applied} of them of inserts that had been applied"));
    trial.expect(lost >= 3 && applied as u32 == lost, "too few answers were lost, or not of inserts that were applied");
    rows_land(trial, &mut millrace);
    let retries = millrace.metric("millrace_insert_retries_total") as u32;
    trial.expect(retries >= lost, format!("{retries} retries"));
    expect_quiet_recovery(trial, &millrace);
    trial.keep(millrace);
    trial.lasts(proxy);
}

fn body_cut(trial: &mut Trial) {
    let (proxy, begun) = (Proxy::to(&trial.world.stack.clickhouse), Instant::now());
    let mut millrace = trial.start(&through(trial, &proxy));
    millrace.until_ready();
    trial.load(load_for(trial, LOAD));
    let mut looks = 0;
    while goes_on(trial, begun) {
        if !rows_land(trial, &mut millrace) {
            break;
        }
        let cut = CUTS[trial.random.below(2) as usize];
        let hits = proxy.hits();
        proxy.fail(cut, u32::MAX);
        until("bodies are cut", PATIENCE, || proxy.hits() >= hits + 2 || !trial.is_loading());
        // Whatever was whole has been acknowledged by now; all that is tried now is cut.
        until("no row is there that was not acknowledged", PATIENCE, || rows(&trial.world) == millrace.rows());
        until("one more is cut", PATIENCE, || proxy.hits() >= hits + 3 || !trial.is_loading());
        let (there, acknowledged) = (rows(&trial.world), millrace.rows());
        trial.expect(there == acknowledged, format!("{there} rows are there, {acknowledged} were acknowledged"));
        looks += 1;
        proxy.mend();
    }
    trial.healed();
    let cuts = proxy.hits();
    trial.injected(u64::from(cuts));
    trial.note(format!("{cuts} bodies were cut; {looks} times the table was looked at meanwhile: no partial rows"));
    trial.expect(looks > 0 && cuts >= 3, "too few bodies were cut");
    rows_land(trial, &mut millrace);
    expect_quiet_recovery(trial, &millrace);
    trial.keep(millrace);
    trial.lasts(proxy);
}

fn false_success(trial: &mut Trial) {
    let (proxy, begun) = (Proxy::to(&trial.world.stack.clickhouse), Instant::now());
    let table = trial.world.table();
    let mut millrace = trial.start(&through(trial, &proxy));
    millrace.until_ready();
    trial.load(load_for(trial, LOAD));
    let mut claimed = 0;
    while goes_on(trial, begun) {
        if !rows_land(trial, &mut millrace) {
            break;
        }
        let hits = proxy.hits();
        if trial.random.below(2) == 0 {
            let times = 1 + trial.random.below(3) as u32;
            proxy.fail(Fault::FalseSuccess, times);
            until("failures look like successes", PATIENCE, || proxy.hits() == hits + times || !trial.is_loading());
            claimed += proxy.hits() - hits;
        } else {
            // The server itself finds out when it has read the rows and told of its progress.
            trial.world.stack.sql(&format!("ALTER TABLE {table} ADD CONSTRAINT chaos CHECK _partition < 0"));
            proxy.fail(EARLY_STATUS, u32::MAX);
            until("the server breaks inserts off", PATIENCE, || proxy.hits() > hits + 1 || !trial.is_loading());
            proxy.mend();
            trial.world.stack.sql(&format!("ALTER TABLE {table} DROP CONSTRAINT chaos"));
        }
    }
    trial.healed();
    trial.injected(u64::from(proxy.hits()));
    let answers = proxy.answers();
    let broken_off = |pair: &&[String]| pair[0].starts_with("HTTP/1.1 200") && pair[1].starts_with(EXCEPTION_CODE);
    let real = answers.windows(2).filter(broken_off).count();
    trial.note(format!("{claimed} inserts were not passed on, and answered 200 with an exception by the proxy"));
    trial.note(format!("{real} inserts were answered 200 with an exception by ClickHouse ({} answers)", answers.len()));
    trial.expect(claimed + real as u32 >= 2, "too few failures looked like successes");
    rows_land(trial, &mut millrace);
    expect_quiet_recovery(trial, &millrace);
    trial.keep(millrace);
    trial.lasts(proxy);
}
