//! The schema registry is away, fails or is slow: schemas that are known go on, one that is not waits, and is no poison.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use millrace_chaos::process::Millrace;
use millrace_chaos::stack::until;
use millrace_chaos::wire::{Weather, Wire};
use millrace_chaos::world::{Load, World};
use serde_json::json;

use super::Case;
use super::crashes::{goes_on, load_for};
use crate::trial::Trial;

const LOAD: Load = Load { events: 330_000, rate: 11_000, duplicates: 0.05, poison: 0.0 };
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes a second of a registry that is slow: a schema takes a second or more.
const SLOW: u32 = 10_000;
/// How long it is away at the start.
const AWAY: Duration = Duration::from_secs(3);

pub(super) fn cases() -> Vec<Case> {
    vec![Case {
        number: 16,
        name: "registry-down",
        what: "the registry is away at the start; later it is away, answers 500, and is slow, while new schemas come",
        rests_on: &[],
        run: registry_down,
    }]
}

/// What ails the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    Away,
    Errors,
    Slow,
}

fn registry_down(trial: &mut Trial) {
    let (real, failing) = (trial.world.stack.registry.clone(), serve_errors());
    let (wire, begun) = (Wire::to(&real), Instant::now());
    wire.set(Weather::Refused);
    let mut millrace = trial.start(&trial.world.config().with("[registry]", "url", &wire.url(&real)));
    trial.load(load_for(trial, LOAD));
    millrace
        .until("it waits for the registry", PATIENCE, |it| !it.lines(&["waiting for the schema registry"]).is_empty());
    thread::sleep(AWAY);
    trial.expect(millrace.readiness().is_some_and(|(status, _)| status == 503), "ready without a registry");
    trial.expect(millrace.is_healthy(), "unhealthy without a registry: it would be restarted in vain");
    wire.set(Weather::Clear);
    millrace.until("rows land", PATIENCE, |it| it.rows() > 0);
    trial.injected(1);

    let mut troubles = [Trouble::Away, Trouble::Errors, Trouble::Slow];
    troubles.rotate_left(trial.random.below(3) as usize);
    let mut waited = Vec::new();
    for (trouble, round) in troubles.iter().cycle().zip(1..) {
        if round > troubles.len() && !goes_on(trial, begun) {
            break;
        }
        match trouble {
            Trouble::Away => wire.set(Weather::Refused),
            Trouble::Errors => wire.lead_to(&failing),
            Trouble::Slow => wire.set(Weather::Slow { bytes: SLOW }),
        }
        // Connections that are open were made before the trouble.
        wire.cut();
        let partition = trial.random.below(4) as i32;
        let event = format!("00000000-2222-4333-8444-{round:012}");
        produce_under_new_schema(&trial.world, partition, &event, round);
        let asked = Instant::now();
        if *trouble != Trouble::Slow {
            expect_it_to_wait(trial, &mut millrace, partition, &event, *trouble);
            wire.lead_to(&real);
            wire.set(Weather::Clear);
        }
        until("the event of a new schema lands", PATIENCE, || count(&trial.world, &event) == 1);
        waited.push(format!("{trouble:?} {:.1} s", asked.elapsed().as_secs_f64()));
        wire.set(Weather::Clear);
        trial.injected(1);
        // Nothing of the generator's: the judge knows no such event.
        let table = trial.world.table();
        trial.world.stack.sql(&format!("DELETE FROM {table} WHERE event_id = '{event}'"));
    }
    trial.healed();
    trial.note(format!("events of schemas nobody had read of landed after {}", waited.join(", ")));
    let letters = trial.world.dead_letters().0.len();
    trial.expect(letters == 0, format!("{letters} dead letters: an event that waits is no poison"));
    trial.keep(millrace);
    trial.lasts(wire);
}

/// The partition of the event stands, and all the others go on.
fn expect_it_to_wait(trial: &mut Trial, millrace: &mut Millrace, partition: i32, event: &str, trouble: Trouble) {
    let topic = trial.world.topic();
    let before = millrace.lines(&["WARN", "the registry does not answer"]).len();
    millrace.until("it says that the registry does not answer", PATIENCE, |it| {
        it.lines(&["WARN", "the registry does not answer"]).len() > before
    });
    let stands = trial.world.kafka.committed(&topic);
    let rows = millrace.rows();
    millrace.until("the others go on", PATIENCE, |it| it.rows() > rows + 5_000);
    // What was in flight as the first look was taken may have been committed since, but no more.
    let middle = trial.world.kafka.committed(&topic);
    let rows = millrace.rows();
    millrace.until("the others go on", PATIENCE, |it| it.rows() > rows + 5_000);
    let now = trial.world.kafka.committed(&topic);
    let others = (0..4).filter(|other| *other != partition).all(|other| now[&other] > stands[&other]);
    trial.expect(others, format!("{trouble:?}: partitions of known schemas stand: {stands:?}, {now:?}"));
    trial.expect(now[&partition] == middle[&partition], format!("{trouble:?}: the event's partition went on"));
    trial.expect(count(&trial.world, event) == 0, format!("{trouble:?}: the event has landed without its schema"));
}

fn count(world: &World, event: &str) -> u64 {
    world.stack.count(&format!("SELECT count() FROM {} WHERE event_id = '{event}'", world.table()))
}

/// An event like the first of its partition, under a schema with one more field; `added` of them in all.
fn produce_under_new_schema(world: &World, partition: i32, event: &str, added: usize) {
    let topic = world.topic();
    let subject = format!("{topic}-value");
    let mut schema = world.stack.latest_schema(&subject);
    let field = json!({ "name": format!("note_{added}"), "type": ["null", "string"], "default": null });
    schema["fields"].as_array_mut().unwrap().push(field);
    let id = world.stack.register(&subject, &schema);
    let value = world.kafka.first_value(&topic, partition);
    // Magic byte, schema id; then the first field: its length, and 36 characters; at the end each added field, null.
    let head = [&[0][..], &id.to_be_bytes(), &value[5..6], event.as_bytes()].concat();
    let value = [&head[..], &value[42..], &vec![0; added]].concat();
    world.kafka.produce(&topic, partition, event, &value);
}

/// A server that answers 500 to whatever it is asked, for as long as this process lives.
fn serve_errors() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = vec![0; 1 << 14];
            // Whoever leaves before the answer needs none.
            _ = stream.read(&mut request);
            _ = stream
                .write_all(b"HTTP/1.1 500 Internal Server Error\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        }
    });
    address
}
