//! Reference topics that are slow, empty, or changed while events are read again.

use std::time::{Duration, Instant};

use millrace_chaos::config::Config;
use millrace_chaos::process::Millrace;
use millrace_chaos::wire::{Weather, Wire};
use millrace_chaos::world::{Load, World};
use rdkafka::Message;
use rdkafka::message::OwnedMessage;

use super::{Case, same_times};
use crate::trial::Trial;

const PATIENCE: Duration = Duration::from_secs(60);
const SMALL: Load = Load { events: 5_000, rate: 0, duplicates: 0.05, poison: 0.01 };

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case {
            number: 20,
            name: "references-slow-and-changed",
            what: "reference topics come slowly; then a record changes while the topic is read a second time",
            rests_on: &[],
            run: slow_and_changed,
        },
        Case {
            number: 20,
            name: "references-empty",
            what: "a reference topic is empty, under each policy for a miss, and is filled while events wait",
            rests_on: &[],
            run: empty,
        },
    ]
}

fn slow_and_changed(trial: &mut Trial) {
    trial.without_rollups();
    let (stack, times) = (&trial.world.stack, same_times());
    let arguments = times.each_ref().map(String::as_str);
    let wire = Wire::between(&stack.kafka_proxy, &stack.kafka_proxied);
    let slow = trial.world.config().with("[kafka]", "bootstrap_servers", &wire.address());
    let load = Load { events: 100_000, rate: 0, duplicates: 0.05, poison: 0.002 };
    trial.load_with(load, &arguments);
    trial.generator().finish();
    wire.set(Weather::Slow { bytes: 900_000 });
    let (mut millrace, begun) = (trial.start(&slow), Instant::now());
    trial.injected(1);
    let waits =
        |it: &Millrace| it.readiness().is_some_and(|(status, text)| status == 503 && text.contains("reference"));
    millrace.until("it waits for its reference topics", PATIENCE, waits);
    let (mut rows, mut looks) = (0, 0);
    while waits(&millrace) {
        rows = rows.max(trial.world.stack.count(&format!("SELECT count() FROM {}", trial.world.table())));
        looks += 1;
    }
    trial.note(format!(
        "reference topics took {:.1} s; {looks} looks meanwhile found {rows} rows",
        begun.elapsed().as_secs_f64()
    ));
    trial.expect(looks > 20 && begun.elapsed() > Duration::from_secs(4), "the reference topics were not slow");
    trial.expect(rows == 0, format!("{rows} rows landed before the reference topics were whole"));
    wire.set(Weather::Clear);
    trial.world.until_committed(PATIENCE);
    millrace.terminate();

    // Everything is read again from the beginning, by a process that knows of another segment of the busiest customer.
    let before = digest(&trial.world);
    let changed = Changed::new(&trial.world);
    changed.publish(&trial.world, &changed.other);
    let topic = trial.world.topic();
    let beginning = (0..4).map(|partition| (partition, 0)).collect();
    trial.world.kafka.commit_offsets(&topic, &beginning);
    trial.injected(1);
    let mut millrace = trial.start(&trial.world.config());
    trial.world.until_committed(PATIENCE);
    millrace.until("all of it was read again", PATIENCE, |it| {
        it.metric("millrace_duplicates_dropped_total") as u64 >= load.events
    });
    trial.expect(before == digest(&trial.world), "reading again changed rows that had landed");
    let seen = changed.probe(&trial.world, 1);
    trial.expect(seen != changed.was, format!("an event of {} still found {seen}", changed.customer));
    changed.publish(&trial.world, changed.record.payload().unwrap());
    let mut back = changed.probe(&trial.world, 2);
    for number in 3..50 {
        if back == changed.was {
            break;
        }
        back = changed.probe(&trial.world, number);
    }
    trial.note(format!(
        "{} was `{}`, then `{seen}` for a new event, then `{back}` again",
        changed.customer, changed.was
    ));
    trial.load_with(Load { events: 2 * load.events, ..load }, &arguments);
    trial.healed();
    trial.keep(millrace);
}

/// What all rows say.
fn digest(world: &World) -> String {
    world.stack.sql(&format!("SELECT count(), sum(cityHash64(*)) FROM {}", world.table()))
}

/// A reference record with another in its place.
struct Changed {
    customer: String,
    was: String,
    record: OwnedMessage,
    other: Vec<u8>,
    event: OwnedMessage,
}

impl Changed {
    fn new(world: &World) -> Self {
        let busiest = format!(
            "SELECT customer_id, any(customer_segment) FROM {} WHERE customer_segment IS NOT NULL GROUP BY 1 ORDER BY count() DESC LIMIT 1",
            world.table()
        );
        let answer = world.stack.sql(&busiest);
        let (customer, was) = answer.split_once('\t').unwrap();
        let records = world.kafka.records(&world.reference_topic("customers"));
        let mut records: Vec<OwnedMessage> = records.into_values().flatten().collect();
        // Magic byte, schema id, length of the id; the id; the segment as length and text.
        let tail = 6 + customer.len();
        let segment = |record: &OwnedMessage| record.payload().unwrap()[tail + 1..].starts_with(was.as_bytes());
        let other = records.iter().find(|record| !segment(record)).unwrap().payload().unwrap()[tail..].to_vec();
        let at = records.iter().position(|record| record.key() == Some(customer.as_bytes())).unwrap();
        let record = records.swap_remove(at);
        let other = [&record.payload().unwrap()[..tail], &other].concat();
        let holds = |event: &OwnedMessage| {
            let value = event.payload().unwrap();
            value.windows(customer.len()).any(|window| window == customer.as_bytes()) && value.len() > 100
        };
        let landed = |event: &OwnedMessage| {
            let (partition, offset) = (event.partition(), event.offset());
            world.stack.count(&format!(
                "SELECT count() FROM {} WHERE _partition = {partition} AND _offset = {offset}",
                world.table()
            )) == 1
        };
        let events = world.kafka.records(&world.topic()).into_values().flatten();
        let event = events.filter(holds).find(landed).unwrap();
        Self { customer: customer.to_owned(), was: was.to_owned(), record, other, event }
    }

