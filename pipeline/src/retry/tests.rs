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

#[test]
fn a_breaker_opens_after_failures_in_a_row_only() {
    let mut breaker = Breaker::new(3, REST);
    for _ in 0..5 {
        breaker.failed(0);
        breaker.failed(0);
        breaker.succeeded();
    }
    assert_eq!(breaker.state(), BreakerState::Closed);
    for now in 0..3 {
        assert_eq!(breaker.permit(now), Ok(()));
        breaker.failed(now);
    }
    assert_eq!(breaker.state(), BreakerState::Open);
    assert_eq!(breaker.permit(2), Err(REST));
    assert_eq!(breaker.permit(1001), Err(Duration::from_millis(1)));
}

fn open() -> Breaker {
    let mut breaker = Breaker::new(1, REST);
    breaker.failed(0);
    breaker
}

#[test]
fn after_a_rest_one_call_goes_and_its_success_lets_all_go() {
    let mut breaker = open();
    assert_eq!(breaker.permit(1000), Ok(()));
    assert_eq!(breaker.state(), BreakerState::HalfOpen);
    assert!(breaker.permit(1000).is_err() && breaker.permit(1999).is_err(), "one call at a time");
    breaker.succeeded();
    assert_eq!(breaker.state(), BreakerState::Closed);
    assert!(breaker.permit(1999).is_ok() && breaker.permit(1999).is_ok());
}

#[test]
fn a_probe_that_fails_opens_the_breaker_for_another_rest() {
    let mut breaker = open();
    assert_eq!(breaker.permit(1500), Ok(()));
    breaker.failed(1600);
    assert_eq!(breaker.state(), BreakerState::Open);
    assert_eq!(breaker.permit(1700), Err(Duration::from_millis(900)));
    assert_eq!(breaker.permit(2600), Ok(()));
}

#[test]
fn a_probe_that_is_never_reported_does_not_hold_the_others_back_for_ever() {
    let mut breaker = open();
    assert_eq!(breaker.permit(1000), Ok(()));
    assert!(breaker.permit(1999).is_err());
    assert_eq!(breaker.permit(2000), Ok(()), "whoever made the probe may be gone");
    assert!(breaker.permit(2001).is_err());
}
