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
use crate::trial::Trial;

/// Sent anew with each trouble, so that the other partitions have something to go on with: after the first time, duplicates.
const LOAD: Load = Load { events: 80_000, rate: 10_000, duplicates: 0.05, poison: 0.0 };
const PATIENCE: Duration = Duration::from_secs(90);
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
    trial.without_rollups();
    wire.set(Weather::Refused);
    let mut millrace = trial.start(&trial.world.config().with("[registry]", "url", &wire.url(&real)));
    trial.load(LOAD);
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
    let (table, mut waited) = (trial.world.table(), Vec::new());
    for (trouble, round) in troubles.iter().cycle().zip(1..) {
        if round > troubles.len() && trial.time.is_none_or(|time| begun.elapsed() > time) {
            break;
        }
        trial.load(LOAD);
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
        let stood_at = (*trouble != Trouble::Slow).then(|| {
            let stood_at = others_go_on(trial, &mut millrace, partition);
            trial.expect(count(&trial.world, &event) == 0, format!("{trouble:?}: it has landed without its schema"));
            wire.lead_to(&real);
            wire.set(Weather::Clear);
            stood_at
        });
        until("the event of a new schema lands", PATIENCE, || count(&trial.world, &event) == 1);
        let offset = trial.world.stack.count(&format!("SELECT _offset FROM {table} WHERE event_id = '{event}'"));
        let passed = stood_at.is_some_and(|at| at > offset as i64);
        trial.expect(!passed, format!("{trouble:?}: its partition was committed beyond it while it waited"));
        waited.push(format!("{trouble:?} {:.1} s", asked.elapsed().as_secs_f64()));
        wire.set(Weather::Clear);
        trial.injected(1);
        // Nothing of the generator's: the judge knows no such event.
        trial.world.stack.sql(&format!("DELETE FROM {table} WHERE event_id = '{event}'"));
    }
    trial.healed();
    trial.note(format!("events of schemas nobody had read of landed after {}", waited.join(", ")));
    let letters = trial.world.dead_letters().0.len();
    trial.expect(letters == 0, format!("{letters} dead letters: an event that waits is no poison"));
    trial.keep(millrace);
    trial.lasts(wire);
}

/// Waits until the registry has been asked in vain and all partitions but one go on; where that one stands then.
fn others_go_on(trial: &Trial, millrace: &mut Millrace, partition: i32) -> i64 {
    let topic = trial.world.topic();
    let asked = |it: &Millrace| it.lines(&["WARN", "the registry does not answer"]).len();
    let before = asked(millrace);
    millrace.until("it says that the registry does not answer", PATIENCE, |it| asked(it) > before);
    let since = trial.world.kafka.committed(&topic);
    let mut now = since.clone();
    until("the other partitions go on", PATIENCE, || {
        now = trial.world.kafka.committed(&topic);
        (0..4).filter(|other| *other != partition).all(|other| now[&other] > since[&other] + 1_000)
    });
    now[&partition]
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
