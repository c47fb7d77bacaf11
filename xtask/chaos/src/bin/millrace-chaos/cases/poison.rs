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
            number: 18,
            name: "dead-letters-refused",
            what: "the dead-letter topic is deleted and made anew; then it takes no record of any size",
            rests_on: &[],
            run: dead_letters_refused,
        },
    ]
}

/// What has to be among the poison, by the beginnings of its names.
const KINDS: [&str; 13] = [
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
];

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
    trial.expect(peak < usual * 3 / 2, format!("{peak} MiB with poison, {usual} MiB without"));
    trial.expect(slowest > 5, format!("a partition was committed {slowest} times only while poison came"));
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
