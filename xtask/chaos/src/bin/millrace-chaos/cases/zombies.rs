//! A process that sleeps past its session with an insert on its way, and wakes up when another has taken over.

use std::time::Duration;

use millrace_chaos::proxy::{Fault, Proxy};
use millrace_chaos::stack::until;
use millrace_chaos::world::{Load, World};
use rustix::process::Signal;

use super::Case;
use crate::guard::Guard;
use crate::trial::Trial;

const LOAD: Load = Load { events: 120_000, rate: 15_000, duplicates: 0.05, poison: 0.002 };
/// A session ends after 6 s.
const PATIENCE: Duration = Duration::from_secs(25);
/// The server begins with an insert when it has its first chunk, which is 1 MiB long.
const HALF: usize = 1_500_000;

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case {
            number: 12,
            name: "zombie-arrives-late",
            what: "SIGSTOP past the session with inserts on their way that reach the server after the heir's rows",
            rests_on: &[Guard::Fence],
            run: arrives_late,
        },
        Case {
            number: 12,
            name: "zombie-half-sent",
            what: "SIGSTOP past the session with inserts half sent, whose bodies are resumed after the heir's KILL",
            rests_on: &[],
            run: half_sent,
        },
    ]
}

/// Inserts of this world that the server has begun, and those of them that were told to end.
fn running(world: &World) -> (u64, u64) {
    let ours = format!("startsWith(query_id, 'millrace-{}-')", world.topic());
    let count = |also: &str| world.stack.count(&format!("SELECT count() FROM system.processes WHERE {ours}{also}"));
    (count(""), count(" AND is_cancelled"))
}

fn arrives_late(trial: &mut Trial) {
    sleep_and_wake(trial, 0, |trial, proxy, heir| {
        let (begun, _) = running(&trial.world);
        trial.note(format!("{} inserts were held back before the server had begun", proxy.held_whole()));
        // The heir's own insert may be there for a moment.
        trial.expect(heir.lines(&["inserts of an earlier owner"]).is_empty(), "the server had begun one of them");
        trial.expect(begun <= 2, format!("{begun} inserts run, the heir may have two"));
        // What was held has landed by the heir: without the fence it lands again.
        trial.generator().finish();
        trial.world.until_committed(PATIENCE);
    });
}

fn half_sent(trial: &mut Trial) {
    sleep_and_wake(trial, HALF, |trial, _, heir| {
        heir.until("it tells the inserts to end", PATIENCE, |it| {
            !it.lines(&["waiting for inserts of an earlier owner to end"]).is_empty()
        });
        let (mut begun, mut cancelled) = (0, 0);
        until("they are told", PATIENCE, || {
            (begun, cancelled) = running(&trial.world);
            cancelled > 0 && cancelled == begun
        });
        trial.note(format!("{cancelled} inserts that were half sent were told to end"));
    });
}

/// Lets a process fall asleep while its inserts are held back after `passed` bytes, and another take over. `before` is
/// what happens before the inserts go on; then the process is woken.
fn sleep_and_wake(
    trial: &mut Trial,
    passed: usize,
    before: impl Fn(&mut Trial, &Proxy, &mut millrace_chaos::process::Millrace),
) {
    let proxy = Proxy::to(&trial.world.stack.clickhouse);
    let config = trial.world.config();
    // A second's batch is of 2 MB and more.
    let away = config.clone().with("[clickhouse]", "url", &proxy.url(&trial.world.stack.clickhouse)).with(
        "[topics.batch]",
        "max_age",
        "1s",
    );
    let mut zombie = trial.start(&away);
    zombie.until_ready();
    trial.load(LOAD);
    zombie.until("rows have landed", PATIENCE, |it| it.rows() > 5_000);
    proxy.fail(Fault::Hold { after: passed }, u32::MAX);
    until("inserts have been sent to their ends", PATIENCE, || {
        proxy.held_whole() > 0 && (passed == 0 || running(&trial.world).0 > 0)
    });
    zombie.signal(Signal::STOP);
    trial.injected(1);

    let mut heir = trial.start(&config);
    heir.until("it gets the partitions after the session", PATIENCE, |it| {
        it.metric("millrace_partitions_assigned") >= 4.0
    });
    before(trial, &proxy, &mut heir);
    // The rest of the bodies reaches the server while their sender still sleeps.
    proxy.mend();
    heir.until("it reads on", PATIENCE, |it| it.rows() > 0);
    zombie.signal(Signal::CONT);
    trial.healed();
    // It comes back as a member of the group, and has heard by then what became of its inserts.
    zombie.until("it has heard of its inserts and has partitions again", PATIENCE, |it| {
        it.metric("millrace_inserts_in_flight") == 0.0 && it.lines(&["partition is read"]).len() > 4
    });
    let refusals = zombie.metric("millrace_fence_refusals_total");
    let ended = zombie.lines(&["an insert failed and is tried again", "QUERY_WAS_CANCELLED"]).len();
    trial.note(format!("ClickHouse refused {refusals} inserts by the fence, and ended {ended} on the heir's word"));
    trial.expect(refusals > 0.0, "no insert was refused");
    trial.expect(passed == 0 || ended > 0, "no resumed body was refused");
    trial.keep(zombie);
    trial.keep(heir);
    // The zombie that was goes on by it.
    trial.lasts(proxy);
}
