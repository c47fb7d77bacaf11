//! Events that are sent again: by a producer that restarts, as a whole topic, hours of event time later.

use std::time::Duration;

use millrace_chaos::kafka::Offsets;
use millrace_chaos::process::Millrace;
use millrace_chaos::stack::until;
use millrace_chaos::world::Load;

use super::Case;
use crate::guard::Guard;
use crate::landings::now_ms;
use crate::trial::Trial;

const EVENTS: u64 = 120_000;
const LOAD: Load = Load { events: EVENTS, rate: 30_000, duplicates: 0.05, poison: 0.002 };
/// Each sending spans so much time of events, so that what is sent again is as much older than what is newest.
const HOURS: u64 = 12;
const PATIENCE: Duration = Duration::from_secs(90);

pub(super) fn cases() -> Vec<Case> {
    vec![Case {
        number: 14,
        name: "sent-again",
        what: "a producer dies and sends 30 % again; the whole topic again across a restart and a rebalance, 12 h of event time later",
        rests_on: &[Guard::Dedup],
        run: sent_again,
    }]
}

fn sent_again(trial: &mut Trial) {
    // The same events whenever they are sent, at the same times.
    let start = (now_ms() - (HOURS * 3_600_000) as i64).to_string();
    let months = (HOURS as f64 / (365.2425 / 12.0 * 24.0)).to_string();
    let times = ["--start-ms", &start, "--span-months", &months];
    let config = trial.world.config();
    let mut first = trial.start(&config);
    first.until_ready();

    // A producer that dies with 30 % sent, and one that does not know how far it came.
    trial.load_with(Load { duplicates: 0.0, poison: 0.0, ..LOAD }, &times);
    until("30 % are sent", PATIENCE, || sent(&trial.world.kafka.ends(&trial.world.topic())) >= EVENTS * 3 / 10);
    trial.kill_generator();
    let by_the_dead = sent(&trial.world.kafka.ends(&trial.world.topic()));
    trial.load_with(LOAD, &times);
    trial.generator().finish();
    trial.world.until_committed(PATIENCE);
    let dropped = |it: &Millrace| it.metric("millrace_duplicates_dropped_total") as u64;
    let by_the_producer = dropped(&first);
    first.terminate();
    trial.note(format!(
        "{by_the_dead} events sent by a producer that died and again by the next: {by_the_producer} dropped"
    ));
    trial.expect(by_the_producer >= by_the_dead, "too few were dropped");

    // The whole topic again, to a process that has none of it in memory; half-way its partitions are given away.
    let mut second = trial.start(&config);
    second.until_ready();
    trial.load_with(Load { rate: 12_000, ..LOAD }, &times);
    trial.injected(1);
    let read = |it: &Millrace| it.metric("millrace_events_total") as u64;
    second.until("it reads what was sent before it began", PATIENCE, |it| read(it) > 20_000);
    let mut third = trial.start(&config);
    third.until("half of the partitions moved to it, and it reads too", PATIENCE, |it| {
        it.metric("millrace_partitions_assigned") == 2.0 && read(it) > 5_000
    });
    let loading = trial.is_loading();
    trial.expect(loading, "the load ended before the rebalance");
    trial.injected(1);
    trial.generator().finish();
    trial.world.until_committed(PATIENCE);
    let (across_restart, across_rebalance) = (dropped(&second), dropped(&third));
    trial.note(format!(
        "the whole again, {HOURS} h of event time later: {across_restart} dropped across a restart, \
         {across_rebalance} across a rebalance"
    ));
    trial.expect(across_restart > 20_000 && across_rebalance > 5_000, "too few were dropped");
    trial.expect(second.rows() + third.rows() == 0, "rows landed of events that were there");
    trial.keep(second);
    trial.keep(third);
}

/// Records in a topic without gaps.
fn sent(ends: &Offsets) -> u64 {
    ends.values().sum::<i64>() as u64
}
