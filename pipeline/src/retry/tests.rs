use proptest::prelude::*;

use super::*;

const REST: Duration = Duration::from_millis(1000);

proptest! {
    #[test]
    fn a_delay_lies_between_half_and_all_of_the_step_and_never_past_the_longest(
        attempt in any::<u32>(), random in -1.0..2.0f64, first_ms in 1..10_000u64, times in 1..1000u64,
    ) {
        let first = Duration::from_millis(first_ms);
        let backoff = Backoff { first, longest: first * times as u32 };
        let delay = backoff.delay(attempt, random);
        let doublings = attempt.saturating_sub(1).min(20);
        let step = (first * (1 << doublings)).min(backoff.longest);
        let rounding = Duration::from_nanos(first_ms * times);
        prop_assert!(delay + rounding >= step / 2 && delay <= step + rounding, "{:?} for a step of {:?}", delay, step);
    }
}

#[test]
fn steps_double_until_the_longest() {
    let backoff = Backoff { first: Duration::from_millis(100), longest: Duration::from_millis(500) };
    let delays = [0, 1, 2, 3, 4, 33, u32::MAX].map(|attempt| backoff.delay(attempt, 1.0).as_millis());
    assert_eq!(delays, [100, 100, 200, 400, 500, 500, 500]);
}

proptest! {
    /// As a caller does it: waits as it is told, and never begins what the budget does not allow.
    #[test]
    fn no_attempt_begins_beyond_a_budget_and_all_that_it_allows_do(
        attempts in 1..20u32, time_ms in 0..60_000u64, takes_ms in 0..5_000u64, random in 0.0..1.0f64,
    ) {
        let backoff = Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(10) };
        let budget = Budget { attempts, time: Duration::from_millis(time_ms) };
        let (mut made, mut elapsed, mut last_began) = (0, Duration::ZERO, Duration::ZERO);
        loop {
            last_began = last_began.max(elapsed);
            made += 1;
            elapsed += Duration::from_millis(takes_ms);
            let delay = backoff.delay(made, random);
            if !budget.allows(made, elapsed, delay) {
                prop_assert!(made == attempts || elapsed + delay > budget.time, "given up too soon");
                break;
            }
            elapsed += delay;
        }
        prop_assert!(made <= attempts && (made == 1 || last_began <= budget.time), "{} at {:?}", made, last_began);
    }

    /// Any calls in any order, their ends as late as it gets, against what is said of a breaker.
    #[test]
    fn never_a_call_while_open_and_exactly_one_while_half_open(
        failures_to_open in 1..6u32, steps in prop::collection::vec((0..5u8, 0..20usize, 0..700u64), 1..400),
    ) {
        let mut breaker = Breaker::new(failures_to_open, REST);
        let mut out: Vec<Permit> = Vec::new();
        let (mut now, mut opened_at, mut in_a_row, mut probe) = (0, None, 0, None);
        for (what, which, passes) in steps {
            now += passes;
            let before = breaker.state();
            if what < 2 || out.is_empty() {
                let is_open = opened_at.is_some_and(|at| now < at + 1000);
                match breaker.permit(now) {
                    Ok(permit) => {
                        prop_assert!(!is_open, "a call went while the breaker was open");
                        prop_assert_eq!(permit == Permit::Free, before == BreakerState::Closed);
                        prop_assert!(before != BreakerState::HalfOpen, "exactly one call is let through");
                        if permit != Permit::Free {
                            prop_assert_eq!(breaker.state(), BreakerState::HalfOpen);
                            probe = Some(permit);
                        }
                        out.push(permit);
                    }
                    Err(wait) => {
                        prop_assert!(before != BreakerState::Closed && wait > Duration::ZERO && wait <= REST);
                    }
                }
            } else {
                let permit = out.swap_remove(which % out.len());
                match what {
                    2 => {
                        breaker.succeeded();
                        // A probe that is still out counts as any call from now on.
                        (in_a_row, opened_at, probe) = (0, None, None);
                        prop_assert_eq!(breaker.state(), BreakerState::Closed);
                    }
                    3 => {
                        breaker.failed(permit, now);
                        in_a_row += 1;
                        match before {
                            BreakerState::Closed => {
                                let opens = in_a_row >= failures_to_open;
                                prop_assert_eq!(breaker.state() == BreakerState::Open, opens);
                                opened_at = opens.then_some(now);
                            }
                            BreakerState::HalfOpen if Some(permit) == probe => {
                                prop_assert_eq!(breaker.state(), BreakerState::Open);
                                opened_at = Some(now);
                            }
                            other => prop_assert_eq!(breaker.state(), other, "news from before it opened"),
                        }
                    }
                    _ => {
                        breaker.abandoned(permit, now);
                        if Some(permit) == probe && before == BreakerState::HalfOpen {
                            prop_assert_eq!(breaker.state(), BreakerState::Open);
                            opened_at = None;
                        }
                    }
                }
            }
            if breaker.state() == BreakerState::HalfOpen {
                prop_assert!(probe.is_some_and(|probe| out.contains(&probe)), "somebody has to hand its permit back");
            }
        }
    }
}

