//! Events that are sent again after the window. Within it, across restarts and rebalances and hours of event time later,
//! they are a case of the fault matrix.

use std::time::Duration;

use millrace_chaos::stack::until;
use millrace_chaos::world::{Load, World};

const PATIENCE: Duration = Duration::from_secs(30);
const LOAD: Load = Load { events: 5_000, rate: 0, duplicates: 0.0, poison: 0.0 };

#[test]
fn an_event_sent_again_within_the_window_is_dropped_and_after_it_lands_again_as_documented() {
    let world = World::new("window");
    let config = world.config().with("[topics.dedup]", "window", "6s");
    let mut millrace = world.start(&config);
    millrace.until_ready();
    let send = || {
        world.generate(LOAD).finish();
        world.until_committed(PATIENCE);
    };
    let counts = || {
        let count = |what: &str| world.stack.count(&format!("SELECT {what} FROM {}", world.table()));
        (count("count()"), count("uniqExact(event_id)"))
    };
    send();
    assert_eq!(counts(), (LOAD.events, LOAD.events));
    send();
    assert_eq!(counts(), (LOAD.events, LOAD.events), "within the window nothing lands again");

    // The window, and at most a quarter of it, since generations are forgotten whole.
    until("the ids are forgotten", PATIENCE, || millrace.metric("millrace_dedup_ids") == 0.0);
    send();
    assert_eq!(counts(), (2 * LOAD.events, LOAD.events), "after the window they land again");
    millrace.terminate();

    // Nor does one that starts anew read ids back that are older than the window.
    let youngest = format!("SELECT max(_ingested_at) < now64(3) - INTERVAL 6 SECOND FROM {}", world.table());
    until("the rows are older than the window", PATIENCE, || world.stack.count(&youngest) == 1);
    let mut other = world.start(&config);
    other.until_ready();
    send();
    assert_eq!(counts(), (3 * LOAD.events, LOAD.events), "after the window they land again, to another process too");
    other.terminate();
}
