//! A schema that nobody has heard of yet, while the registry is away and when it is back.

use std::time::Duration;

use serde_json::json;

use millrace_chaos::proxy::Proxy;
use millrace_chaos::stack::until;
use millrace_chaos::world::{Load, World};

const PATIENCE: Duration = Duration::from_secs(30);
const LOAD: Load = Load { events: 10_000, rate: 0, duplicates: 0.0, poison: 0.0 };
/// The registry answers 404 for it.
const ABSENT: u32 = 987_654_321;

/// The value of a record with another schema id and event id.
fn changed(value: &[u8], schema_id: u32, event_id: &str, appended: &[u8]) -> Vec<u8> {
    // Magic byte, schema id; then the first field: its length, and 36 characters.
    let mut changed = [&[0][..], &schema_id.to_be_bytes(), &value[5..6], event_id.as_bytes(), &value[42..]].concat();
    changed.extend_from_slice(appended);
    changed
}

#[test]
fn an_unknown_schema_waits_for_the_registry_and_known_ones_go_on() {
    let world = World::new("schema");
    let (topic, table) = (world.topic(), world.table());
    let proxy = Proxy::to(&world.stack.registry);
    let mut millrace = world.start(&world.config().with("[registry]", "url", &proxy.url(&world.stack.registry)));
    millrace.until_ready();
    world.generate(LOAD).finish();
    world.until_committed(PATIENCE);

    // The schema of the producers gets a field, and the registry goes away before anybody has read of it.
    let subject = format!("{topic}-value");
    let mut schema = world.stack.latest_schema(&subject);
    let field = json!({ "name": "note", "type": ["null", "string"], "default": null });
    schema["fields"].as_array_mut().unwrap().push(field);
    let id = world.stack.register(&subject, &schema);
    proxy.set_open(false);
    let (waiting, absent) = ("11111111-2222-4333-8444-555555555555", "99999999-2222-4333-8444-555555555555");
    let value = world.kafka.first_value(&topic, 0);
    let waits_at = world.kafka.ends(&topic)[&0];
    world.kafka.produce(&topic, 0, waiting, &changed(&value, id, waiting, &[0]));
    let mut generator = world.generate_with(LOAD, world.seed + 1, &[]);
    let ends = generator.finish().end_offsets;

    until("the other partitions go on", PATIENCE, || {
        let committed = world.kafka.committed(&topic);
        (1..4).all(|partition| committed[&partition] == ends[&partition])
    });
    millrace.until("it says why", PATIENCE, |it| !it.lines(&["WARN", "the registry does not answer"]).is_empty());
    assert_eq!(world.kafka.committed(&topic)[&0], waits_at);
    assert_eq!(
        world.stack.count(&format!("SELECT count() FROM {table} WHERE _partition = 0 AND _offset >= {waits_at}")),
        0
    );
    assert_eq!(world.kafka.dead_letters(&world.dead_letter_topic()).len(), 0);

    proxy.set_open(true);
    world.until_committed(PATIENCE);
    let rows = |id: &str| world.stack.count(&format!("SELECT count() FROM {table} WHERE event_id = '{id}'"));
    assert_eq!(rows(waiting), 1);
    let all = 2 * LOAD.events + 1;
    assert_eq!(world.stack.count(&format!("SELECT uniqExact(event_id) FROM {table}")), all);

    // A registry that is well and has no such schema: that is poison, and the partition moves on.
    let place = world.kafka.ends(&topic)[&1];
    world.kafka.produce(&topic, 1, absent, &changed(&value, ABSENT, absent, &[]));
    world.kafka.produce(&topic, 1, absent, &changed(&value, id, absent, &[0]));
    world.until_committed(PATIENCE);
    let letters = world.kafka.dead_letters(&world.dead_letter_topic());
    let header = |name: &str| letters[0][&format!("millrace.{name}")].clone();
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!((header("reason"), header("schema_id")), ("unknown_schema_id".to_owned(), ABSENT.to_string()));
    assert_eq!((header("source.partition"), header("source.offset")), ("1".to_owned(), place.to_string()));
    assert_eq!(rows(absent), 1, "the same event under a known schema");
    assert_eq!(world.stack.count(&format!("SELECT count() FROM {table}")), all + 1);
    millrace.terminate();
}
