//! What arrives while nothing fails, and what the judge says when something is amiss.

use std::time::Duration;

use millrace_chaos::world::{Load, World};

#[test]
fn everything_sent_lands_once() {
    let world = World::new("delivery");
    let mut millrace = world.start(&world.config());
    millrace.until_ready();
    let mut generator = world.generate(Load { events: 150_000, rate: 30_000, duplicates: 0.05, poison: 0.01 });
    let manifest = generator.finish();
    assert!(manifest.duplicates > 5_000 && manifest.poison.len() > 1_000, "{manifest:?}");
    world.until_committed(Duration::from_secs(30));

    let metric = |name: &str| millrace.metric(&format!("millrace_{name}_total")) as u64;
    let counted = [metric("rows_inserted"), metric("duplicates_dropped"), metric("dead_letters"), metric("events")];
    assert_eq!(counted, [manifest.events, manifest.duplicates, manifest.poison.len() as u64, manifest.delivered]);
    assert_eq!(metric("insert_retries") + metric("fence_refusals"), 0);
    millrace.terminate();
    world.assert_everything_landed_once(&generator, &manifest);
}

/// The negative control of all other tests: a judge that never says no proves nothing.
#[test]
fn the_judge_sees_one_row_too_few_and_one_too_many() {
    let world = World::new("judge");
    let mut millrace = world.start(&world.config());
    let mut generator = world.generate(Load { events: 5_000, rate: 0, duplicates: 0.05, poison: 0.01 });
    let manifest = generator.finish();
    world.until_committed(Duration::from_secs(30));
    millrace.terminate();
    world.assert_everything_landed_once(&generator, &manifest);

    let (table, stack) = (world.table(), &world.stack);
    let id = stack.sql(&format!("SELECT event_id FROM {table} ORDER BY event_id LIMIT 1"));
    stack.sql(&format!("CREATE TABLE {table}_kept AS {table}"));
    stack.sql(&format!("INSERT INTO {table}_kept SELECT * FROM {table} WHERE event_id = '{id}'"));
    stack.sql(&format!("ALTER TABLE {table} DELETE WHERE event_id = '{id}' SETTINGS mutations_sync = 2"));
    let (status, verdict) = world.verify(&generator);
    assert_eq!((status.code(), verdict.lost, verdict.doubled), (Some(1), 1, 0), "{verdict:?}");

    // One insert deduplicates by content what another already inserted; so the second copy is told to differ.
    for token in ["one", "two"] {
        stack.sql(&format!(
            "INSERT INTO {table} SETTINGS insert_deduplication_token = '{token}' SELECT * FROM {table}_kept"
        ));
    }
    let (status, verdict) = world.verify(&generator);
    assert_eq!((status.code(), verdict.lost, verdict.doubled), (Some(1), 0, 1), "{verdict:?}");
}
