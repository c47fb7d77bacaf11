//! Clocks that jump by an hour, in both directions.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use millrace_chaos::process::Millrace;
use millrace_chaos::stack::until;
use millrace_chaos::world::{Load, World};

use super::Case;
use super::crashes::{goes_on, load_for};
use crate::fleet::Fleet;
use crate::trial::Trial;

const LOAD: Load = Load { events: 300_000, rate: 15_000, duplicates: 0.1, poison: 0.002 };
const PATIENCE: Duration = Duration::from_secs(90);
/// Of Debian's package `libfaketime`, below /usr/lib and the folder of the architecture.
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";
/// What it lacks for librdkafka.
const COMPLEMENT: &str = include_str!("cnd_timedwait.c");
const OFFSETS: [&str; 3] = ["+1h", "-1h", "+0"];
const HOUR_S: i64 = 3600;
const DAY_S: i64 = 86_400;

pub(super) fn cases() -> Vec<Case> {
    vec![Case {
        number: 21,
        name: "clocks-jump",
        what: "the clocks of consumers, and that of ClickHouse as far as rows bear it, jump by an hour both ways",
        rests_on: &[],
        run: clocks_jump,
    }]
}

fn library() -> PathBuf {
    let architectures = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let found = architectures.map(|folder| folder.path().join(LIBRARY)).find(|file| file.is_file());
    found.expect("libfaketime is missing: apt-get install faketime (`cargo xtask chaos --install-missing` does it)")
}

/// What a process loads to have a clock of its own.
fn preloaded(world: &World) -> String {
    let (source, complement) = (world.file("cnd_timedwait.c"), world.file("cnd_timedwait.so"));
    fs::write(&source, COMPLEMENT).unwrap();
    let status = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&complement).arg(&source).status();
    assert!(status.expect("cc, which builds Millrace too").success(), "cc failed");
    format!("{}:{}", complement.display(), library().display())
}

fn clocks_jump(trial: &mut Trial) {
    let preloaded = preloaded(&trial.world);
    // The window is longer than any jump: what lies within it by one clock must not lie outside it by the other.
    let config = trial.world.config().with("[topics.dedup]", "window", "3h");
    let clocks = [0, 1].map(|slot| trial.world.file(&format!("clock-{slot}")));
    clocks.iter().for_each(|clock| set(clock, OFFSETS[2]));
    let start = |trial: &Trial, slot: usize| {
        let clock = clocks[slot].to_str().expect("a path of letters");
        trial.start_with(
            &Fleet::config(&config, slot),
            &[
                ("LD_PRELOAD", preloaded.as_str()),
                ("DONT_FAKE_MONOTONIC", "1"),
                ("FAKETIME_NO_CACHE", "1"),
                ("FAKETIME_TIMESTAMP_FILE", clock),
            ],
        )
    };
    let mut fleet = Fleet::start(2, |slot| start(trial, slot));
    fleet.members().for_each(Millrace::until_ready);
    trial.load(load_for(trial, LOAD));
    let begun = Instant::now();
    let (mut jumps, mut seen, mut at) = (0, (0, 0), [2, 2, 2]);
    while goes_on(trial, begun) {
        let slot = trial.random.below(3) as usize;
        // To one of the other two.
        at[slot] = (at[slot] + 1 + trial.random.below(2) as usize) % OFFSETS.len();
        jumps += 1;
        if slot == 2 {
            ingested_by(trial, at[slot]);
        } else {
            set(&clocks[slot], OFFSETS[at[slot]]);
            // What one clock wrote another reads: every second time a successor of the other hour takes over.
            if trial.random.below(2) == 0 {
                seen = sum(seen, jumps_of(fleet.member(slot)));
                fleet.replace(trial, slot, |trial| start(trial, slot));
            }
        }
        let rows: u64 = fleet.members().map(|member| member.rows()).sum();
        until("rows land under the new clocks", PATIENCE, || {
            let now: u64 = fleet.members().map(|member| member.rows()).sum();
            // The rows of a process that was replaced are not counted any more.
            now > 3_000 && !(rows..rows + 3_000).contains(&now) || !trial.is_loading()
        });
    }
    trial.injected(jumps);
    fleet.members().for_each(|member| seen = sum(seen, jumps_of(member)));
    let ingested = trial.world.stack.sql(&format!(
        "SELECT countIf(_ingested_at > now64(3) + INTERVAL 30 MINUTE), countIf(_ingested_at < now64(3) - INTERVAL 30 MINUTE) FROM {}",
        trial.world.table()
    ));
    ingested_by(trial, 2);
    let (ahead, behind) = ingested.split_once('\t').expect("two columns");
    trial.note(format!(
        "{jumps} jumps; logs of consumers tell of {} forwards and {} back; {ahead} rows bear a time of ingestion an hour ahead, \
         {behind} an hour behind",
        seen.0, seen.1
    ));
    // Few lines are logged, so that most jumps are seen by nobody.
    trial.expect(seen.0 + seen.1 > 0, "no consumer saw its clock jump");
    trial.expect(ahead != "0" && behind != "0", "ClickHouse's clock did not jump");
    fleet.keep(trial);
}

fn set(clock: &Path, offset: &str) {
    // Written whole before it is looked at.
    let new = clock.with_extension("new");
    fs::write(&new, offset).unwrap();
    fs::rename(new, clock).unwrap();
}

/// ClickHouse has a C library of its own in it, which asks the kernel and cannot be told otherwise. Of its clock the
/// delivery protocol knows only what rows bear; so they bear what a server would write that is an hour off, and are read
/// back by one that is not.
fn ingested_by(trial: &Trial, offset: usize) {
    let default = ["now64(3) + INTERVAL 1 HOUR", "now64(3) - INTERVAL 1 HOUR", "now64(3)"][offset];
    let table = trial.world.table();
    trial.world.stack.sql(&format!("ALTER TABLE {table} MODIFY COLUMN _ingested_at DEFAULT {default}"));
}

/// Jumps of about an hour and more in a log, forwards and back, by the times of its lines.
fn jumps_of(process: &Millrace) -> (usize, usize) {
    let log = process.log();
    let times: Vec<i64> = log.lines().filter_map(second_of_the_day).collect();
    let steps: Vec<i64> =
        times.windows(2).map(|pair| (pair[1] - pair[0] + DAY_S / 2).rem_euclid(DAY_S) - DAY_S / 2).collect();
    let count = |is: fn(i64) -> bool| steps.iter().filter(|step| is(**step)).count();
    (count(|step| step > HOUR_S / 2), count(|step| step < -HOUR_S / 2))
}

/// Of a line that begins with a time such as `2026-01-31T23:59:59`.
fn second_of_the_day(line: &str) -> Option<i64> {
    let mut parts = line.get(11..19)?.split(':').map(str::parse::<i64>);
    let mut next = || parts.next()?.ok();
    Some(next()? * HOUR_S + next()? * 60 + next()?)
}

fn sum(one: (usize, usize), other: (usize, usize)) -> (usize, usize) {
    (one.0 + other.0, one.1 + other.1)
}