#[test]
fn a_breaker_opens_after_failures_in_a_row_only() {
    let mut breaker = Breaker::new(3, REST);
    for _ in 0..5 {
        breaker.failed(Permit::Free, 0);
        breaker.failed(Permit::Free, 0);
        breaker.succeeded();
    }
    assert_eq!(breaker.state(), BreakerState::Closed);
    for now in 0..3 {
        assert_eq!(breaker.permit(now), Ok(Permit::Free));
        breaker.failed(Permit::Free, now);
    }
    assert_eq!(breaker.state(), BreakerState::Open);
    assert_eq!(breaker.permit(2), Err(REST));
    assert_eq!(breaker.permit(1001), Err(Duration::from_millis(1)));
}

fn open() -> Breaker {
    let mut breaker = Breaker::new(1, REST);
    breaker.failed(Permit::Free, 0);
    breaker
}

#[test]
fn after_a_rest_one_call_goes_however_long_it_takes_and_its_success_lets_all_go() {
    let mut breaker = open();
    assert_eq!(breaker.permit(1000), Ok(Permit::Probe(1)));
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    assert!(breaker.permit(1000).is_err() && breaker.permit(60_000).is_err(), "one call at a time");
    breaker.succeeded();
    assert_eq!(breaker.state(), BreakerState::Closed);
    assert!(breaker.permit(60_000).is_ok() && breaker.permit(60_000).is_ok());
}

#[test]
fn a_probe_that_fails_opens_the_breaker_for_another_rest_and_late_failures_of_others_do_not() {
    let mut breaker = open();
    breaker.failed(Permit::Free, 900);
    assert_eq!(breaker.permit(1500), Ok(Permit::Probe(1)));
    breaker.failed(Permit::Free, 1550);
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    breaker.failed(Permit::Probe(1), 1600);
    assert_eq!(breaker.state(), BreakerState::Open);
    assert_eq!(breaker.permit(1700), Err(Duration::from_millis(900)));
    assert_eq!(breaker.permit(2600), Ok(Permit::Probe(2)));
    breaker.failed(Permit::Probe(1), 2700);
    assert_eq!(breaker.state(), BreakerState::HalfOpen, "an earlier probe says nothing of this one");
}

#[test]
fn a_probe_that_is_abandoned_leaves_its_place_to_the_next() {
    let mut breaker = open();
    assert_eq!(breaker.permit(1000), Ok(Permit::Probe(1)));
    breaker.abandoned(Permit::Probe(1), 1100);
    assert_eq!(breaker.state(), BreakerState::Open);
    assert_eq!(breaker.permit(1100), Ok(Permit::Probe(2)));
    assert!(breaker.permit(1101).is_err());
}
