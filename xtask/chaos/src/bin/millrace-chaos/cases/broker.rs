//! Kafka goes away and comes back: its process, or the way to it.

use std::time::{Duration, Instant};

use millrace_chaos::namespace::Namespace;
use millrace_chaos::parts::{self, Part};
use millrace_chaos::process::Millrace;
use millrace_chaos::stack::until;
use millrace_chaos::wire::{Weather, Wire};
use millrace_chaos::world::Load;

use super::Case;
use crate::fleet::Fleet;
use crate::trial::Trial;

const PATIENCE: Duration = Duration::from_secs(60);
/// The harness lets sessions end after 6 s.
const PAST_THE_SESSION: Duration = Duration::from_secs(9);

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case {
            number: 10,
            name: "broker-away",
            what: "the broker is killed and started again, and put to sleep for longer than a session",
            rests_on: &[],
            run: broker_away,
        },
        Case {
            number: 24,
            name: "parted",
            what: "nothing passes between a consumer and Kafka, ClickHouse, or both, for longer than a session",
            rests_on: &[],
            run: parted,
        },
        Case {
            number: 24,
            name: "parted-for-real",
            what: "a consumer in a network namespace of its own whose link is taken down",
            rests_on: &[],
            run: parted_for_real,
        },
    ]
}

/// Waits until more rows have landed than now, by any of them.
fn until_rows_land(members: &[&Millrace], what: &str) -> Duration {
    let rows = || members.iter().map(|member| member.rows()).sum::<u64>();
    let (begun, now) = (Instant::now(), rows());
    until(what, PATIENCE, || rows() > now + 1_000);
    begun.elapsed()
}

fn broker_away(trial: &mut Trial) {
    let config = trial.world.config();
    // It has to outlast both faults and the rebalances behind them on a machine that has other work.
    trial.load(Load { events: 500_000, rate: 12_000, duplicates: 0.05, poison: 0.002 });
    // Members without names: one with a name may be fenced by its own second attempt to join a broker that slept, and ends.
    let mut fleet = Fleet::start(2, |_| trial.start(&config));
    fleet.members().for_each(Millrace::until_ready);
    let begun = Instant::now();
    for round in 0.. {
        let members: Vec<&Millrace> = fleet.members().map(|member| &*member).collect();
        until_rows_land(&members, "rows land before the broker dies");
        std::thread::sleep(Duration::from_millis(trial.random.below(1_000)));
        Part::Kafka.kill();
        parts::bring_back();
        let back = until_rows_land(&members, "rows land after the broker is back");
        trial.killed(1);

        std::thread::sleep(Duration::from_millis(trial.random.below(1_000)));
        let asleep = Part::Kafka.stop();
        std::thread::sleep(PAST_THE_SESSION);
        drop(asleep);
        let awake = until_rows_land(&members, "rows land after the broker woke up");
        trial.injected(1);
        if round == 0 {
            trial.note(format!(
                "rows landed {:.1} s after it was back, {:.1} s after it woke up",
                back.as_secs_f64(),
                awake.as_secs_f64()
            ));
        }
        if trial.time.is_none_or(|time| begun.elapsed() >= time) || !trial.is_loading() {
            break;
        }
    }
    trial.healed();
    let rebalances: f64 = fleet.members().map(|member| member.metric("millrace_rebalances_total")).sum();
    trial.note(format!("{rebalances} rebalances"));
    for member in fleet.members() {
        assert!(member.ended().is_none(), "a process ended with its broker\n{}", member.log());
    }
    fleet.keep(trial);
}

/// Partitions it reads.
fn held(it: &Millrace) -> u32 {
    it.metric("millrace_partitions_assigned") as u32
}

