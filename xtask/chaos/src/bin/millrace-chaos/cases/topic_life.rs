//! The topic itself changes: it is deleted and made anew, grows by partitions, or loses its beginning to retention.

use std::thread;
use std::time::{Duration, Instant};

use millrace_chaos::kafka::Offsets;
use millrace_chaos::process::Millrace;
use millrace_chaos::stack::until;
use millrace_chaos::staged::{Copier, Staged};
use millrace_chaos::wire::{Weather, Wire};
use millrace_chaos::world::{Generator, Load};
use rdkafka::message::OwnedMessage;
use rdkafka::{Message, TopicPartitionList};
use rustix::process::Signal;

use super::{Case, same_times};
use crate::trial::Trial;

const PATIENCE: Duration = Duration::from_secs(60);
const RECREATED: &str = "has lost its end";
const RETENTION: &str = "retention has deleted events that were never read";

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case {
            number: 23,
            name: "recreated-while-away",
            what: "the topic is made anew while nobody reads, and has grown past the committed offsets, which are still there",
            rests_on: &[],
            run: recreated_while_away,
        },
        Case {
            number: 23,
            name: "recreated-and-forgotten",
            what: "the topic is made anew while nobody reads, and the group's offsets went with it; start = \"latest\"",
            rests_on: &[],
            run: recreated_and_forgotten,
        },
        Case {
            number: 23,
            name: "recreated-while-running",
            what: "the topic is made anew and grows past the position of a consumer that sleeps meanwhile",
            rests_on: &[],
            run: recreated_while_running,
        },
        Case {
            number: 23,
            name: "partitions-added",
            what: "the topic gets two more partitions under load, with start = \"latest\"",
            rests_on: &[],
            run: partitions_added,
        },
        Case {
            number: 26,
            name: "retention-while-away",
            what: "records that were never read are deleted while nobody reads",
            rests_on: &[],
            run: retention_while_away,
        },
        Case {
            number: 26,
            name: "retention-while-behind",
            what: "records that were never read are deleted while a consumer is behind",
            rests_on: &[],
            run: retention_while_behind,
        },
    ]
}

/// What the second incarnation gets: twice as much, so that it is longer.
const SECOND: Load = Load { events: 80_000, poison: 0.002, ..First::LOAD };

/// The first incarnation: its events are of a seed of their own, land, and are judged at once.
struct First {
    events: u64,
    ends: Offsets,
    commits: TopicPartitionList,
    millrace: Millrace,
}

impl First {
    const LOAD: Load = Load { events: 40_000, rate: 0, duplicates: 0.05, poison: 0.0 };

    fn land(trial: &mut Trial) -> Self {
        let world = &trial.world;
        // A session that outlasts a long sleep: a member that stays takes nothing over anew.
        let config = world.config().with("[kafka.properties]", "\"session.timeout.ms\"", "45000");
        let mut millrace = trial.start(&config);
        millrace.until_ready();
        let mut generator = world.generate_with(Self::LOAD, world.seed + 1, &[]);
        let manifest = generator.finish();
        world.until_committed(PATIENCE);
        let (_, verdict) = world.verify(&generator);
        // Its enriched columns are those of the other seed's customers and products.
        assert_eq!((verdict.rows, verdict.lost, verdict.doubled), (manifest.events, 0, 0), "{verdict:?}");
        // From now on the judge sees the rows of the second only.
        let database = &world.database;
        world.stack.sql(&format!("CREATE TABLE {database}.first ENGINE = MergeTree ORDER BY event_id AS SELECT event_id FROM {database}.orders"));
        world.stack.sql(&format!(
            "CREATE VIEW {database}.second AS SELECT * FROM {database}.orders WHERE event_id NOT IN (SELECT event_id FROM {database}.first)"
        ));
        let commits = world.kafka.commits(&world.topic());
        trial.world.judged = "second".into();
        Self { events: manifest.events, ends: manifest.end_offsets, commits, millrace }
    }