    fn publish(&self, world: &World, value: &[u8]) {
        world.kafka.produce(&world.reference_topic("customers"), self.record.partition(), &self.customer, value);
    }

    /// The segment that an event of the customer finds which nobody has seen before; its row is taken away again.
    fn probe(&self, world: &World, number: u32) -> String {
        let id = format!("00000000-0000-4000-8000-{number:012}");
        let value = self.event.payload().unwrap();
        let value = [&value[..6], id.as_bytes(), &value[42..]].concat();
        world.kafka.produce(&world.topic(), self.event.partition(), &id, &value);
        world.until_committed(PATIENCE);
        let (table, row) = (world.table(), format!("WHERE event_id = '{id}'"));
        let found = world.stack.sql(&format!("SELECT customer_segment FROM {table} {row}"));
        world.stack.sql(&format!("ALTER TABLE {table} DELETE {row} SETTINGS mutations_sync = 2"));
        found
    }
}

fn empty(trial: &mut Trial) {
    // A world of its own: its rows are not what the generator's manifest says they are.
    let side = World::seeded("references_null", trial.world.seed);
    let times = same_times();
    let arguments = times.each_ref().map(String::as_str);
    let config = without_customers(&side);
    let mut millrace = side.start(&config.clone().with("[[topics.lookups]]", "miss", "null"));
    let first = side.generate_with(SMALL, side.seed, &arguments).finish();
    side.until_committed(PATIENCE);
    millrace.terminate();
    let count = |what: &str| side.stack.count(&format!("SELECT {what} FROM {}", side.table()));
    let nulls =
        count("countIf(customer_segment IS NULL AND customer_country IS NULL AND customer_signup_date IS NULL)");
    let products = count("countIf(arrayExists(category -> category IS NOT NULL, items.category))");
    trial.injected(1);
    trial.expect([count("count()"), nulls] == [first.events; 2], "null: not every event landed with nulls");
    trial.expect(products > first.events * 9 / 10, "null: the other lookup was not done");

    // Every event lacks its customer: the limit on dead letters would stop the topic.
    let config = config.with_raw("[topics.dead_letters]", "max_share", "1.0");
    let mut millrace = side.start(&config.with("[[topics.lookups]]", "miss", "dead_letter"));
    let second = side.generate_with(Load { events: 2 * SMALL.events, ..SMALL }, side.seed, &arguments).finish();
    side.until_committed(PATIENCE);
    millrace.terminate();
    let letters = side.kafka.dead_letters(&side.dead_letter_topic());
    let missed = letters.iter().filter(|letter| letter["millrace.reason"] == "lookup_missed").count() as u64;
    let unreadable = (first.poison.len() + second.poison.len()) as u64;
    trial.injected(1);
    trial.note(format!("null: {} rows without a customer; dead_letter: {missed} letters of missing customers", nulls));
    trial.expect(count("count()") == first.events, "dead_letter: an event without its customer landed");
    // An event without its customer leaves a letter each time that it comes.
    trial.expect(
        missed >= SMALL.events && letters.len() as u64 == missed + unreadable,
        format!("dead_letter: {} letters", letters.len()),
    );
    drop(side);

    let world = &trial.world;
    let config = without_customers(world).with("[[topics.lookups]]", "miss", "wait");
    let config = config.with("[[topics.lookups]]", "wait_timeout", "8s");
    let mut millrace = trial.start(&config);
    millrace.until_ready();
    let records = trial.world.kafka.records(&trial.world.reference_topic("customers"));
    trial.load(Load { events: 3_000, ..SMALL });
    trial.generator().finish();
    trial.injected(1);
    let held = Duration::from_secs(3);
    std::thread::sleep(held);
    let early = trial.world.stack.count(&format!("SELECT count() FROM {}", trial.world.table()));
    trial.expect(early == 0, format!("wait: {early} rows landed before their customers were there"));
    trial.world.kafka.refill(&nobody(&trial.world), &records);
    let filled = Instant::now();
    trial.healed();
    trial.world.until_committed(PATIENCE);
    trial.note(format!(
        "wait: nothing landed for {held:?}, and all of it {:.1} s after the topic was filled; guests waited for 8 s in vain",
        filled.elapsed().as_secs_f64()
    ));
    trial.world.kafka.delete(&[&nobody(&trial.world)]);
    trial.keep(millrace);
}

/// A topic of customers that is empty.
fn nobody(world: &World) -> String {
    world.reference_topic("nobody")
}

/// The configuration with an empty topic of customers.
fn without_customers(world: &World) -> Config {
    world.kafka.create(&nobody(world), 4, &[("cleanup.policy", "compact")]);
    // Its records are read by the schema of its own subject.
    world.stack.register(
        &format!("{}-value", nobody(world)),
        &world.stack.latest_schema(&format!("{}-value", world.reference_topic("customers"))),
    );
    world.config().with_reference(&world.reference_topic("customers"), &nobody(world))
}
