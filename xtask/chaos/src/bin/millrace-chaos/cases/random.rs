//! Everything at once.

use std::time::{Duration, Instant};

use millrace_chaos::process::Millrace;
use millrace_chaos::proxy::{Fault, Proxy};
use millrace_chaos::wire::{Weather, Wire};
use millrace_chaos::world::Load;
use rustix::process::Signal;

use super::Case;
use super::crashes::{deadly, goes_on, load_for, other_settings};
use crate::fleet::Fleet;
use crate::trial::Trial;

const LOAD: Load = Load { events: 480_000, rate: 8_000, duplicates: 0.05, poison: 0.002 };
/// Processes that come back.
const SLOTS: usize = 3;
/// How long a process that is to die by itself is left to that.
const OWN_TIME: Duration = Duration::from_secs(2);
/// Longer than a session.
const SLEEP: Duration = Duration::from_secs(8);

pub(super) fn cases() -> Vec<Case> {
    vec![Case {
        number: 99,
        name: "random",
        what: "a mix: kills at places and at random, sleeps past the session, insert faults, a parted network, joins and leaves",
        rests_on: &[],
        run: random,
    }]
}

/// What was done, to be counted.
#[derive(Default)]
struct Done {
    by_themselves: u64,
    killed: u64,
    slept: u64,
    inserts_failed: u64,
    weathers: u64,
    joined: u64,
    left: u64,
}

/// Faults under way and when they end.
#[derive(Default)]
struct Ends {
    asleep: Option<(usize, Instant)>,
    inserts: Option<Instant>,
    weather: Option<Instant>,
    guest: Option<(Millrace, Instant)>,
    leaving: Vec<Millrace>,
}