    /// Makes the topic anew, and fills it past the first one's ends.
    fn succeed(&self, trial: &mut Trial) -> Offsets {
        let topic = trial.world.topic();
        trial.world.kafka.delete(&[&topic]);
        trial.world.kafka.create(&topic, 4, &[]);
        trial.injected(1);
        trial.load(SECOND);
        let ends = trial.generator().finish().end_offsets;
        assert!(
            ends.iter().all(|(partition, end)| *end > self.ends[partition]),
            "it has not grown past {:?}: {ends:?}",
            self.ends
        );
        ends
    }

    /// The rows of the first are as they were.
    fn expect_untouched(&self, trial: &mut Trial) {
        let database = &trial.world.database;
        let rows = trial.world.stack.count(&format!(
            "SELECT count() FROM {database}.orders WHERE event_id IN (SELECT event_id FROM {database}.first)"
        ));
        trial.expect(rows == self.events, format!("{rows} rows of the first topic, which had {} events", self.events));
    }
}

/// A process that is not to go on without its position ends with an error that says so, and commits nothing.
fn expect_stop(trial: &mut Trial, words: &str) {
    let (topic, config) = (trial.world.topic(), trial.world.config().with("[[topics]]", "on_lost_position", "stop"));
    let config = config.with("[shutdown]", "stay_stopped", "0s");
    let before = trial.world.kafka.committed(&topic);
    let mut millrace = trial.start(&config);
    let ended = (0..300).find_map(|_| {
        thread::sleep(Duration::from_millis(100));
        millrace.ended()
    });
    let said = !millrace.lines(&["error: ", words]).is_empty();
    trial.expect(
        ended.is_some_and(|status| status.code() == Some(1)),
        format!("on_lost_position = \"stop\": ended {ended:?}"),
    );
    trial.expect(said, format!("on_lost_position = \"stop\": no error says `{words}`"));
    trial.expect(before == trial.world.kafka.committed(&topic), "on_lost_position = \"stop\" committed something");
}

/// What a process says of partitions whose position is lost, for as long as it has committed all.
fn expect_said(trial: &mut Trial, millrace: &Millrace, words: &str, partitions: usize) {
    let said = millrace.lines(&["ERROR", words]).len();
    trial.note(format!("it said `{words}` {said} times"));
    trial.expect(said >= partitions, format!("`{words}` was said {said} times, of {partitions} partitions"));
}

fn recreated_while_away(trial: &mut Trial) {
    let mut first = First::land(trial);
    first.millrace.terminate();
    let ends = first.succeed(trial);
    // The broker forgets offsets of a deleted topic, unless it cannot just then; and tools bring them back.
    trial.world.kafka.commit(&first.commits);
    trial.note(format!("committed {:?}, the new topic's ends {ends:?}", first.ends));
    expect_stop(trial, RECREATED);
    trial.healed();
    let millrace = trial.start(&trial.world.config());
    trial.world.until_committed(PATIENCE);
    expect_said(trial, &millrace, RECREATED, 4);
    first.expect_untouched(trial);
    trial.keep(millrace);
}

fn recreated_and_forgotten(trial: &mut Trial) {
    let mut first = First::land(trial);
    first.millrace.terminate();
    first.succeed(trial);
    let topic = trial.world.topic();
    until("the broker forgets the group's offsets", PATIENCE, || trial.world.kafka.committed(&topic).is_empty());
    trial.healed();
    let config = trial.world.config().with("[[topics]]", "start", "latest");
    let mut millrace = trial.start(&config);
    millrace.until_ready();
    let landed = trial.world.stack.count(&format!("SELECT count() FROM {}.orders", trial.world.database));
    trial.note(format!("{} rows when it was ready, of {} events of the first topic", landed, first.events));
    // Where it begins at the end, nothing is ever committed, and everything is lost; so wait for one or the other.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(15)
        && trial.world.kafka.committed(&topic) != trial.world.kafka.ends(&topic)
    {
        thread::sleep(Duration::from_millis(200));
    }
    let said = millrace.lines(&["ERROR", "partition"]).len();
    trial.note(format!("it said {said} times that it has no position"));
    trial.expect(said >= 4, "that the group's offsets are gone was not said of each partition");
    first.expect_untouched(trial);
    trial.keep(millrace);
}

