//! Partitions that move from one process to another under load.

use std::time::Duration;

use millrace_chaos::world::{Load, World};

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn partitions_move_between_two_consumers_and_back() {
    let world = World::new("move");
    let config = world.config();
    let mut first = world.start(&config);
    first.until_ready();
    let mut generator = world.generate(Load { events: 350_000, rate: 25_000, duplicates: 0.05, poison: 0.002 });
    first.until("rows have landed", PATIENCE, |it| it.rows() > 20_000);

    let held = |it: &millrace_chaos::process::Millrace| it.metric("millrace_partitions_assigned") as u32;
    let mut second = world.start(&config);
    second.until("half of the partitions are its own", PATIENCE, |it| held(it) == 2 && it.rows() > 1_000);
    first.until("it has given half away", PATIENCE, |it| held(it) == 2);

    first.terminate();
    second.until("all partitions are its own", PATIENCE, |it| held(it) == 4);
    let rows = second.rows();
    second.until("it reads on", PATIENCE, |it| it.rows() > rows + 10_000);

    assert!(generator.is_sending(), "the load ended too early for this test");
    second.kill();
    let mut third = world.start(&config);
    third.until("it has them after the session timeout", PATIENCE, |it| held(it) == 4 && it.rows() > 0);
    let manifest = generator.finish();
    world.until_committed(PATIENCE);
    third.terminate();
    world.assert_every_row_landed_once(&generator, &manifest);
}