fn parted(trial: &mut Trial) {
    let stack = &trial.world.stack;
    let kafka = Wire::between(&stack.kafka_proxy, &stack.kafka_proxied);
    let clickhouse = Wire::to(&stack.clickhouse);
    let config = trial.world.config();
    let away = config.clone().with("[kafka]", "bootstrap_servers", &kafka.address()).with(
        "[clickhouse]",
        "url",
        &clickhouse.url(&stack.clickhouse),
    );
    trial.load(Load { events: 420_000, rate: 7_000, duplicates: 0.05, poison: 0.002 });
    let (mut far, mut near) = (trial.start(&away), trial.start(&config));
    let half = |it: &Millrace| held(it) == 2 && it.rows() > 0;
    let all = |it: &Millrace| held(it) == 4;
    let begun = Instant::now();
    let mut done = 0;
    for (parted, from, heir) in [
        (vec![&kafka], "Kafka", true),
        (vec![&clickhouse], "ClickHouse", false),
        (vec![&kafka, &clickhouse], "both", true),
    ] {
        if trial.time.is_some_and(|time| begun.elapsed() >= time) {
            break;
        }
        far.until("it reads its half", PATIENCE, half);
        near.until("it reads the other half", PATIENCE, half);
        until_rows_land(&[&far], "rows land before the network parts");
        let (refusals, since) = (far.metric("millrace_fence_refusals_total"), Instant::now());
        parted.iter().for_each(|wire| wire.set(Weather::Stalled));
        trial.injected(1);
        if heir {
            near.until("it has all partitions after the session", PATIENCE, all);
            until_rows_land(&[&near], "the heir reads on");
        } else {
            std::thread::sleep(PAST_THE_SESSION);
            trial.expect(held(&near) == 2, "a consumer that ClickHouse does not reach lost its partitions");
        }
        let lasted = since.elapsed();
        parted.iter().for_each(|wire| wire.set(Weather::Clear));
        let healed = Instant::now();
        far.until("it reads its half again", PATIENCE, half);
        until_rows_land(&[&far], "rows land after the network is whole");
        trial.note(format!(
            "parted from {from} for {:.1} s; it landed rows again {:.1} s after; {} of its inserts refused",
            lasted.as_secs_f64(),
            healed.elapsed().as_secs_f64(),
            far.metric("millrace_fence_refusals_total") - refusals
        ));
        trial.expect(lasted > PAST_THE_SESSION.mul_f64(0.6), "healed before the session ended");
        done += 1;
    }
    trial.expect(done == 3, "not every partition was tried");
    trial.healed();
    // The wires end with this: the near one has to finish alone.
    far.terminate();
    trial.keep(near);
}

fn parted_for_real(trial: &mut Trial) {
    let config = trial.world.config();
    let namespace = match Namespace::new() {
        Ok(namespace) => namespace,
        Err(words) => {
            trial.expect(false, format!("this machine allows no network namespace: {words}"));
            return;
        }
    };
    trial.load(Load { events: 250_000, rate: 10_000, duplicates: 0.05, poison: 0.002 });
    let (mut far, mut near) = (namespace.start(&trial.world, &config), trial.start(&config));
    far.until("it reads its half", PATIENCE, |it| held(it) == 2 && it.rows() > 1_000);
    near.until("it reads the other half", PATIENCE, |it| held(it) == 2 && it.rows() > 1_000);
    let since = Instant::now();
    namespace.set_up(false);
    trial.injected(1);
    near.until("it has all partitions after the session", PATIENCE, |it| held(it) == 4);
    until_rows_land(&[&near], "the heir reads on");
    // Minutes, where there is time.
    std::thread::sleep(trial.time.unwrap_or_default().saturating_sub(since.elapsed()).min(Duration::from_secs(300)));
    let lasted = since.elapsed();
    namespace.set_up(true);
    let healed = Instant::now();
    far.until("it reads its half again", PATIENCE, |it| held(it) == 2);
    until_rows_land(&[&far], "rows land after the link is up");
    trial.note(format!(
        "the link was down for {:.1} s; rows landed {:.1} s after; {} inserts refused, {} of the heir's take-overs stopped one",
        lasted.as_secs_f64(),
        healed.elapsed().as_secs_f64(),
        far.metric("millrace_fence_refusals_total"),
        near.lines(&["inserts of an earlier owner were stopped"]).len(),
    ));
    trial.healed();
    far.terminate();
    trial.keep(near);
}
