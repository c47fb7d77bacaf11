//! Processes that leave or die under load, and those that come after them.

use std::time::Duration;

use rustix::process::Signal;

use millrace_chaos::config::Config;
use millrace_chaos::proxy::{Fault, Proxy};
use millrace_chaos::stack::until;
use millrace_chaos::world::{Load, Random, World};

#[test]
fn nothing_is_lost_or_doubled_when_millrace_is_killed_under_load() {
    let world = World::new("kill");
    let mut random = Random(world.seed);
    // A process that bears the name of the one before it takes its partitions over at once.
    let config = world.config().with("[kafka.properties]", "\"group.instance.id\"", "e2e");
    let mut generator = world.generate(Load { events: 400_000, rate: 30_000, duplicates: 0.05, poison: 0.002 });
    let (mut kills, mut kills_after_rows) = (0, 0);
    while generator.is_sending() {
        let millrace = &mut world.start(&other_settings(&config, &mut random));
        // The moment is the fault that is tried here, and waits for nothing.
        std::thread::sleep(Duration::from_millis(400 + random.below(2200)));
        kills_after_rows += u32::from(millrace.rows() > 0);
        millrace.kill();
        kills += 1;
    }
    println!("killed {kills} times, {kills_after_rows} of them after rows had landed");
    assert!(kills_after_rows >= 3, "it was never killed while it worked");

    let manifest = generator.finish();
    let mut millrace = world.start(&config);
    millrace.until_ready();
    world.until_committed(Duration::from_secs(60));
    millrace.terminate();
    world.assert_every_row_landed_once(&generator, &manifest);
}

/// A restart may bring other settings for batches.
fn other_settings(config: &Config, random: &mut Random) -> Config {
    let rows = [2_000, 20_000, 200_000][random.below(3) as usize];
    config
        .clone()
        .with("[topics.batch]", "max_age", &format!("{}ms", 20 + random.below(500)))
        .with_raw("[topics.batch]", "max_rows", &rows.to_string())
        .with_raw("[clickhouse]", "inserts_in_flight", &(1 + random.below(4)).to_string())
}

#[test]
fn sigterm_drains_and_hands_over() {
    let world = World::new("sigterm");
    let mut generator = world.generate(Load { events: 250_000, rate: 20_000, duplicates: 0.05, poison: 0.01 });
    for _ in 0..3 {
        let mut millrace = world.start(&world.config());
        millrace.until("rows have landed", Duration::from_secs(30), |it| it.rows() > 10_000);
        assert!(generator.is_sending(), "the load ended too early for this test");
        millrace.terminate();
    }
    let manifest = generator.finish();
    let mut millrace = world.start(&world.config());
    world.until_committed(Duration::from_secs(30));
    millrace.terminate();
    assert_eq!(world.kafka.committed(&world.topic()), manifest.end_offsets);
    world.assert_everything_landed_once(&generator, &manifest);
}

#[test]
fn a_second_sigterm_leaves_at_once_and_loses_nothing() {
    let world = World::new("hurry");
    let proxy = Proxy::to(&world.stack.clickhouse);
    let config = world.config().with("[clickhouse]", "url", &proxy.url(&world.stack.clickhouse));
    let mut millrace = world.start(&config);
    millrace.until_ready();
    proxy.fail(Fault::Hold { after: 0 }, u32::MAX);
    let mut generator = world.generate(Load { events: 30_000, rate: 0, duplicates: 0.05, poison: 0.01 });
    until("inserts hang", Duration::from_secs(20), || proxy.hits() > 0);
    millrace.signal(Signal::TERM);
    millrace.until("it drains", Duration::from_secs(10), |it| !it.lines(&["draining"]).is_empty());
    millrace.signal(Signal::TERM);
    let (_, took) = millrace.wait(Duration::from_secs(10));
    assert!(took < Duration::from_secs(5), "the second SIGTERM took {took:?}");
    proxy.mend();

    let manifest = generator.finish();
    let mut millrace = world.start(&config);
    world.until_committed(Duration::from_secs(40));
    millrace.terminate();
    world.assert_every_row_landed_once(&generator, &manifest);
}
