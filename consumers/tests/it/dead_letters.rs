//! Events that cannot be read: what their dead letters hold, how they are looked at, the table that they go to, and the
//! limit that stops a topic when suddenly everything is bad.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use rdkafka::{
    Message,
    message::{Header, Headers, OwnedHeaders, OwnedMessage},
    producer::FutureRecord,
};
use serde_json::{Value, json};

use crate::{
    small::{Running, Small},
    world::millrace,
};

const SOON: Duration = Duration::from_secs(20);

/// With a field that no event has and that has no default.
const WRONG_SCHEMA: &str = r#"{"type": "record", "name": "Small", "fields": [
    {"name": "event_id", "type": {"type": "string", "logicalType": "uuid"}},
    {"name": "timestamp", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "no_default", "type": "string"}]}"#;

fn dead_topic(small: &Small) -> String {
    format!("{}.dead", small.world.database)
}

fn headers(message: &OwnedMessage) -> Vec<(String, Option<Vec<u8>>)> {
    let headers = message.headers().into_iter().flat_map(Headers::iter);
    headers.map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
}

/// Source offsets of the dead letters that are there, of partition 0.
fn sources(small: &Small) -> Vec<i64> {
    let source = |message: &OwnedMessage| {
        let headers = headers(message);
        let (_, offset) = headers.iter().rfind(|(name, _)| name == "millrace.source.offset").unwrap();
        String::from_utf8(offset.clone().unwrap()).unwrap().parse().unwrap()
    };
    small.records(&dead_topic(small)).iter().map(source).collect()
}

