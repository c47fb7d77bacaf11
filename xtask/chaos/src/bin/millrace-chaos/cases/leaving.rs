//! Processes that are told to leave.

use std::time::Duration;

use millrace_chaos::proxy::{Fault, Proxy};
use millrace_chaos::stack::until;
use millrace_chaos::world::{Load, World};
use rustix::process::Signal;

use super::Case;
use crate::trial::Trial;

const LOAD: Load = Load { events: 300_000, rate: 20_000, duplicates: 0.05, poison: 0.01 };
const PATIENCE: Duration = Duration::from_secs(30);
/// At once, on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(2);

pub(super) fn cases() -> Vec<Case> {
    vec![Case { number: 22, name: "sigterm", what: "SIGTERM under load, once and twice", rests_on: &[], run: sigterm }]
}

fn sigterm(trial: &mut Trial) {
    let config = trial.world.config();
    trial.load(LOAD);
    for _ in 0..3 {
        let mut millrace = trial.start(&config);
        millrace.until("rows have landed", PATIENCE, |it| it.rows() > 5_000);
        let loading = trial.is_loading();
        trial.expect(loading, "the load ended too early");
        // Checks that it ends well within its deadline, and says that everything landed.
        millrace.terminate();
        trial.injected(1);
        let beyond = uncommitted(&trial.world);
        trial.expect(beyond == 0, format!("{beyond} partitions have rows that the drained process did not commit"));
    }
    let (_, again) = trial.world.dead_letters();
    trial.expect(again == 0, format!("{again} dead letters are there again after drains"));

    // Inserts that hang would hold the first signal up for its whole deadline.
    let proxy = Proxy::to(&trial.world.stack.clickhouse);
    let mut millrace =
        trial.start(&config.clone().with("[clickhouse]", "url", &proxy.url(&trial.world.stack.clickhouse)));
    millrace.until("rows have landed", PATIENCE, |it| it.rows() > 5_000);
    proxy.fail(Fault::Hold { after: 0 }, u32::MAX);
    until("inserts hang", PATIENCE, || proxy.held_whole() > 0);
    millrace.signal(Signal::TERM);
    millrace.until("it drains", PATIENCE, |it| !it.lines(&["draining"]).is_empty());
    millrace.signal(Signal::TERM);
    let (status, took) = millrace.wait(PATIENCE);
    trial.injected(2);
    trial.note(format!(
        "three drained; the one that was told twice with inserts hanging was gone in {} ms",
        took.as_millis()
    ));
    trial.expect(took < AT_ONCE, format!("the second SIGTERM took {took:?}"));
    trial.expect(status.success(), format!("after the second SIGTERM: {status}"));
    // What hung arrives now, from a process that is no more.
    proxy.mend();
    drop(proxy);
}

/// Partitions with rows at or past the committed offset.
fn uncommitted(world: &World) -> usize {
    let committed = world.kafka.committed(&world.topic());
    let last = world.stack.sql(&format!("SELECT _partition, max(_offset) FROM {} GROUP BY _partition", world.table()));
    let beyond = last.lines().filter(|line| {
        let (partition, offset) = line.split_once('\t').expect("two columns");
        let offset: i64 = offset.parse().unwrap();
        committed.get(&partition.parse().unwrap()).is_none_or(|committed| *committed <= offset)
    });
    beyond.count()
}