fn recreated_while_running(trial: &mut Trial) {
    let first = First::land(trial);
    // Asleep, it cannot see the moment in which there is no topic; a busy machine or a parted network does the same.
    first.millrace.signal(Signal::STOP);
    let ends = first.succeed(trial);
    first.millrace.signal(Signal::CONT);
    trial.healed();
    let rebalances = first.millrace.metric("millrace_rebalances_total");
    trial.expect(rebalances == 1.0, format!("{rebalances} rebalances: it was not as if nothing had happened"));
    trial.note(format!("its positions {:?}, the new topic's ends {ends:?}", first.ends));
    let awake = Instant::now();
    let said = (0..600).any(|_| {
        thread::sleep(Duration::from_millis(100));
        !first.millrace.lines(&["ERROR", RECREATED]).is_empty()
    });
    trial.note(format!("{:.1} s after it woke up it said so, or never", awake.elapsed().as_secs_f64()));
    trial.expect(said, "a running consumer never said that its topic was made anew");
    // What it committed on its way past the old offsets is the end already, before it reads again from the beginning.
    let judged = format!("SELECT count() FROM {}.{}", trial.world.database, trial.world.judged);
    for _ in 0..200 {
        if trial.world.stack.count(&judged) >= SECOND.events {
            break;
        }
        thread::sleep(Duration::from_millis(100));
    }
    trial.world.until_committed(PATIENCE);
    first.expect_untouched(trial);
    trial.keep(first.millrace);
}

fn partitions_added(trial: &mut Trial) {
    let world = &trial.world;
    let topic = world.topic();
    // Of six partitions, four are there at the start. Equal ids stay together, as they must.
    let staged = Staged::new(world, Load { events: 150_000, rate: 0, duplicates: 0.05, poison: 0.002 }, 6);
    let mut records: Vec<&OwnedMessage> = staged.records.values().flatten().collect();
    records.sort_by_key(|record| (record.offset(), record.partition()));
    let (old, new): (Vec<&OwnedMessage>, Vec<&OwnedMessage>) =
        records.into_iter().partition(|record| record.partition() < 4);
    let config = world.config().with("[[topics]]", "start", "latest");
    let mut pair = [trial.start(&config), trial.start(&config)];
    pair.iter_mut().for_each(Millrace::until_ready);
    let held = |pair: &[Millrace]| pair.iter().map(|it| it.metric("millrace_partitions_assigned")).sum::<f64>();
    let copier = Copier::plain(world);
    let begun = Instant::now();
    let (mut grown, mut unseen, mut noticed) = (None, 0, None);
    let mut late = new.chunks(500);
    for chunk in old.chunks(500).map(Some).chain(std::iter::repeat(None)) {
        chunk.into_iter().flatten().for_each(|record| copier.copy(record, record.partition()));
        if grown.is_none() && begun.elapsed() > Duration::from_secs(3) {
            world.kafka.add_partitions(&topic, 6);
            until("the new partitions are there", PATIENCE, || world.kafka.partitions(&topic) == 6);
            grown = Some(Instant::now());
        }
        let more = if grown.is_some() { late.next() } else { None };
        more.into_iter().flatten().for_each(|record| copier.copy(record, record.partition()));
        copier.flush();
        if noticed.is_none() && held(&pair) < 6.0 {
            unseen += more.map_or(0, <[_]>::len);
        } else {
            noticed = noticed.or_else(|| grown.map(|grown| grown.elapsed()));
        }
        if chunk.is_none() && more.is_none() && noticed.is_some() {
            break;
        }
        assert!(begun.elapsed() < 3 * PATIENCE, "the new partitions were never read");
        thread::sleep(Duration::from_millis(30));
    }
    staged.moved(world, &[&copier]);
    let new = new.len();
    trial.injected(1);
    trial.note(format!(
        "{unseen} of the {new} records of the new partitions were there before these were noticed, {:.1} s after they were made",
        noticed.unwrap_or_default().as_secs_f64()
    ));
    trial.expect(unseen > 0, "the new partitions were read before anything was in them");
    trial.sent(staged.generator);
    pair.into_iter().for_each(|it| trial.keep(it));
}

