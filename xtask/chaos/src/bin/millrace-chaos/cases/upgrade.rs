//! Two versions of `millrace` in one group: an upgrade process by process, a schema and a table that change, and the way back.
//!
//! `MILLRACE_PREVIOUS` names the program of the earlier version, which `cargo xtask upgrade` builds. Without it the earlier
//! version is this program with the earlier configuration: that tries the order of the steps and what the two configurations
//! do to each other, and cannot show that two builds understand each other's claims, marks and inserts.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use millrace_chaos::config::Config;
use millrace_chaos::kafka::Offsets;
use millrace_chaos::process::Millrace;
use millrace_chaos::stack::{program, until};
use millrace_chaos::world::Load;
use serde_json::Value;

use super::{Case, same_times};
use crate::trial::Trial;

const PREVIOUS: &str = "MILLRACE_PREVIOUS";
const SCHEMAS: [&str; 2] = [
    include_str!("../../../../../../schemas/avro/order_event/v1.avsc"),
    include_str!("../../../../../../schemas/avro/order_event/v2.avsc"),
];
/// What every event of the second version says of its `source`.
const SOURCE: &str = "checkout-eu-1";
/// The producers of both versions send until they are killed: how long a step takes is not known beforehand. All is then
/// sent once more, which is what the manifest tells of.
const ENDLESS: Load = Load { events: 10_000_000, rate: 5_000, duplicates: 0.0, poison: 0.0 };
const PATIENCE: Duration = Duration::from_secs(120);
const EARLIER: &str = "the earlier version";
const UPGRADED: &str = "this version with the earlier mapping";
const CHANGED: &str = "this version with the new mapping";
/// For producers of the second version.
const SECOND: [&str; 2] = ["--schemas", "second"];
/// Rows that a process lands before its step counts as done.
const SOME: u64 = 1_000;

pub(super) fn cases() -> Vec<Case> {
    vec![Case {
        number: 28,
        name: "upgrade",
        what: "two versions in one group under load, a change of schema and table, and back; one is killed as the other takes over",
        rests_on: &[],
        run: upgrade,
    }]
}

/// A build of `millrace` with the mapping of a version of the schema.
struct Release {
    name: &'static str,
    millrace: PathBuf,
    config: Config,
    /// Whether its rows have what the second version of the schema brought.
    lands_source: bool,
}

/// The processes of a group, and who they were: owners of claims by what their rows hold.
#[derive(Default)]
struct Group {
    members: Vec<Millrace>,
    owners: BTreeMap<String, (&'static str, bool)>,
}

impl Group {
    /// Starts one, and waits until it is a member by its own word.
    fn join(&mut self, trial: &Trial, release: &Release) {
        let mut member = trial.world.start_build(&release.millrace, &release.config);
        let mut owner = None;
        member.until("it has subscribed", PATIENCE, |it| {
            let line = it.lines(&["subscribed", "owner="]).pop();
            owner = line.and_then(|line| Some(line.split("owner=").nth(1)?.split_whitespace().next()?.to_owned()));
            owner.is_some()
        });
        self.owners.insert(owner.expect("it was waited for"), (release.name, release.lands_source));
        self.members.push(member);
    }

    /// Each has partitions, all are held, and each has landed rows since.
    fn until_all_land(&mut self, what: &str) {
        let held = |it: &Millrace| it.metric("millrace_partitions_assigned") as usize;
        let members = &mut self.members;
        until(&format!("{what}: each has its share"), PATIENCE, || {
            members.iter().map(held).sum::<usize>() == 4 && members.iter().all(|it| held(it) == 4 / members.len())
        });
        for member in members {
            let before = member.rows();
            member.until(&format!("{what}: each lands rows"), PATIENCE, |it| it.rows() >= before + SOME);
        }
    }

    /// The eldest goes, as `kubectl rollout` would have it go.
    fn leave(&mut self) {
        let mut eldest = self.members.remove(0);
        eldest.terminate();
        assert!(eldest.lines(&["reading on with the oldest event"]).is_empty(), "a position was lost");
    }

