//! Records that cannot be read, and a dead-letter topic that takes none.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use millrace_chaos::kafka::Offsets;
use millrace_chaos::process::Millrace;
use millrace_chaos::world::{Load, Place};

use super::{Case, same_times};
use crate::trial::Trial;

const PATIENCE: Duration = Duration::from_secs(60);
/// How long the dead-letter topic stays unwritable once everything is sent.
const HELD: Duration = Duration::from_secs(3);

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case {
            number: 17,
            name: "poison",
            what: "every fifth record cannot be read, in every way there is",
            rests_on: &[],
            run: poison,
        },
        Case {
            number: 17,
            name: "poison-storm",
            what: "every fifth record cannot be read, in every way there is, for as long as one likes (--minutes)",
            rests_on: &[],
            run: storm,
        },
        Case {
            number: 18,
            name: "dead-letters-refused",
            what: "the dead-letter topic is deleted and made anew; then it takes no record of any size",
            rests_on: &[],
            run: dead_letters_refused,
        },
    ]
}

/// How much more memory poison may take, in MiB: what is fetched ahead of the decoder, which is up to 32 MiB, may be there
/// in the one run and not in the other, and as much again for dead letters under way.
const MORE_MEMORY: u64 = 64;

/// What has to be among the poison, by the beginnings of its names.
const KINDS: [&str; 15] = [
    "truncated",
    "random_truncation",
    "trailing_byte",
    "random_trailing_bytes",
    "random_bytes",
    "wrong_magic",
    "unknown_schema_id",
    "huge_",
    "array_bomb",
    "bad_utf8",
    "enum_index",
    "uuid_",
    "empty_value",
    "random_schema_id",
    "unfinished_items",
];

/// Records a second of the storm, of which each fifth cannot be read.
const STORM_RATE: u64 = 10_000;
/// How long it lasts unless told.
const STORM: Duration = Duration::from_secs(20);
/// Of each event's record there are 0.05 more that are duplicates, and these are unreadable: a fifth of all.
const STORM_POISON: f64 = 0.27;
/// The furthest that the group may be behind, in seconds of the load.
const BEHIND: f64 = 10.0;
/// The most memory, in MiB.
const STORM_MEMORY: u64 = 700;

fn poison(trial: &mut Trial) {
    let (config, times) = (trial.world.config(), same_times());
    let arguments = times.each_ref().map(String::as_str);
    let load = Load { events: 100_000, rate: 20_000, duplicates: 0.05, poison: 0.0 };
    // What the same load needs without poison, to compare with.
    let mut clean = trial.start(&config);
    trial.load_with(load, &arguments);
    trial.generator().finish();
    trial.world.until_committed(PATIENCE);
    let usual = clean.peak_memory_mib();
    clean.terminate();

    let mut millrace = trial.start(&config);
    millrace.until_ready();
    trial.load_with(Load { events: 2 * load.events, poison: 0.2, ..load }, &arguments);
    let mut moves: BTreeMap<i32, BTreeSet<i64>> = BTreeMap::new();
    while trial.is_loading() {
        std::thread::sleep(Duration::from_millis(200));
        trial.world.kafka.committed(&trial.world.topic()).into_iter().for_each(|(partition, offset)| {
            moves.entry(partition).or_default().insert(offset);
        });
    }
    trial.healed();
    trial.world.until_committed(PATIENCE);
    let (peak, manifest) = (millrace.peak_memory_mib(), trial.generator().finish());
    let kinds = trial.generator().poison_kinds();
    let slowest = moves.values().map(BTreeSet::len).min().unwrap_or_default();
    trial.injected(manifest.poison.len() as u64);
    trial.note(format!(
        "{} unreadable records of {} kinds; at most {peak} MiB resident, {usual} MiB without them; while they came, each \
         partition was committed {slowest} times or more",
        manifest.poison.len(),
        kinds.len()
    ));
    let missing: Vec<&&str> = KINDS.iter().filter(|kind| !kinds.keys().any(|name| name.starts_with(**kind))).collect();
    trial.expect(missing.is_empty(), format!("kinds that were not sent: {missing:?}"));
    trial.expect(manifest.poison.len() as u64 * 6 > load.events * 2, "fewer unreadable records than every sixth");
    trial.expect(peak < usual + MORE_MEMORY, format!("{peak} MiB with poison, {usual} MiB without"));
    trial.expect(slowest > 5, format!("a partition was committed {slowest} times only while poison came"));
    trial.keep(millrace);
}

