//! Members of the group that come, go, die and fall silent.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use millrace_chaos::process::Millrace;
use millrace_chaos::stack::until;
use millrace_chaos::world::Load;

use super::Case;
use super::crashes::{goes_on, load_for};
use crate::landings::{Landings, now_ms};
use crate::trial::Trial;

const LOAD: Load = Load { events: 240_000, rate: 12_000, duplicates: 0.05, poison: 0.002 };
const PATIENCE: Duration = Duration::from_secs(90);
/// How often a member joins, leaves or dies.
const EVERY: Duration = Duration::from_secs(2);
/// A member that died holds its partitions for its session of 6 s; the next one may die as it takes them over.
const STANDING: Duration = Duration::from_secs(16);
/// A change of the group's size by one moves no more of the four partitions than these; without cooperation all would move.
const MOVED: usize = 2;

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case {
            number: 11,
            name: "rebalance-storm",
            what: "members join, leave and die every 2 s",
            rests_on: &[],
            run: storm,
        },
        Case {
            number: 13,
            name: "poll-loop-blocked",
            what: "the poll loop stands still for longer than max.poll.interval.ms",
            rests_on: &[],
            run: blocked,
        },
        Case {
            number: 25,
            name: "scale",
            what: "from 1 consumer to 4 and back to 1 under load, by SIGTERM",
            rests_on: &[],
            run: scale,
        },
    ]
}

fn storm(trial: &mut Trial) {
    let config = trial.world.config();
    let mut first = trial.start(&config);
    first.until_ready();
    let mut members = vec![first];
    trial.load(load_for(trial, LOAD));
    members[0].until("rows have landed", PATIENCE, |it| it.rows() > 1_000);
    let (begun, from) = (Instant::now(), now_ms());
    let (mut joined, mut left, mut died) = (0, 0, 0);
    let mut leaving: Vec<Millrace> = Vec::new();
    while goes_on(trial, begun) {
        // The beat of the storm waits for nobody.
        std::thread::sleep(EVERY);
        match trial.random.below(3) {
            0 if members.len() > 1 => {
                let one = members.remove(trial.random.below(members.len() as u64) as usize);
                one.signal(rustix::process::Signal::TERM);
                leaving.push(one);
                left += 1;
            }
            1 if members.len() > 1 => {
                members.remove(trial.random.below(members.len() as u64) as usize).kill();
                died += 1;
            }
            _ if members.len() < 5 => {
                members.push(trial.start(&config));
                joined += 1;
            }
            _ => {}
        }
    }
    let to = now_ms();
    trial.healed();
    trial.killed(died);
    trial.injected(joined + left);
    for one in &mut leaving {
        let (status, _) = one.wait(PATIENCE);
        assert!(status.success(), "after SIGTERM: {status}");
    }
    trial.note(format!("{joined} joined, {left} left by SIGTERM, {died} died"));
    let landings = Landings::of(&trial.world);
    let pauses: Vec<(i32, Duration)> =
        landings.partitions().map(|partition| (partition, landings.longest_pause(partition, from, to))).collect();
    trial.note(format!("longest time without a row, by partition: {}", said(&pauses)));
    trial.expect(pauses.len() == 4, "a partition has no rows");
    trial.expect(pauses.iter().all(|(_, pause)| *pause < STANDING), "a partition was left standing");
    trial.expect(joined + left + died >= 6, "too little happened");
    members.into_iter().for_each(|member| trial.keep(member));
}

fn said(pauses: &[(i32, Duration)]) -> String {
    let each: Vec<String> =
        pauses.iter().map(|(partition, pause)| format!("{partition}: {:.1} s", pause.as_secs_f64())).collect();
    each.join(", ")
}

fn blocked(trial: &mut Trial) {
    // librdkafka wants a session no longer than this, and the broker grants none shorter than 6 s.
    let config = trial.world.config().with("[kafka.properties]", "\"max.poll.interval.ms\"", "6000");
    let mut other = trial.start(&config);
    other.until_ready();
    trial.load(load_for(trial, Load { events: 300_000, ..LOAD }));
    let begun = Instant::now();
    let mut rounds = 0;
    while rounds == 0 || goes_on(trial, begun) && trial.time.is_some() {
        let fault = format!("stall@polled:{}=11s", 60 + trial.random.below(200));
        let mut slow = trial.start_faulty(&config, &fault);
        slow.until("its poll loop stands", PATIENCE, |it| !it.lines(&["the fault strikes"]).is_empty());
        trial.injected(1);
        let held = |it: &Millrace| it.metric("millrace_partitions_assigned") as u32;
        let before = held(&slow);
        other.until("the other takes its partitions on", PATIENCE, |it| held(it) == 4);
        let rows = slow.rows();
        slow.until("it has lost them", PATIENCE, |it| !it.lines(&["partitions revoked", "lost=true"]).is_empty());
        slow.until("it has rejoined and lands rows again", PATIENCE, |it| held(it) > 0 && it.rows() > rows);
        trial.note(format!(
            "{before} partitions were lost after 6 s without a poll; it rejoined and read {}",
            held(&slow)
        ));
        trial.expect(before > 0, "it held nothing when it stood still");
        trial.expect(
            !slow.lines(&["aximum poll interval"]).is_empty(),
            "librdkafka did not say that the poll interval was exceeded",
        );
        slow.terminate();
        rounds += 1;
    }
    trial.keep(other);
}