    /// The eldest is replaced, one that lands rows by one that lands rows.
    fn replace(&mut self, trial: &Trial, release: &Release, what: &str) {
        self.leave();
        self.join(trial, release);
        self.until_all_land(what);
    }
}

fn upgrade(trial: &mut Trial) {
    let this = program("millrace");
    let previous = env::var_os(PREVIOUS).map_or_else(|| this.clone(), PathBuf::from);
    let versions = [version(&previous), version(&this)];
    if previous == this {
        trial.note(format!("{}: one build with two configurations, {PREVIOUS} is not set", versions[0]));
    } else {
        assert_ne!(versions[0], versions[1], "{PREVIOUS} is the version that is to be tried");
        trial.note(format!("from {} to {} and back", versions[0], versions[1]));
    }
    let files = [0, 1].map(|at| {
        let file = trial.world.file(&format!("order_event_v{}.avsc", at + 1));
        std::fs::write(&file, SCHEMAS[at]).unwrap();
        file.display().to_string()
    });
    let mapping = |millrace: &PathBuf, schema: &str| {
        let config = trial.world.config_of(millrace);
        config.with("[[topics]]", "reader_schema", schema).with("[topics.batch]", "max_age", "250ms")
    };
    let release = |name, millrace: &PathBuf, config, lands_source| Release {
        name,
        millrace: millrace.clone(),
        config,
        lands_source,
    };
    let before = release(EARLIER, &previous, mapping(&previous, &files[0]), false);
    let upgraded = release(UPGRADED, &this, mapping(&this, &files[0]), false);
    let changed = mapping(&this, &files[1]).with("[topics.columns]", "source", "source");
    let changed = release(CHANGED, &this, changed, true);

    // The tables are those that the earlier version makes.
    trial.world.stack.sql(&format!("DROP DATABASE {} SYNC", trial.world.database));
    trial.world.migrate(&previous, &before.config);

    let times = same_times();
    let times: Vec<&str> = times.iter().map(String::as_str).collect();
    let mut group = Group::default();
    group.join(trial, &before);
    group.join(trial, &before);
    trial.load_with(ENDLESS, &times);
    group.until_all_land("the earlier version alone");

    // Programs first, one by one, with nothing else changed. The second is killed while the first takes over from it.
    group.replace(trial, &upgraded, "one of each");
    group.join(trial, &upgraded);
    group.members[0].kill();
    group.members.remove(0);
    trial.killed(1);
    group.until_all_land("this version alone");

    // Then the schema, the table under the hands of those that run, the mapping, and the producers last.
    let subject = format!("{}-value", trial.world.topic());
    trial.world.stack.register(&subject, &serde_json::from_str::<Value>(SCHEMAS[1]).unwrap());
    let done = trial.world.migrate(&this, &changed.config);
    trial.expect(done.contains("Done: "), format!("the table was not migrated: {done}"));
    group.replace(trial, &changed, "both mappings");
    group.replace(trial, &changed, "the new mapping");
    let first = stop_producers(trial);
    trial.load_with(ENDLESS, &[&times[..], &SECOND, &["--first", &count(&first).to_string()]].concat());
    group.until_all_land("producers of the second version");

    // And back, while events of the second version come.
    group.replace(trial, &before, "rollback of one");
    group.replace(trial, &before, "rollback of both");
    let all = stop_producers(trial);
    trial.injected(6);
    trial.healed();
    // What a producer had under way as it was killed lies in the topic with gaps, so that numbers go beyond the count.
    let events = count(&all) + 2 * ENDLESS.rate;
    let again = Load { events, rate: 0, duplicates: 0.05, poison: 0.002 };
    trial.load_with(again, &[&times[..], &SECOND].concat());
    trial.generator().finish();
    trial.world.until_committed(PATIENCE);
    judge_columns(trial, &group, &first);
    for member in group.members {
        trial.keep(member);
    }
}

/// What a build says of itself.
fn version(millrace: &Path) -> String {
    let output = Command::new(millrace).arg("--version").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

/// SIGKILL for the producers. Once all that they sent has landed, the ends of the topic.
fn stop_producers(trial: &mut Trial) -> Offsets {
    trial.kill_generator();
    trial.world.until_committed(PATIENCE);
    trial.world.kafka.ends(&trial.world.topic())
}

/// Records in a topic without gaps, which is how many events were sent.
fn count(ends: &Offsets) -> u64 {
    ends.values().sum::<i64>() as u64
}

/// Rows have the new column where this version landed an event of the second version with the new mapping, and its default
/// everywhere else. Who landed a row is told by the claim that its partition was under.
fn judge_columns(trial: &mut Trial, group: &Group, first: &Offsets) {
    let below: Vec<String> = first.iter().map(|(at, end)| format!("(_partition = {at} AND _offset < {end})")).collect();
    let rows = trial.world.stack.sql(&format!(
        "SELECT claim.owner, {first_version} AS first_version, count(), countIf(source = '{SOURCE}'), countIf(source IS NULL) \
         FROM {table} AS row ASOF JOIN (SELECT partition, claimed_at, owner FROM {database}.claims WHERE topic = '{topic}') \
         AS claim ON row._partition = claim.partition AND row._ingested_at >= claim.claimed_at GROUP BY ALL ORDER BY ALL",
        first_version = below.join(" OR "),
        table = trial.world.table(),
        database = trial.world.database,
        topic = trial.world.topic(),
    ));
    let mut landed: BTreeMap<(&str, bool), u64> = BTreeMap::new();
    for line in rows.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [owner, first_version, rows, filled, null] = fields[..] else { panic!("five columns: {line}") };
        let first_version = first_version == "1";
        let number = |text: &str| text.parse::<u64>().unwrap();
        let (name, lands_source) = group.owners.get(owner).copied().expect("an owner of this group");
        let expected = if lands_source && !first_version { (number(rows), 0) } else { (0, number(rows)) };
        trial.expect(
            (number(filled), number(null)) == expected,
            format!(
                "{name}, first version {first_version}: of {rows} rows {filled} have a source and {null} have none"
            ),
        );
        *landed.entry((name, first_version)).or_default() += number(rows);
    }
    let of = |name, first_version| landed.get(&(name, first_version)).copied().unwrap_or(0);
    trial.note(format!(
        "rows of events of the first version, by {EARLIER}: {}, by {UPGRADED}: {}, by {CHANGED}: {}",
        of(EARLIER, true),
        of(UPGRADED, true),
        of(CHANGED, true)
    ));
    trial.note(format!(
        "of the second, by {CHANGED}: {}, by {EARLIER} after the rollback: {}",
        of(CHANGED, false),
        of(EARLIER, false)
    ));
    for (name, first_version) in
        [(EARLIER, true), (UPGRADED, true), (CHANGED, true), (CHANGED, false), (EARLIER, false)]
    {
        trial.expect(of(name, first_version) >= SOME, format!("{name} landed too little"));
    }
}
