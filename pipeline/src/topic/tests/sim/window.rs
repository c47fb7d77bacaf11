//! The dedup window, whose only clock is ClickHouse's: what comes again inside it is dropped, what comes after it lands
//! again, and a jump of that clock moves the end of the window by as much.

use super::{CASES, clickhouse::Owner, run::Sim};
use crate::dedup::Millis;

const MINUTE_MS: Millis = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS as i64;
const WINDOW_MS: Millis = 2 * HOUR_MS as Millis;

/// Rows of an event that comes again `after_ms`, read by another process, with ClickHouse's clock jumping meanwhile.
fn rows(after_ms: Millis, jump_ms: i64) -> u32 {
    let mut sim = Sim::new(1, &CASES[0], false);
    sim.world.window_ms = WINDOW_MS;
    sim.world.faulty = false;
    let owners = |sim: &Sim| -> Vec<Owner> { sim.processes.iter().flatten().map(|process| process.owner).collect() };
    sim.producer.next(&mut sim.world);
    // Everybody leaves at the end of it.
    sim.heal().unwrap();
    assert_eq!((sim.world.oracle.rows_of(0), owners(&sim).len()), (1, 0));
    sim.world.now += after_ms;
    sim.world.servers.iter_mut().for_each(|server| server.skew_ms = jump_ms);
    sim.producer.repeat(0, &mut sim.world);
    let _ = sim.heal();
    sim.world.oracle.rows_of(0)
}

#[test]
fn simulated_what_comes_again_after_the_window_lands_again_as_documented() {
    assert_eq!(rows(WINDOW_MS - 10 * MINUTE_MS, 0), 1);
    assert_eq!(rows(WINDOW_MS + 10 * MINUTE_MS, 0), 2);
}

#[test]
fn simulated_a_clock_that_jumps_forwards_shortens_the_window_by_the_jump_and_one_that_jumps_back_lengthens_it() {
    let hour = HOUR_MS as Millis;
    assert_eq!(rows(WINDOW_MS - hour - 10 * MINUTE_MS, HOUR_MS), 1);
    assert_eq!(rows(WINDOW_MS - hour + 10 * MINUTE_MS, HOUR_MS), 2);
    assert_eq!(rows(WINDOW_MS + hour - 10 * MINUTE_MS, -HOUR_MS), 1);
    assert_eq!(rows(WINDOW_MS + hour + 10 * MINUTE_MS, -HOUR_MS), 2);
}