/// Rows below each of these offsets, by partition.
fn rows_below(trial: &Trial, offsets: &Offsets) -> u64 {
    let table = trial.world.table();
    let below = |(partition, offset): (&i32, &i64)| {
        trial
            .world
            .stack
            .count(&format!("SELECT count() FROM {table} WHERE _partition = {partition} AND _offset < {offset}"))
    };
    offsets.iter().map(below).sum()
}

/// A load of which nothing comes twice, until everything that Kafka still has is committed: lost is what was deleted
/// unread, and not one event more.
fn expect_only_deleted_lost(trial: &mut Trial, generator: &Generator, deleted: &Offsets, millrace: &Millrace) {
    trial.world.until_committed(PATIENCE);
    let unread = deleted.values().sum::<i64>() as u64 - rows_below(trial, deleted);
    let (_, verdict) = trial.world.verify(generator);
    trial.note(format!("{unread} records were deleted unread, {} events have no row", verdict.lost));
    trial.expect(unread > 0, "nothing was deleted unread");
    trial.expect(verdict.lost == unread, format!("{} events lost, {unread} deleted unread: {verdict:?}", verdict.lost));
    expect_said(trial, millrace, RETENTION, deleted.len());
}

/// Of what was not committed at this moment, three quarters.
fn cut(committed: &Offsets, ends: &Offsets) -> Offsets {
    let cut = |at: i64, end: i64| at + (end - at) * 3 / 4;
    ends.iter()
        .map(|(partition, end)| (*partition, cut(committed.get(partition).copied().unwrap_or(0), *end)))
        .collect()
}

const ONCE: Load = Load { events: 100_000, rate: 0, duplicates: 0.0, poison: 0.0 };

/// Sends everything once more: now nothing may be missing, or be there twice.
fn send_again(trial: &mut Trial, first: Generator, millrace: Millrace, arguments: &[&str]) {
    trial.sent(first);
    trial.load_with(Load { poison: 0.002, ..ONCE }, arguments);
    trial.healed();
    trial.keep(millrace);
}

fn retention_while_away(trial: &mut Trial) {
    let (times, topic, config) = (same_times(), trial.world.topic(), trial.world.config());
    let arguments = times.each_ref().map(String::as_str);
    let mut millrace = trial.start(&config);
    millrace.until_ready();
    let mut generator = trial.world.generate_with(Load { rate: 25_000, ..ONCE }, trial.world.seed, &arguments);
    millrace.until("rows have landed", PATIENCE, |it| it.rows() > ONCE.events / 5);
    millrace.terminate();
    let ends = generator.finish().end_offsets;
    let deleted = cut(&trial.world.kafka.committed(&topic), &ends);
    trial.world.kafka.delete_before(&topic, &deleted);
    trial.injected(1);
    expect_stop(trial, RETENTION);
    let millrace = trial.start(&config);
    expect_only_deleted_lost(trial, &generator, &deleted, &millrace);
    send_again(trial, generator, millrace, &arguments);
}

fn retention_while_behind(trial: &mut Trial) {
    let (times, topic) = (same_times(), trial.world.topic());
    let arguments = times.each_ref().map(String::as_str);
    let wire = Wire::to(&trial.world.stack.clickhouse);
    // So little may be on its way that the rest is still in Kafka.
    let config = trial.world.config().with("[clickhouse]", "url", &wire.url(&trial.world.stack.clickhouse));
    let config = config.with_raw("[topics.batch]", "max_rows", "2000").with("[kafka]", "queue_max_bytes", "1MiB");
    let mut millrace = trial.start(&config);
    millrace.until_ready();
    let mut generator = trial.world.generate_with(Load { rate: 25_000, ..ONCE }, trial.world.seed, &arguments);
    millrace.until("rows have landed", PATIENCE, |it| it.rows() > ONCE.events / 5);
    wire.set(Weather::Stalled);
    let ends = generator.finish().end_offsets;
    let deleted = cut(&trial.world.kafka.committed(&topic), &ends);
    trial.world.kafka.delete_before(&topic, &deleted);
    trial.injected(1);
    wire.set(Weather::Clear);
    expect_only_deleted_lost(trial, &generator, &deleted, &millrace);
    // The wire ends with this.
    millrace.terminate();
    let millrace = trial.start(&trial.world.config());
    send_again(trial, generator, millrace, &arguments);
}
