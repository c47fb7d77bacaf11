//! The delivery protocol, model-checked: claim, quiet, position, load, run, commit, by two consumers of two partitions, in
//! every order in which their steps, the server's and Kafka's can come.
//!
//! The model is abstract: each partition has one event, each event its month of the table. A consumer sleeps simply by
//! taking no step while others take theirs, so each is a zombie for as long as the checker likes: Kafka may move a
//! partition and the old owner hears of it at any later time, or never. The simulator in `src/topic/tests/sim.rs` runs
//! the real pipeline at random; this leaves the code out and no order.

mod model;

use stateright::{Checker, HasDiscoveries, Model as _};

use self::model::{DONE, DOUBLED, LOST, Protocol, Scope};

/// A zombie with its insert under way, while the other takes one of two partitions over, or both.
const ZOMBIE: Scope = Scope { partitions: 2, epochs: 2, moves: 1, crashes: 0, retries: 0, queries: 2 };
/// An insert of two months that lands in part and is sent again.
const HALF_APPLIED: Scope = Scope { partitions: 2, epochs: 2, moves: 1, crashes: 0, retries: 1, queries: 1 };
/// One partition to and fro, a crash, and an insert that is sent again while its first sending still runs.
const TO_AND_FRO: Scope = Scope { partitions: 1, epochs: 3, moves: 2, crashes: 1, retries: 1, queries: 2 };

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[test]
#[expect(clippy::print_stdout, reason = "how many states were looked at is the worth of the test")]
fn in_every_order_each_event_lands_once_and_none_is_lost() {
    for scope in [ZOMBIE, HALF_APPLIED, TO_AND_FRO] {
        let checked = Protocol::whole(scope).checker().threads(threads()).spawn_bfs().join();
        println!("{scope:?}: {} states, {} steps deep", checked.unique_state_count(), checked.max_depth());
        checked.assert_no_discovery(DOUBLED);
        checked.assert_no_discovery(LOST);
        checked.assert_any_discovery(DONE);
    }
}

/// Each control has to fail, or the model would not notice.
#[test]
#[expect(clippy::print_stdout, reason = "the shortest way to the harm shows what each part is for")]
fn without_any_one_part_of_the_protocol_some_order_doubles_or_loses_an_event() {
    let whole = Protocol::whole(TO_AND_FRO);
    let controls = [
        ("the fence", Protocol { fence: false, ..whole }, DOUBLED),
        ("quiet", Protocol { quiet: false, ..whole }, DOUBLED),
        ("the load", Protocol { load: false, ..whole }, DOUBLED),
        ("the token", Protocol { token: false, ..whole }, DOUBLED),
        ("waiting for rows to commit", Protocol { commit_after_rows: false, ..whole }, LOST),
    ];
    for (name, protocol, harm) in controls {
        // One thread searches breadth first, so that what is found is the shortest way.
        let checked = protocol.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
        let path = checked.discovery(harm).unwrap_or_else(|| panic!("the model would not notice: {protocol:?}"));
        println!("without {name}: {:?}", path.into_actions());
    }
}