fn storm(trial: &mut Trial) {
    let seconds = trial.time.unwrap_or(STORM).as_secs_f64();
    let events = (seconds * STORM_RATE as f64 / (1.05 + STORM_POISON)) as u64;
    let mut millrace = trial.start(&trial.world.config());
    millrace.until_ready();
    let begun = Instant::now();
    trial.load(Load { events, rate: STORM_RATE, duplicates: 0.05, poison: STORM_POISON });
    let (topic, mut furthest, mut last_half) = (trial.world.topic(), 0, 0);
    while trial.is_loading() {
        std::thread::sleep(Duration::from_millis(250));
        // Committed first: what comes meanwhile counts as behind.
        let committed = trial.world.kafka.committed(&topic);
        let ends = trial.world.kafka.ends(&topic);
        let behind = ends.iter().map(|(partition, end)| end - committed.get(partition).unwrap_or(&0)).sum::<i64>();
        furthest = furthest.max(behind);
        if begun.elapsed().as_secs_f64() > seconds / 2.0 {
            last_half = last_half.max(behind);
        }
    }
    let sent_in = begun.elapsed();
    trial.healed();
    trial.world.until_committed(PATIENCE);
    let drained_in = begun.elapsed() - sent_in;
    let (manifest, peak) = (trial.generator().finish(), millrace.peak_memory_mib());
    let (kinds, poison) = (trial.generator().poison_kinds(), manifest.poison.len() as u64);
    trial.injected(poison);
    let letters = millrace.metric("millrace_dead_letters_total") as u64;
    let share = poison as f64 / (manifest.delivered as f64);
    trial.note(format!(
        "{poison} unreadable records of {} kinds, {:.1} % of {}, in {:.0} s; {letters} dead letters; at most {furthest} records \
         behind, {last_half} in the second half; all committed {:.1} s after the last; at most {peak} MiB resident",
        kinds.len(),
        share * 100.0,
        manifest.delivered,
        sent_in.as_secs_f64(),
        drained_in.as_secs_f64()
    ));
    let missing: Vec<&&str> = KINDS.iter().filter(|kind| !kinds.keys().any(|name| name.starts_with(**kind))).collect();
    trial.expect(missing.is_empty(), format!("kinds that were not sent: {missing:?}"));
    trial.expect((0.19..0.22).contains(&share), format!("{share} of the records were unreadable"));
    trial.expect(letters == poison, format!("{letters} dead letters of {poison} unreadable records"));
    let behind = furthest as f64 / STORM_RATE as f64;
    trial.expect(behind < BEHIND, format!("it fell behind by {behind:.1} s of the load"));
    trial.expect(peak < STORM_MEMORY, format!("{peak} MiB resident"));
    trial.keep(millrace);
}

fn dead_letters_refused(trial: &mut Trial) {
    let (config, dead) = (trial.world.config(), trial.world.dead_letter_topic());
    let times = same_times();
    let arguments = times.each_ref().map(String::as_str);
    let mut millrace = trial.start(&config);
    millrace.until_ready();
    let said = |it: &Millrace| it.lines(&["a dead letter was not written; offsets wait for it"]).len();

    trial.world.kafka.delete(&[&dead]);
    refused(trial, &mut millrace, 50_000, &arguments, "deleted");
    trial.world.kafka.create(&dead, 1, &[]);
    trial.world.until_committed(PATIENCE);

    let (letters, before) = (millrace.metric("millrace_dead_letters_total"), said(&millrace));
    trial.world.kafka.configure(&dead, &[("max.message.bytes", "10")]);
    refused(trial, &mut millrace, 100_000, &arguments, "taking nothing");
    trial.expect(letters == millrace.metric("millrace_dead_letters_total"), "a letter was written all the same");
    trial.expect(said(&millrace) > before, "that letters are refused was not said");
    trial.world.kafka.configure(&dead, &[]);
    trial.healed();
    trial.world.until_committed(PATIENCE);
    trial.expect(millrace.metric("millrace_rebalances_total") == 1.0, "the group has to stay as it is");
    trial.keep(millrace);
}

/// A load while no dead letter can be written, its first unreadable record amid others; what was committed meanwhile is
/// looked at again and again.
fn refused(trial: &mut Trial, millrace: &mut Millrace, events: u64, arguments: &[&str], how: &str) {
    let topic = trial.world.topic();
    let begins = trial.world.kafka.ends(&topic);
    trial.injected(1);
    let load = Load { events, rate: 20_000, duplicates: 0.05, poison: 0.0 };
    trial.load_with(load, arguments);
    let dropped = |it: &Millrace| it.rows() + it.metric("millrace_duplicates_dropped_total") as u64;
    let before = dropped(millrace);
    millrace.until("it takes events", PATIENCE, |it| dropped(it) > before + 25_000);
    trial.load_with(Load { poison: 0.002, ..load }, arguments);
    let mut furthest = Offsets::new();
    let mut look = |trial: &Trial| {
        for (partition, offset) in trial.world.kafka.committed(&topic) {
            let at = furthest.entry(partition).or_insert(offset);
            *at = offset.max(*at);
        }
    };
    while trial.is_loading() {
        look(trial);
    }
    let sent = Instant::now();
    while sent.elapsed() < HELD {
        look(trial);
    }
    assert!(millrace.ended().is_none(), "millrace ended");
    let manifest = trial.generator().finish();
    let first = |partition: &i32| {
        let places = manifest.poison.iter().filter(|place: &&Place| place.partition == *partition);
        places.map(|place| place.offset).min().unwrap_or(i64::MAX)
    };
    let passed: Vec<_> = furthest.iter().filter(|(partition, offset)| **offset > first(partition)).collect();
    let moved = furthest.iter().filter(|(partition, offset)| **offset > begins[partition]).count();
    let firsts: Offsets = begins.keys().map(|partition| (*partition, first(partition))).collect();
    trial.note(format!(
        "{how}: {} letters waited; from {begins:?} committed at most {furthest:?}, first unreadable records {firsts:?}, ends {:?}",
        manifest.poison.len(),
        manifest.end_offsets
    ));
    trial.expect(passed.is_empty(), format!("{how}: offsets passed a dead letter that was not written: {passed:?}"));
    trial.expect(
        moved == 4,
        format!("{how}: offsets of {moved} partitions only moved up to the first unreadable record"),
    );
}
