//! A process that sleeps past its session with inserts on their way, and wakes up when another has taken over.

use std::time::Duration;

use rustix::process::Signal;

use millrace_chaos::proxy::{Fault, Proxy};
use millrace_chaos::stack::until;
use millrace_chaos::world::{Load, Verdict, World};

/// A session ends after 6 s, and a half-sent body after the server's receive timeout of 30 s.
const PATIENCE: Duration = Duration::from_secs(50);

/// What a zombie did and what it met.
struct Awoken {
    verdict: Verdict,
    refusals: u64,
    stopped_by_the_heir: usize,
}

/// Lets a process fall asleep while its inserts are held back after `passed` bytes, lets another take over and finish,
/// then lets the inserts go on and wakes the process. `claims` is the sleeper's table of claims.
fn zombie(world: &World, passed: usize, claims: &str) -> Awoken {
    let proxy = Proxy::to(&world.stack.clickhouse);
    let config = world.config();
    let away = config.clone().with("[clickhouse]", "url", &proxy.url(&world.stack.clickhouse));
    // Batches of 2 MB and more.
    let away = away.with("[topics.batch]", "max_age", "1s").with("[clickhouse]", "claims_table", claims);
    let mut zombie = world.start(&away);
    zombie.until_ready();
    let mut generator = world.generate(Load { events: 60_000, rate: 20_000, duplicates: 0.05, poison: 0.002 });
    zombie.until("rows have landed", PATIENCE, |it| it.rows() > 5_000);
    proxy.fail(Fault::Hold { after: passed }, u32::MAX);
    until("inserts have been sent to their ends", PATIENCE, || proxy.held_whole() > 0);
    zombie.signal(Signal::STOP);

    let mut heir = world.start(&config);
    heir.until("it takes over after the session timeout", PATIENCE, |it| it.rows() > 0);
    let manifest = generator.finish();
    world.until_committed(PATIENCE);
    proxy.mend();
    zombie.signal(Signal::CONT);
    // It comes back as a member of the group, and has heard by then what became of its inserts.
    zombie.until("it has partitions again", PATIENCE, |it| {
        it.metric("millrace_inserts_in_flight") == 0.0 && it.lines(&["partition is read"]).len() > 4
    });
    let refusals = zombie.metric("millrace_fence_refusals_total") as u64;
    let stopped_by_the_heir = heir.lines(&["inserts of an earlier owner were stopped"]).len();
    zombie.terminate();
    heir.terminate();
    let (_, verdict) = world.verify(&generator);
    assert_eq!((verdict.lost, verdict.wrong, verdict.dead_letters_missing), (0, 0, 0), "{verdict:?}");
    if verdict.doubled == 0 {
        world.assert_every_row_landed_once(&generator, &manifest);
    }
    Awoken { verdict, refusals, stopped_by_the_heir }
}

#[test]
fn a_zombie_whose_insert_arrives_late_is_refused() {
    let world = World::new("zombie");
    let awoken = zombie(&world, 0, "claims");
    assert_eq!(awoken.verdict.doubled, 0, "{:?}", awoken.verdict);
    assert!(awoken.refusals > 0, "ClickHouse refused nothing");
}

#[test]
fn a_zombie_whose_insert_is_half_sent_is_stopped() {
    let world = World::new("half");
    // The server begins when it has the first chunk, which is 1 MiB long; less would only arrive late.
    let awoken = zombie(&world, 1_500_000, "claims");
    assert_eq!(awoken.verdict.doubled, 0, "{:?}", awoken.verdict);
    assert!(awoken.stopped_by_the_heir > 0, "the heir found no insert to stop");
}

/// The negative control: without the fence the same sleeper doubles rows.
#[test]
fn without_common_claims_a_zombie_doubles_rows() {
    let world = World::new("unfenced");
    let database = &world.database;
    world.stack.sql(&format!("CREATE TABLE {database}.claims_of_the_sleeper AS {database}.claims"));
    let awoken = zombie(&world, 0, "claims_of_the_sleeper");
    assert_eq!(awoken.refusals, 0);
    assert!(awoken.verdict.doubled > 0, "{:?}", awoken.verdict);
}
