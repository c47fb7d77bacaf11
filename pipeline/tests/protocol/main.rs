//! The delivery protocol, model-checked: claim, quiet, position, load, run, commit, by two consumers of two partitions, in
//! every order in which their steps, the server's and Kafka's can come.
//!
//! The model is abstract: each partition has one event, each event its month of the table. A consumer sleeps simply by
//! taking no step while others take theirs, so each is a zombie for as long as the checker likes: Kafka may move a
//! partition and the old owner hears of it at any later time, or never. The simulator in `src/topic/tests/sim.rs` runs
//! the real pipeline at random; this leaves the code out and no order.

mod model;

use stateright::{Checker, Model as _};

use self::model::{DONE, DOUBLED, LOST, Protocol};

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[test]
#[expect(clippy::print_stdout, reason = "how many states were looked at is the worth of the test")]
fn in_every_order_each_event_lands_once_and_none_is_lost() {
    let checked = Protocol::WHOLE.checker().threads(threads()).spawn_bfs().join();
    println!("{} states, {} deep", checked.unique_state_count(), checked.max_depth());
    checked.assert_no_discovery(DOUBLED);
    checked.assert_no_discovery(LOST);
    checked.assert_any_discovery(DONE);
    assert!(checked.is_done());
}

/// Each control has to fail, or the model would not notice.
#[test]
#[expect(clippy::print_stdout, reason = "the shortest way to the harm shows what each part is for")]
fn without_any_one_part_of_the_protocol_some_order_doubles_or_loses_an_event() {
    let whole = Protocol::WHOLE;
    let controls = [
        ("fence", Protocol { fence: false, ..whole }, DOUBLED),
        ("quiet", Protocol { quiet: false, ..whole }, DOUBLED),
        ("load", Protocol { load: false, ..whole }, DOUBLED),
        ("token", Protocol { token: false, ..whole }, DOUBLED),
        ("acknowledgement", Protocol { commit_after_rows: false, ..whole }, LOST),
    ];
    for (name, protocol, harm) in controls {
        let checked = protocol.checker().threads(threads()).spawn_bfs().join();
        let path = checked.discovery(harm).unwrap_or_else(|| panic!("the model would not notice: {protocol:?}"));
        println!("without {name}, {harm:?} does not hold: {:?}", path.into_actions());
    }
}