/// What a change of the group's size did.
struct Change {
    what: String,
    from: i64,
    to: i64,
    /// Partitions that somebody else reads since.
    moved: BTreeSet<i32>,
}

/// Which partitions a process has begun to read so far, in order.
fn read_by(process: &Millrace) -> Vec<i32> {
    let partition = |line: String| line.split("partition=").nth(1)?.split_whitespace().next()?.parse().ok();
    process.lines(&["partition is read"]).into_iter().filter_map(partition).collect()
}

fn scale(trial: &mut Trial) {
    let config = trial.world.config();
    let mut members = vec![trial.start(&config)];
    members[0].until_ready();
    trial.load(load_for(trial, Load { events: 420_000, ..LOAD }));
    members[0].until("rows have landed", PATIENCE, |it| it.rows() > 1_000);
    let mut changes = Vec::new();
    let mut take_overs = (0.0, 0.0);
    for size in [2, 3, 4, 3, 2, 1_usize] {
        let before: Vec<usize> = members.iter().map(|member| read_by(member).len()).collect();
        let (from, was) = (now_ms(), members.len());
        if size > was {
            members.push(trial.start(&config));
        } else {
            // The eldest goes: it is not one that merely gives back what it got last.
            let mut gone = members.remove(0);
            take_overs = (
                take_overs.0 + gone.metric("millrace_take_over_seconds_sum"),
                take_overs.1 + gone.metric("millrace_take_over_seconds_count"),
            );
            gone.terminate();
        }
        let begun: Vec<usize> = if size > was { before.into_iter().chain([0]).collect() } else { before[1..].to_vec() };
        let of = |it: &Millrace| it.metric("millrace_partitions_assigned") as usize;
        until("each has its share", PATIENCE, || {
            members.iter().map(of).sum::<usize>() == 4 && members.iter().all(|it| of(it) >= 4 / size)
        });
        // All partitions are read, and rows of all have landed since.
        members.iter_mut().for_each(Millrace::until_ready);
        let since = now_ms();
        until("rows of every partition land", PATIENCE, || {
            let landings = Landings::of(&trial.world);
            let now = now_ms();
            landings
                .partitions()
                .all(|partition| landings.longest_pause(partition, since, now).as_millis() < (now - since) as u128)
        });
        let moved = members.iter().zip(&begun).flat_map(|(member, known)| read_by(member).split_off(*known)).collect();
        changes.push(Change { what: format!("{was} to {size}"), from, to: now_ms(), moved });
        trial.injected(1);
    }
    let still_loading = trial.is_loading();
    trial.expect(still_loading, "the load ended before the last change");
    trial.healed();
    for member in &members {
        take_overs.0 += member.metric("millrace_take_over_seconds_sum");
        take_overs.1 += member.metric("millrace_take_over_seconds_count");
    }
    trial.note(format!(
        "{} take-overs, {:.2} s from the assignment of a partition to its reading on average",
        take_overs.1,
        take_overs.0 / take_overs.1.max(1.0)
    ));
    let landings = Landings::of(&trial.world);
    for change in &changes {
        let pause = |partition: i32| (partition, landings.longest_pause(partition, change.from, change.to));
        let (moved, unmoved): (Vec<i32>, Vec<i32>) =
            landings.partitions().partition(|partition| change.moved.contains(partition));
        let (moved, unmoved): (Vec<_>, Vec<_>) =
            (moved.into_iter().map(pause).collect(), unmoved.into_iter().map(pause).collect());
        trial.note(format!(
            "{} consumers, longest pause of partitions that moved: {}; that did not: {}",
            change.what,
            said(&moved),
            said(&unmoved)
        ));
        trial.expect(change.moved.len() <= MOVED, format!("{}: {} partitions moved", change.what, change.moved.len()));
        trial.expect(
            unmoved.iter().all(|(_, pause)| *pause < STANDING),
            format!("{}: a partition that did not move was left standing", change.what),
        );
    }
    trial.expect(changes.iter().any(|change| !change.moved.is_empty()), "no partition moved");
    members.into_iter().for_each(|member| trial.keep(member));
}