fn random(trial: &mut Trial) {
    trial.load(load_for(trial, LOAD));
    let wire = Wire::to(&trial.world.stack.clickhouse);
    let proxy = Proxy::to(&wire.url(&trial.world.stack.clickhouse));
    let config = trial.world.config().with("[clickhouse]", "url", &proxy.url(&trial.world.stack.clickhouse));
    // When somebody else may kill it: one that is to die by itself has its time.
    let mut fair = [Instant::now(); SLOTS];
    let start = |trial: &mut Trial, slot: usize, fair: &mut [Instant; SLOTS]| {
        let config = Fleet::config(&other_settings(&config, &mut trial.random), slot);
        let fault = deadly(&mut trial.random);
        let faulty = trial.random.below(3) > 0;
        fair[slot] = Instant::now() + if faulty { OWN_TIME } else { Duration::ZERO };
        if faulty { trial.start_faulty(&config, &fault) } else { trial.start(&config) }
    };
    let (begun, mut done, mut ends) = (Instant::now(), Done::default(), Ends::default());
    let mut fleet = Fleet::start(SLOTS, |slot| start(trial, slot, &mut fair));
    while goes_on(trial, begun) {
        // The moment is the fault that is tried here, and waits for nothing.
        std::thread::sleep(Duration::from_millis(30 + trial.random.below(150)));
        while let Some(slot) = fleet.dead() {
            done.by_themselves += 1;
            fleet.succeed(slot, start(trial, slot, &mut fair));
            ends.asleep = ends.asleep.filter(|(asleep, _)| *asleep != slot);
        }
        end_what_is_due(&mut ends, &mut fleet, &proxy, &wire, Instant::now());
        let due = |random: &mut millrace_chaos::world::Random, longest: u64| {
            Instant::now() + Duration::from_millis(200 + random.below(longest))
        };
        match trial.random.below(20) {
            0 if ends.asleep.is_none() => {
                let slot = trial.random.below(SLOTS as u64) as usize;
                fleet.member(slot).signal(Signal::STOP);
                ends.asleep = Some((slot, Instant::now() + SLEEP));
                done.slept += 1;
            }
            1..=3 if ends.inserts.is_none() => {
                let after = [0, 20_000, 1_200_000][trial.random.below(3) as usize];
                let fault = [Fault::LoseAnswer, Fault::CutBody { after }, Fault::Hold { after }]
                    [trial.random.below(3) as usize];
                proxy.fail(fault, 1 + trial.random.below(4) as u32);
                ends.inserts = Some(due(&mut trial.random, 4_000));
            }
            4..=5 if ends.weather.is_none() => {
                let weather = [Weather::Stalled, Weather::Refused, Weather::Slow { bytes: 200_000 }]
                    [trial.random.below(3) as usize];
                wire.set(weather);
                ends.weather = Some(due(&mut trial.random, 1_000));
                done.weathers += 1;
            }
            6 if ends.guest.is_none() => {
                let guest = trial.start(&config);
                ends.guest = Some((guest, due(&mut trial.random, 6_000)));
                done.joined += 1;
            }
            7..=16 => {
                let slot = trial.random.below(SLOTS as u64) as usize;
                let awake = ends.asleep.is_none_or(|(asleep, _)| asleep != slot);
                // A process that is killed before it has begun would prove nothing.
                if awake && fair[slot] <= Instant::now() && fleet.member(slot).readiness().is_some() {
                    fleet.member(slot).kill();
                    done.killed += 1;
                    let next = start(trial, slot, &mut fair);
                    fleet.succeed(slot, next);
                }
            }
            _ => {}
        }
    }
    done.inserts_failed = u64::from(proxy.hits());
    finish(trial, &mut ends, &mut fleet, &proxy, &wire, &mut done);
    // Slots may have died by their faults since; what takes them on has none.
    for slot in 0..SLOTS {
        if fleet.has_died(slot) {
            done.by_themselves += 1;
        } else {
            fleet.member(slot).kill();
            done.killed += 1;
        }
        let next = trial.start(&Fleet::config(&trial.world.config(), slot));
        fleet.succeed(slot, next);
    }
    trial.killed(done.by_themselves + done.killed);
    trial.injected(done.slept + done.inserts_failed + done.weathers + done.joined + done.left);
    trial.note(format!(
        "{} died at places of the protocol, {} were killed at other moments, {} slept past their session, {} inserts were cut, \
         held or unanswered, {} times the way to ClickHouse was parted, slow or refused, {} joined, {} of them left",
        done.by_themselves, done.killed, done.slept, done.inserts_failed, done.weathers, done.joined, done.left
    ));
    trial.expect(done.by_themselves > 0 && done.killed > 0 && done.inserts_failed > 0, "too little happened");
    fleet.keep(trial);
}

fn end_what_is_due(ends: &mut Ends, fleet: &mut Fleet, proxy: &Proxy, wire: &Wire, now: Instant) {
    if let Some((slot, _)) = ends.asleep.take_if(|(_, until)| *until <= now) {
        fleet.member(slot).signal(Signal::CONT);
    }
    if ends.inserts.take_if(|until| *until <= now).is_some() {
        proxy.mend();
    }
    if ends.weather.take_if(|until| *until <= now).is_some() {
        wire.set(Weather::Clear);
    }
    if let Some((guest, _)) = ends.guest.take_if(|(_, until)| *until <= now) {
        guest.signal(Signal::TERM);
        ends.leaving.push(guest);
    }
}

/// Ends every fault that is under way.
fn finish(trial: &mut Trial, ends: &mut Ends, fleet: &mut Fleet, proxy: &Proxy, wire: &Wire, done: &mut Done) {
    if let Some((slot, _)) = ends.asleep.take() {
        fleet.member(slot).signal(Signal::CONT);
    }
    proxy.mend();
    wire.set(Weather::Clear);
    if let Some((guest, _)) = ends.guest.take() {
        guest.signal(Signal::TERM);
        ends.leaving.push(guest);
    }
    for mut guest in ends.leaving.drain(..) {
        let (status, _) = guest.wait(Duration::from_secs(40));
        // One that had only just begun does not listen for signals yet.
        let begun = !guest.lines(&["subscribed"]).is_empty();
        assert!(status.success() || !begun, "a guest after SIGTERM: {status}");
        done.left += 1;
    }
    trial.healed();
}
