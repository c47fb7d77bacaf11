//! The way to ClickHouse fails: answers are lost, bodies are cut, connections are refused.

use std::time::{Duration, Instant};

use millrace_chaos::proxy::{Fault, Proxy};
use millrace_chaos::stack::until;
use millrace_chaos::world::{Load, Verdict, World};

const PATIENCE: Duration = Duration::from_secs(30);

/// Lets an insert meet each of `faults` under load; the first lines of answers that were lost, and the verdict.
fn run_with(world: &World, faults: &[Fault]) -> (Vec<String>, Verdict) {
    let proxy = Proxy::to(&world.stack.clickhouse);
    let config = world.config().with("[clickhouse]", "url", &proxy.url(&world.stack.clickhouse)).with(
        "[topics.batch]",
        "max_age",
        "400ms",
    );
    let mut millrace = world.start(&config);
    millrace.until_ready();
    let mut generator = world.generate(Load { events: 200_000, rate: 25_000, duplicates: 0.05, poison: 0.005 });
    for (fault, hits) in faults.iter().zip(1..) {
        let rows = millrace.rows();
        millrace.until("rows land again", PATIENCE, |it| it.rows() > rows + 1_000);
        proxy.fail(*fault, 1);
        until("an insert has met the fault", PATIENCE, || proxy.hits() == hits);
    }
    let manifest = generator.finish();
    world.until_committed(PATIENCE);
    assert!(millrace.metric("millrace_insert_retries_total") >= faults.len() as f64);
    assert_eq!(millrace.metric("millrace_fence_refusals_total"), 0.0);
    millrace.terminate();
    let (_, verdict) = world.verify(&generator);
    if verdict.doubled == 0 {
        world.assert_everything_landed_once(&generator, &manifest);
    }
    (proxy.lost(), verdict)
}

#[test]
fn a_lost_answer_leaves_no_second_copy() {
    let world = World::new("answer");
    let (lost, verdict) = run_with(&world, &[Fault::LoseAnswer; 4]);
    assert!(lost.iter().all(|line| line.starts_with("HTTP/1.1 200")), "{lost:?}");
    assert_eq!(verdict.doubled, 0, "{verdict:?}");
}

/// The negative control: the answers that were lost were those of inserts that had been applied.
#[test]
fn without_tokens_a_lost_answer_doubles_rows() {
    let world = World::new("tokenless");
    let table = world.table();
    world.stack.sql(&format!("ALTER TABLE {table} MODIFY SETTING non_replicated_deduplication_window = 0"));
    let (_, verdict) = run_with(&world, &[Fault::LoseAnswer; 4]);
    assert!(verdict.doubled > 0, "{verdict:?}");
}

#[test]
fn a_body_cut_half_way_leaves_no_rows() {
    let world = World::new("cut");
    // The server begins when it has the first chunk of the body, which is 1 MiB long if there is so much.
    let (early, late) = (Fault::CutBody { after: 20_000 }, Fault::CutBody { after: 1_200_000 });
    let (_, verdict) = run_with(&world, &[early, late, late, late]);
    assert_eq!(verdict.doubled, 0, "{verdict:?}");
}

#[test]
fn clickhouse_away_for_ten_seconds_costs_nothing() {
    let world = World::new("away");
    let proxy = Proxy::to(&world.stack.clickhouse);
    let mut millrace = world.start(&world.config().with("[clickhouse]", "url", &proxy.url(&world.stack.clickhouse)));
    millrace.until_ready();
    let mut generator = world.generate(Load { events: 300_000, rate: 25_000, duplicates: 0.05, poison: 0.005 });
    millrace.until("rows have landed", PATIENCE, |it| it.rows() > 10_000);

    proxy.set_open(false);
    let begun = Instant::now();
    millrace.until("ten seconds are over", PATIENCE, |_| begun.elapsed() >= Duration::from_secs(10));
    let rows = millrace.rows();
    proxy.set_open(true);
    let back = Instant::now();
    millrace.until("rows land again", PATIENCE, |it| it.rows() > rows);
    println!("rows landed {:?} after ClickHouse was back", back.elapsed());

    let manifest = generator.finish();
    world.until_committed(PATIENCE);
    assert_eq!(millrace.metric("millrace_rebalances_total"), 1.0, "the group has to stay as it is");
    millrace.terminate();
    world.assert_everything_landed_once(&generator, &manifest);
}