async fn until_committed(small: &Small, offset: i64, running: &Running) {
    let deadline = Instant::now() + SOON;
    while small.committed().is_none_or(|(committed, _)| committed < offset) {
        assert!(Instant::now() < deadline, "{:?} of {offset}\n{}", small.committed(), running.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Runs `millrace dead …`, and returns each line of its JSON.
fn dead(small: &Small, arguments: &[&str]) -> Vec<Value> {
    let file = small.world.write(&small.world.config);
    let ran = millrace(&[&["dead", arguments[0], "--config", &file, "--json"], &arguments[1..]].concat());
    assert_eq!((ran.status, ran.stderr.as_str()), (0, ""), "{}", ran.stdout);
    ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Sends an event whose last byte is missing, with a key and headers; its offset.
async fn send_truncated(small: &Small, id: u32) -> i64 {
    let (event, topic) = (small.event(id), small.topic.clone());
    let headers =
        OwnedHeaders::new()
            .insert(Header { key: "trace", value: Some(&[0xff, 0][..]) })
            .insert(Header::<&[u8]> { key: "trace", value: None });
    let record = FutureRecord::to(&topic).key(&b"\xfekey"[..]).payload(&event[..event.len() - 1]);
    small.send(record.headers(headers).partition(0).timestamp(1_700_000_000_123)).await
}

#[tokio::test]
async fn a_dead_letter_has_the_original_untouched_and_can_be_listed_and_shown() {
    let small = Small::new().await;
    small.produce(0, 0..3).await;
    let bad = send_truncated(&small, 3).await;
    small.produce_to(&small.topic, 0, &[b"{\"no\": \"Avro\"}".to_vec()]).await;
    let tombstone = FutureRecord::<[u8], [u8]>::to(&small.topic).key(b"key").partition(0);
    small.send(tombstone).await;
    let mut running = small.run();
    until_committed(&small, 6, &running).await;
    for (reason, count) in [("truncated", 1.0), ("empty_value", 1.0), ("bad_utf8", 0.0)] {
        let series = format!("millrace_dead_letters_total{{topic=\"{}\",reason=\"{reason}\"}}", small.topic);
        assert_eq!(running.metric(&series).await, Some(count), "{reason}");
    }
    running.terminate().await;

    let letters = small.records(&dead_topic(&small));
    assert_eq!(letters.len(), 3);
    let (letter, event) = (&letters[0], small.event(3));
    assert_eq!((letter.key(), letter.payload()), (Some(&b"\xfekey"[..]), Some(&event[..event.len() - 1])));
    assert_eq!((letters[2].key(), letters[2].payload()), (Some(&b"key"[..]), None));
    let schema_id = u32::from_be_bytes(event[1..5].try_into().unwrap()).to_string();
    let text = |text: &str| Some(text.as_bytes().to_vec());
    let mut found = headers(letter);
    let error = found.remove(7).1.unwrap();
    assert!(String::from_utf8(error).unwrap().contains("breaks at byte 37"), "{found:?}");
    let expected = [
        ("trace", Some(vec![0xff, 0])),
        ("trace", None),
        ("millrace.source.topic", text(&small.topic)),
        ("millrace.source.partition", text("0")),
        ("millrace.source.offset", text(&bad.to_string())),
        ("millrace.source.timestamp_ms", text("1700000000123")),
        ("millrace.reason", text("truncated")),
        ("millrace.schema_id", text(&schema_id)),
        ("millrace.version", text(env!("CARGO_PKG_VERSION"))),
    ];
    assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value)));

    let listed = dead(&small, &["list"]);
    assert_eq!(listed.len(), 4);
    assert_eq!(listed[3]["reasons"], json!({ "truncated": 1, "bad_magic": 1, "empty_value": 1 }));
    assert_eq!(listed[0]["source"], json!({ "topic": small.topic, "partition": 0, "offset": bad }));
    let count = |arguments: &[&str]| {
        let lines = dead(&small, &[&["list", "--limit", "0"], arguments].concat());
        assert_eq!(lines.len(), 1);
        lines[0]["count"].as_u64().unwrap()
    };
    for (arguments, expected) in [
        (&["--topic", &small.topic][..], 3),
        (&["--reason", "truncated", "--reason", "empty_value"], 2),
        (&["--schema-id", &schema_id], 1),
        (&["--schema-id", "999999"], 0),
        (&["--partition", "0", "--from", &(bad + 1).to_string(), "--to", &(bad + 2).to_string()], 1),
        (&["--partition", "1"], 0),
        (&["--from", "1h"], 2),
        (&["--to", "1h"], 1),
        (&["--from", "2023-11-14T22:13:20.123Z", "--to", "2023-11-14T22:13:20.124Z"], 1),
        (&["--to", "2023-11-14T22:13:20.123Z"], 0),
    ] {
        assert_eq!(count(arguments), expected, "{arguments:?}");
    }

    let by_letter = &dead(&small, &["show", "0:0"])[0];
    let by_source = &dead(&small, &["show", "--source", &format!("0:{bad}")])[0];
    for shown in [by_letter, by_source] {
        assert_eq!((&shown["key"], &shown["headers"][0]["value"]), (&json!("0xfe6b6579"), &json!("0xff00")), "{shown}");
        assert_eq!((&shown["broken_at"], &shown["broken_path"]), (&json!(37), &json!("timestamp")), "{shown}");
        assert_eq!(
            (&shown["fields"][0]["path"], &shown["readable_now"]),
            (&json!("event_id"), &json!(false)),
            "{shown}"
        );
        assert_eq!(shown["source"]["offset"], bad);
    }
    let good = &dead(&small, &["show", "--source", "0:1"])[0];
    assert_eq!((&good["readable_now"], &good["broken_at"]), (&json!(true), &Value::Null), "{good}");

    let file = small.world.write(&small.world.config);
    for (place, words) in [("0:77", "there is no record at"), ("9:0", "there is no partition 9")] {
        let ran = millrace(&["dead", "show", "--config", &file, place]);
        assert_eq!((ran.status, ran.stderr.lines().count()), (1, 1), "{}", ran.stderr);
        assert!(ran.stderr.contains(words) && ran.stderr.contains(&dead_topic(&small)), "{}", ran.stderr);
    }
    small.world.clean_up().await;
}

/// Lets it run until it stops by itself, and returns the line that says why.
async fn stopped(small: &Small) -> String {
    let mut running = small.run();
    assert_eq!(running.ended(SOON).await.code(), Some(1), "{}", running.log());
    let log = running.log();
    let errors: Vec<&str> = log.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{log}");
    errors[0].to_owned()
}

fn assert_all_accounted_for(small: &Small) {
    let ran = small.world.millrace("audit", &["--json"], &small.world.config);
    let report: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{}", ran.stderr));
    assert_eq!((ran.status, &report["topics"][0]["partitions"][0]["pending"]), (0, &json!(0)), "{report:#}");
}

#[tokio::test]
async fn a_topic_that_turns_bad_stops_with_few_dead_letters_and_goes_on_once_the_limit_is_raised() {
    let mut small = Small::new().await;
    small.produce(0, 0..500).await;
    small.produce_to(&small.topic, 0, &vec![b"garbage".to_vec(); 3_000]).await;
    small.produce(0, 500..1_000).await;
    let error = stopped(&small).await;
    for words in
        [&*small.topic, "cannot be read", "bad_magic", "partition 0, offset ", "dead_letters.max_share (0.5 over 60 s)"]
    {
        assert!(error.contains(words), "{words} in {error}");
    }
    // The whole backlog is one chunk or few: what is judged first is never more than the least that is judged.
    let moved = sources(&small);
    assert!(moved.len() <= 1_000, "{} dead letters", moved.len());
    let committed = small.committed().map_or(0, |(offset, _)| offset);
    let rows = small.rows().await;
    assert!(committed <= 500 + moved.len() as i64, "{committed}");
    assert!(rows.0 == rows.1 && rows.0 as i64 >= committed.min(500), "{rows:?} of {committed}");

    // One that stays can be asked why, until a signal comes.
    small.set("stay_stopped = \"0s\"", "stay_stopped = \"5m\"");
    let mut running = small.run();
    let why = format!("millrace_topic_stopped{{topic=\"{}\",reason=\"dead_letters\"}}", small.topic);
    let deadline = Instant::now() + SOON;
    while running.metric(&why).await != Some(1.0) {
        assert!(Instant::now() < deadline, "{}", running.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(running.get("/readyz").await.contains("cannot be read"), "{}", running.get("/readyz").await);
    assert_eq!(running.terminate().await.0.code(), Some(1), "{}", running.log());

    small.set("#max_share = 0.5", "max_share = 1.0");
    let mut running = small.run();
    until_committed(&small, 4_000, &running).await;
    small.until_rows(1_000, SOON, &running).await;
    let share = format!("millrace_dead_letter_share{{topic=\"{}\"}}", small.topic);
    let deadline = Instant::now() + SOON;
    while running.metric(&share).await.is_none_or(|share| share <= 0.5) {
        assert!(Instant::now() < deadline, "{}", running.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(running.terminate().await.0.success());
    let letters: BTreeSet<i64> = sources(&small).into_iter().collect();
    assert_eq!(letters, (500..3_500).collect());
    assert_all_accounted_for(&small);
    small.world.clean_up().await;
}

#[tokio::test]
async fn every_fifth_record_poison_stops_nothing() {
    let small = Small::new().await;
    let values: Vec<Vec<u8>> =
        (0..5_000).map(|n| if n % 5 == 0 { b"garbage".to_vec() } else { small.event(n) }).collect();
    small.produce_to(&small.topic, 0, &values).await;
    let mut running = small.run();
    until_committed(&small, 5_000, &running).await;
    small.until_rows(4_000, SOON, &running).await;
    assert!(running.terminate().await.0.success());
    assert_eq!(sources(&small), (0..5_000).step_by(5).collect::<Vec<i64>>());
    small.world.clean_up().await;
}

#[tokio::test]
async fn a_wrong_deployment_stops_the_topic_and_once_it_is_mended_everything_lands() {
    let mut small = Small::new().await;
    small.produce(0, 0..100).await;
    let mut running = small.run();
    small.until_rows(100, SOON, &running).await;
    running.terminate().await;
    small.produce(0, 100..2_500).await;
    let right = small.world.config.lines().find(|line| line.starts_with("reader_schema")).unwrap().to_owned();
    let wrong = small.world.directory.join("wrong.avsc");
    std::fs::write(&wrong, WRONG_SCHEMA).unwrap();
    small.set(&right, &format!("reader_schema = {wrong:?}"));
    for _ in 0..2 {
        // A restart alone changes nothing.
        let error = stopped(&small).await;
        assert!(error.contains("unreadable") && error.contains("--source 0:"), "{error}");
    }
    let moved: BTreeSet<i64> = sources(&small).into_iter().collect();
    assert!(moved.len() <= 2_000, "{} dead letters", moved.len());
    small.set(&format!("reader_schema = {wrong:?}"), &right);
    let mut running = small.run();
    until_committed(&small, 2_500, &running).await;
    running.terminate().await;
    let (rows, distinct) = small.rows().await;
    assert!(rows == distinct && rows >= 2_500 - moved.len() as u64, "{rows}, {distinct}, {} moved", moved.len());
    assert_all_accounted_for(&small);
    small.world.clean_up().await;
}

/// Source offsets of the rows, each once, in order.
async fn in_table(small: &Small) -> Vec<i64> {
    let sql = format!("SELECT source_offset FROM {}.orders_dead FINAL ORDER BY source_offset", small.world.database);
    small.world.client.query_raw(&sql).fetch_all::<i64>().await.unwrap()
}

#[tokio::test]
async fn dead_letters_go_into_their_table_too_once_with_final_and_offsets_wait_for_it() {
    let mut small = Small::new().await;
    small.set("#table = \"orders_dead\"", "table = \"orders_dead\"");
    small.set("#failures_to_open = 5", "failures_to_open = 2");
    small.set("#rest = \"5s\"", "rest = \"200ms\"");
    let ran = small.world.millrace("run", &["--log-level", "error"], &small.world.config);
    assert!(
        ran.status == 1 && ran.stderr.contains(".orders_dead: make it with `millrace migrate --apply`"),
        "{}",
        ran.stderr
    );
    small
        .world
        .check(&small.world.config)
        .tells("clickhouse", &["orders_dead does not exist", "millrace migrate --apply"]);
    let applied = small.world.millrace("migrate", &["--apply"], &small.world.config);
    assert!(applied.status == 0 && applied.stdout.contains("create table orders_dead"), "{}", applied.stdout);
    let again = small.world.millrace("migrate", &["--apply"], &small.world.config);
    assert!(again.status == 0 && again.stdout.contains("Nothing to do."), "{}", again.stdout);

    let checked = small.world.check(&small.world.config);
    assert!(checked.problems().iter().all(|problem| !problem.contains("orders_dead")), "{}", checked.stdout);

    small.produce(0, 0..3).await;
    let bad = send_truncated(&small, 3).await;
    small.send(FutureRecord::<[u8], [u8]>::to(&small.topic).key(b"key").partition(0)).await;
    let mut running = small.run();
    until_committed(&small, 5, &running).await;
    assert_eq!(in_table(&small).await, [bad, bad + 1]);
    let event = small.event(3);
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02X}")).collect::<String>();
    let expected = format!(
        "{}|0|2023-11-14 22:13:20.123|truncated|{}|FE6B6579|{}|[('trace','FF00'),('trace',NULL)]",
        small.topic,
        u32::from_be_bytes(event[1..5].try_into().unwrap()),
        hex(&event[..event.len() - 1])
    );
    let sql = format!(
        "SELECT concat(source_topic, '|', toString(source_partition), '|', toString(source_timestamp), '|', reason, '|', \
         toString(assumeNotNull(schema_id)), '|', hex(assumeNotNull(key)), '|', hex(assumeNotNull(value)), '|', \
         toString(arrayMap(header -> (header.1, if(header.2 IS NULL, NULL, hex(header.2))), headers))) \
         FROM {}.orders_dead WHERE source_offset = {bad}",
        small.world.database
    );
    assert_eq!(small.world.client.query_raw(&sql).fetch_one::<String>().await.unwrap(), expected);

    // While the table takes nothing, offsets wait for it.
    small.world.sql("RENAME TABLE {db}.orders_dead TO {db}.away").await;
    let late = send_truncated(&small, 4).await;
    running.until_logged("dead letters were not inserted; offsets wait for them", SOON).await;
    let deadline = Instant::now() + SOON;
    while !running.get("/readyz").await.contains("dead letters do not get into") {
        assert!(Instant::now() < deadline, "{}", running.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    running.until_logged("circuit breaker opened", SOON).await;
    assert_eq!(small.committed().unwrap().0, 5);
    small.world.sql("RENAME TABLE {db}.away TO {db}.orders_dead").await;
    until_committed(&small, late + 1, &running).await;
    let of_target = format!("{{target=\"dead_letter_table/{}\"}}", small.topic);
    assert_eq!(running.metric(&format!("millrace_breaker_openings_total{of_target}")).await, Some(1.0));
    assert_eq!(running.metric(&format!("millrace_breaker_state{of_target}")).await, Some(0.0));
    running.terminate().await;

    // Read again from the beginning, as after a crash.
    small.commit(0, "");
    let mut running = small.run();
    until_committed(&small, late + 1, &running).await;
    running.terminate().await;
    assert_eq!(small.records(&dead_topic(&small)).len(), 6, "at least once");
    assert_eq!(in_table(&small).await, [bad, bad + 1, late]);
    assert_eq!(small.rows().await, (3, 3));
    small.world.clean_up().await;
}
