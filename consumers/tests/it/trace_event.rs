//! `millrace trace-event`: what became of one event.

use std::time::Duration;

use rdkafka::{
    Message,
    message::{Header, OwnedHeaders},
    producer::FutureRecord,
};
use serde_json::{Value, json};

use crate::small::Small;

const SOON: Duration = Duration::from_secs(20);
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn trace(small: &Small, arguments: &[&str]) -> (i32, Value) {
    let ran = small.world.millrace("trace-event", &[&["--json"], arguments].concat(), &small.world.config);
    let report = serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{}{}", ran.stdout, ran.stderr));
    assert_eq!(ran.stderr, "");
    (ran.status, report)
}

fn at(small: &Small, offset: &str) -> (i32, Value) {
    trace(small, &["--partition", "0", "--offset", offset])
}

fn id(id: u32) -> String {
    uuid::Uuid::from_u128(u128::from(id)).to_string()
}

#[tokio::test]
async fn the_way_of_an_event_ends_in_its_row_its_original_its_dead_letter_or_nowhere_yet() {
    let small = Small::new().await;
    let (topic, event) = (small.topic.clone(), small.event(0));
    let headers = OwnedHeaders::new().insert(Header { key: "traceparent", value: Some(TRACEPARENT) });
    let record = FutureRecord::to(&topic).key(&b"key"[..]).payload(&event[..]).partition(0);
    small.send(record.headers(headers)).await;
    small.produce(0, 1..3).await;
    // At 3 the second again, at 4 what breaks, at 5 one more.
    small.produce(0, 1..2).await;
    small.produce_to(&topic, 0, &[event[..event.len() - 1].to_vec()]).await;
    small.produce(0, 5..6).await;
    let mut running = small.run();
    small.until_rows(4, SOON, &running).await;
    assert!(running.terminate().await.0.success());
    assert_eq!(small.committed().unwrap().0, 6);
    small.produce(0, 6..7).await;

    let (status, landed) = at(&small, "0");
    assert_eq!(
        (status, &landed["verdict"], &landed["place"]),
        (0, &json!("landed"), &json!({"partition": 0, "offset": 0}))
    );
    assert_eq!((&landed["id"], &landed["record"]["traceparent"]), (&json!(id(0)), &json!(TRACEPARENT)), "{landed}");
    assert_eq!(landed["offsets"], json!({ "oldest": 0, "committed": 6, "next": 7 }));
    assert_eq!((landed["rows"].as_array().unwrap().len(), &landed["rows"][0]["offset"]), (1, &json!(0)));
    assert!(landed["record"]["timestamp"].is_string() && landed["record"]["schema_id"].is_u64(), "{landed}");

    let (status, duplicate) = at(&small, "3");
    assert_eq!((status, &duplicate["verdict"]), (0, &json!("duplicate")));
    assert_eq!(duplicate["rows"][0]["offset"], 1);
    assert!(duplicate["why"].as_str().unwrap().contains("read at partition 0, offset 1."), "{duplicate}");

    let (status, dead) = at(&small, "4");
    assert_eq!((status, &dead["verdict"], &dead["id"]), (0, &json!("dead_letter"), &Value::Null));
    assert_eq!(
        (&dead["dead_letters"][0]["reason"], &dead["dead_letters"][0]["offset"]),
        (&json!("truncated"), &json!(0))
    );
    assert!(dead["record"]["unreadable"].is_string(), "{dead}");

    for arguments in [&["--partition", "0", "--offset", "6"][..], &["--id", &id(6)]] {
        let (status, pending) = trace(&small, arguments);
        assert_eq!((status, &pending["verdict"], &pending["place"]["offset"]), (0, &json!("pending"), &json!(6)));
        assert!(pending["why"].as_str().unwrap().contains("committed offset 6"), "{pending}");
    }

    let (status, absent) = at(&small, "7");
    assert_eq!((status, &absent["verdict"], &absent["record"]), (0, &json!("not_there"), &Value::Null));
    let (status, unknown) = trace(&small, &["--id", &id(77)]);
    assert_eq!((status, &unknown["verdict"], &unknown["place"]), (0, &json!("not_there"), &Value::Null));
    let (status, by_id) = trace(&small, &["--id", &id(5)]);
    assert_eq!((status, &by_id["verdict"], &by_id["place"]["offset"]), (0, &json!("landed"), &json!(5)));

    // A row that is gone, and one that is there twice.
    small
        .world
        .sql(&format!("ALTER TABLE {{db}}.orders DELETE WHERE event_id = '{}' SETTINGS mutations_sync = 2", id(2)))
        .await;
    small
        .world
        .sql(&format!("INSERT INTO {{db}}.orders SELECT * FROM {{db}}.orders WHERE event_id = '{}'", id(5)))
        .await;
    let (status, lost) = at(&small, "2");
    assert_eq!((status, &lost["verdict"]), (1, &json!("lost")));
    let (status, doubled) = trace(&small, &["--id", &id(5)]);
    assert_eq!((status, &doubled["verdict"]), (1, &json!("doubled")));

    let told = small.world.millrace("trace-event", &["--partition", "0", "--offset", "3"], &small.world.config);
    assert!(
        told.stdout.ends_with(
            "It is a duplicate: the table has the event of the same id that was read at partition 0, offset 1.\n"
        ),
        "{}",
        told.stdout
    );
    let refused = small.world.millrace("trace-event", &["--partition", "9", "--offset", "3"], &small.world.config);
    assert!(refused.status == 1 && refused.stderr.contains("there is no partition 9"), "{}", refused.stderr);
    assert_eq!(small.records(&topic)[4].offset(), 4);
    small.world.clean_up().await;
}
