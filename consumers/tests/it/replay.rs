//! `millrace replay` and `millrace dead replay` on real parts: what is missing comes back exactly once, beside a pipeline
//! that goes on, beside other replays, and after a kill.

use std::{
    collections::BTreeSet,
    fs,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use millrace_schemas::{ORDER_EVENT_V1, golden::bad};
use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
    producer::FutureRecord,
};
use serde_json::Value;

use crate::audit::bench::{Bench, PATIENCE, Running, TIMEOUT, id};

/// A row without the time of its insert, as a number.
const FINGERPRINT: &str = "cityHash64(toString(tuple(* EXCEPT (_ingested_at))))";

/// Whom the test's own replays need not be polite to.
const IMPOLITE: [&str; 2] = ["--pause", "1ms"];

impl Bench {
    /// `millrace replay` or, as `["dead", "replay"]`, that of dead letters, with JSON for an answer.
    fn replay(&self, command: &[&str], arguments: &[&str], config: &str) -> (i32, Value) {
        let ran = crate::world::millrace(&self.replay_arguments(command, &[arguments, &["--json"]].concat(), config));
        let report = serde_json::from_str(&ran.stdout);
        (ran.status, report.unwrap_or_else(|error| panic!("{error}: {}{}", ran.stdout, ran.stderr)))
    }

    fn replay_arguments<'a>(&'a self, command: &[&'a str], arguments: &[&'a str], config: &str) -> Vec<&'a str> {
        // One file for each configuration: replays run beside each other, and beside a pipeline.
        let file = self.world.directory.join(format!("{:x}.toml", config.len()));
        if !file.exists() {
            fs::write(&file, config).unwrap();
        }
        let file = Box::leak(file.to_str().unwrap().to_owned().into_boxed_str());
        [command, &["--config", file, "--topic", &self.topic], arguments].concat()
    }

    fn start_replay(&self, arguments: &[&str]) -> Running {
        let config = self.config();
        let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
        let command = command.args(self.replay_arguments(&["replay"], arguments, &config));
        Running(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    async fn number(&self, expression: &str) -> u64 {
        let sql = format!("SELECT toUInt64({expression}) FROM {}.orders", self.world.database);
        self.world.client.query_raw(&sql).fetch_one().await.unwrap()
    }

    /// Rows, different ids, and all there is to a row but the time of its insert.
    async fn state(&self) -> (u64, u64, u64) {
        let sum = format!("sum({FINGERPRINT})");
        (self.number("count()").await, self.number("uniqExact(event_id)").await, self.number(&sum).await)
    }

    async fn wait_for_rows(&self, at_least: u64) {
        let begun = Instant::now();
        while self.number("count()").await < at_least {
            assert!(begun.elapsed() < PATIENCE, "{at_least} rows did not come");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Sends so many events to two partitions, each twentieth of them twice.
    async fn send_events(&self, numbers: std::ops::Range<u64>) {
        for n in numbers {
            self.send_event((n % 2) as i32, id(n)).await;
            if n % 20 == 0 {
                self.send_event((n % 2) as i32, id(n)).await;
            }
        }
    }

    /// A topic of so many events, all landed and committed by a pipeline that has left.
    async fn filled(events: u64) -> Self {
        let bench = Self::new().await;
        let producer = bench.producer.clone();
        let sends = (0..events).map(|n| {
            let (value, producer, topic) = (bench.event(id(n)), producer.clone(), bench.topic.clone());
            async move {
                let record = FutureRecord::<[u8], [u8]>::to(&topic).payload(&value).partition((n % 2) as i32);
                producer.send(record, TIMEOUT).await.unwrap();
            }
        });
        futures::future::join_all(sends).await;
        let running = bench.run();
        bench.settled().await;
        running.stop();
        bench
    }

    fn end_of(&self, topic: &str) -> i64 {
        let consumer: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", &self.world.stack.kafka).create().unwrap();
        consumer.fetch_watermarks(topic, 0, TIMEOUT).unwrap().1
    }
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

/// What a process said, and its status.
fn end(mut running: Running) -> (Option<i32>, String, String) {
    let mut said = [String::new(), String::new()];
    std::io::Read::read_to_string(running.0.stdout.as_mut().unwrap(), &mut said[0]).unwrap();
    std::io::Read::read_to_string(running.0.stderr.as_mut().unwrap(), &mut said[1]).unwrap();
    let [stdout, stderr] = said;
    (running.0.wait().unwrap().code(), stdout, stderr)
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_rows_come_back_exactly_beside_a_pipeline_to_which_their_ids_are_sent_again() {
    const EVENTS: u64 = 2_000;
    let bench = Arc::new(Bench::new().await);
    let running = bench.run();
    bench.send_events(0..EVENTS).await;
    let poison: Vec<Vec<u8>> = bad().into_iter().map(|bad| bad.bytes).collect();
    for value in &poison {
        bench.send(1, value).await;
    }
    bench.settled().await;
    // A pipeline that starts after the deletion has no memory of what was deleted.
    running.stop();
    let whole = bench.state().await;
    assert_eq!((whole.0, whole.1), (EVENTS, EVENTS));
    let letters = bench.end_of(&format!("{}.dead", bench.world.database));

    // The others are older than the window.
    let old = "ALTER TABLE {db}.orders UPDATE _ingested_at = _ingested_at - toIntervalDay(10) WHERE 1 SETTINGS mutations_sync = 1";
    bench.world.sql(old).await;
    let gone = "ALTER TABLE {db}.orders DELETE WHERE cityHash64(event_id) % 3 = 0 SETTINGS mutations_sync = 1";
    bench.world.sql(gone).await;
    let left = bench.state().await;
    let ids = format!("SELECT toString(event_id) FROM {}.orders", bench.world.database);
    let there: BTreeSet<String> =
        bench.world.client.query_raw(&ids).fetch_all::<String>().await.unwrap().into_iter().collect();
    let deleted: Vec<u64> = (0..EVENTS).filter(|n| !there.contains(&id(*n).to_string())).collect();
    let missing = EVENTS - left.0;
    assert!(missing > EVENTS / 4 && missing == deleted.len() as u64, "{missing}");

    let (status, report) = bench.replay(&["replay"], &["--dry-run"], &bench.config());
    assert_eq!((status, &report["landed"], &report["dry_run"]), (0, &missing.into(), &true.into()), "{report:#}");
    assert_eq!((bench.state().await, &report["hand_overs"]), (left, &0.into()), "a dry run changes nothing");

    // The pipeline goes on, and is sent new events and ids that were deleted at once.
    let running = bench.run();
    let stop = Arc::new(AtomicBool::new(false));
    let sending = tokio::spawn({
        let (bench, stop, deleted) = (Arc::clone(&bench), Arc::clone(&stop), deleted.clone());
        async move {
            let mut n = EVENTS;
            let mut deleted = deleted.iter().rev().cycle();
            while !stop.load(Ordering::Relaxed) {
                bench.send_event((n % 2) as i32, id(n)).await;
                let again = deleted.next().unwrap();
                bench.send_event((again % 2) as i32, id(*again)).await;
                n += 1;
            }
            n
        }
    });
    bench.wait_for_rows(left.0 + 1).await;
    let (status, report) = bench.replay(&["replay"], &IMPOLITE, &bench.config());
    assert_eq!(status, 0, "{report:#}");
    assert!(report["landed"].as_u64().unwrap() > 0 && report["hand_overs"].as_u64() >= Some(1), "{report:#}");
    assert_eq!(report["unreadable"], poison.len(), "{report:#}");
    stop.store(true, Ordering::Relaxed);
    let sent = sending.await.unwrap();
    // Once more each, now that all are in the table: the pipeline has to know of them.
    for n in deleted {
        bench.send_event((n % 2) as i32, id(n)).await;
    }
    let audited = bench.settled().await;
    running.stop();

    let (rows, ids, _) = bench.state().await;
    assert_eq!((rows, ids), (sent, sent), "every event once: {report:#}{audited:#}");
    // What was not deleted is as it was; what was comes back as it was, but where the pipeline landed it from a later record.
    let first = |what: &str| format!("sumIf({FINGERPRINT}, {what})");
    let untouched = "_ingested_at < now64(3) - toIntervalDay(5)";
    assert_eq!(bench.number(&first(untouched)).await, left.2);
    assert_eq!(bench.number(&format!("countIf({untouched})")).await, left.0);
    assert_eq!(bench.end_of(&format!("{}.dead", bench.world.database)), letters, "no dead letter is written again");

    let (status, report) = bench.replay(&["replay"], &[], &bench.config());
    assert_eq!((status, &report["landed"], &report["hand_overs"]), (0, &0.into(), &0.into()), "{report:#}");
    Arc::into_inner(bench).unwrap().world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_is_killed_and_two_at_once_after_it_land_every_row_once_and_as_it_was() {
    const EVENTS: u64 = 1_500;
    let bench = Bench::filled(EVENTS).await;
    let whole = bench.state().await;
    bench.world.sql("TRUNCATE TABLE {db}.orders").await;

    let little = ["--batch-rows", "50", IMPOLITE[0], IMPOLITE[1]];
    let killed = bench.start_replay(&little);
    bench.wait_for_rows(100).await;
    signal(&killed.0, "-KILL");
    drop(killed);
    let then = bench.number("count()").await;
    assert!((100..EVENTS).contains(&then), "{then} rows");

    let both = [bench.start_replay(&little), bench.start_replay(&little)].map(end);
    for (status, stdout, stderr) in &both {
        assert_eq!(*status, Some(0), "{stdout}{stderr}");
    }
    assert_eq!(bench.state().await, whole, "{both:?}");
    let (status, report) = bench.audit_json(&[]);
    assert_eq!(status, 0, "{report:#}");
    bench.world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_is_interrupted_says_where_to_go_on_and_a_range_is_kept_to() {
    const EVENTS: u64 = 1_500;
    let bench = Bench::filled(EVENTS).await;
    let whole = bench.state().await;
    bench.world.sql("TRUNCATE TABLE {db}.orders").await;

    let interrupted = bench.start_replay(&["--batch-rows", "20", "--json", IMPOLITE[0], IMPOLITE[1]]);
    bench.wait_for_rows(40).await;
    signal(&interrupted.0, "-INT");
    let (status, stdout, stderr) = end(interrupted);
    let report: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(
        (status, &report["stopped"], &report["ok"]),
        (Some(1), &"interrupted".into(), &false.into()),
        "{stdout}"
    );
    assert!(stderr.contains("not finished: interrupted"), "{stderr}");
    let left = report["left"].as_array().unwrap();
    assert!(!left.is_empty(), "{report:#}");
    for left in left {
        let [partition, from, to] = ["partition", "from", "to"].map(|key| left[key].to_string());
        let landed = format!("countIf(_partition = {partition} AND _offset < {from})");
        assert_eq!(bench.number(&landed).await.to_string(), from, "nothing is left before {from}");
        let range = ["--partition", &partition, "--from", &from, "--to", &to, IMPOLITE[0], IMPOLITE[1]];
        let (status, report) = bench.replay(&["replay"], &range, &bench.config());
        assert_eq!((status, &report["partitions"][0]["range"]["from"].to_string()), (0, &from), "{report:#}");
    }
    assert_eq!(bench.state().await, whole);

    // A range of offsets, and one of times, land what lies in them and nothing else.
    bench.world.sql("TRUNCATE TABLE {db}.orders").await;
    let range = ["--partition", "1", "--from", "100", "--to", "110", IMPOLITE[0], IMPOLITE[1]];
    let (_, report) = bench.replay(&["replay"], &range, &bench.config());
    assert_eq!((&report["landed"], &report["records"]), (&10.into(), &10.into()), "{report:#}");
    let within = bench.number("countIf(_partition = 1 AND _offset >= 100 AND _offset < 110)").await;
    assert_eq!((within, bench.number("count()").await), (10, 10));
    for (range, records) in
        [(["--from", "2001-01-01"], EVENTS), (["--to", "2001-01-01"], 0), (["--from", "2101-01-01"], 0)]
    {
        let (status, report) = bench.replay(&["replay"], &[&range[..], &["--dry-run"]].concat(), &bench.config());
        assert_eq!((status, &report["records"]), (0, &records.into()), "{range:?}: {report:#}");
    }
    bench.world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_committed_is_left_to_the_live_pipeline() {
    let bench = Bench::new().await;
    for n in 0..10 {
        bench.send_event(0, id(n)).await;
    }
    let (status, report) = bench.replay(&["replay"], &[], &bench.config());
    assert_eq!((status, &report["records"], &report["landed"]), (0, &0.into(), &0.into()), "{report:#}");
    bench.commit(0, 4);
    let (status, report) = bench.replay(&["replay"], &["--to", "8"], &bench.config());
    assert_eq!((status, &report["records"], &report["landed"]), (0, &4.into(), &4.into()), "{report:#}");
    let notes = report["notes"].to_string();
    assert!(notes.contains("4 offsets from 4 on are not committed yet"), "{notes}");
    assert_eq!(bench.number("max(_offset)").await, 3);
    bench.world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_that_a_newer_schema_reads_land_once_however_often_they_are_replayed() {
    const EVENTS: u64 = 60;
    let bench = Bench::new().await;
    // A reader's schema that demands what no writer sends: nothing can be read by it.
    let mut schema: Value = serde_json::from_str(ORDER_EVENT_V1).unwrap();
    let demanded = serde_json::json!({ "name": "demanded", "type": "string" });
    schema["fields"].as_array_mut().unwrap().push(demanded);
    let file = bench.world.directory.join("demanding.avsc");
    fs::write(&file, schema.to_string()).unwrap();
    let mended = bench.config();
    let demanding = mended.replace("#reader_schema = \"order_event.avsc\"", &format!("reader_schema = {file:?}"));
    assert_ne!(demanding, mended);

    let running = bench.run_with(&demanding);
    bench.send_events(0..EVENTS).await;
    let poison: Vec<Vec<u8>> = bad().into_iter().map(|bad| bad.bytes).collect();
    for value in &poison {
        bench.send(0, value).await;
    }
    let dead = format!("{}.dead", bench.world.database);
    let letters = EVENTS + EVENTS / 20 + poison.len() as u64;
    let begun = Instant::now();
    while (bench.end_of(&dead) as u64) < letters {
        assert!(begun.elapsed() < PATIENCE, "the dead letters did not come");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    running.stop();
    assert_eq!(bench.number("count()").await, 0);

    let replay = |arguments: &[&str], config: &str| {
        let (status, report) = bench.replay(&["dead", "replay"], &[arguments, &IMPOLITE].concat(), config);
        assert_eq!(status, 0, "{report:#}");
        report
    };
    let report = replay(&["--dry-run"], &demanding);
    assert_eq!((&report["landed"], &report["unreadable"]), (&0.into(), &letters.into()), "{report:#}");
    let report = replay(&["--dry-run", "--samples", "1000"], &mended);
    assert_eq!((&report["landed"], &report["unreadable"]), (&EVENTS.into(), &poison.len().into()), "{report:#}");
    let places: BTreeSet<String> =
        report["landed_samples"].as_array().unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(places.len() as u64, EVENTS, "each letter that would land is told");
    assert_eq!(bench.number("count()").await, 0, "a dry run changes nothing");

    // Some of them, beside a pipeline that reads with the newer schema by now and is sent one of them again.
    let running = bench.run();
    let report = replay(&["--partition", "1", "--reason", "unreadable", "--from", "0", "--to", "10"], &mended);
    let some = report["landed"].as_u64().unwrap();
    assert!(some > 0 && some <= 10, "{report:#}");
    assert_eq!(bench.number("countIf(_partition = 1 AND _offset < 10)").await, some);
    bench.send_event(1, id(1)).await;
    bench.send_event(1, id(EVENTS + 1)).await;
    let report = replay(&[], &mended);
    assert_eq!(report["landed"], EVENTS - some, "{report:#}");
    bench.wait_for_rows(EVENTS + 1).await;
    let report = replay(&[], &mended);
    assert_eq!((&report["landed"], &report["hand_overs"]), (&0.into(), &0.into()), "{report:#}");
    running.stop();
    let (rows, ids, _) = bench.state().await;
    assert_eq!((rows, ids), (EVENTS + 1, EVENTS + 1));
    assert_eq!(bench.end_of(&dead) as u64, letters, "the dead-letter topic is as it was");
    bench.world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_replayed_is_one_line_with_the_right_status() {
    let bench = Bench::new().await;
    let refused = |command: &[&str], arguments: &[&str], status: i32, words: &[&str]| {
        let config = bench.config();
        let ran = crate::world::millrace(&bench.replay_arguments(command, arguments, &config));
        assert_eq!((ran.status, ran.stdout.as_str()), (status, ""), "{}", ran.stderr);
        assert!(words.iter().all(|word| ran.stderr.contains(word)), "{words:?} in {}", ran.stderr);
    };
    refused(&["replay"], &["--partition", "7"], 1, &["--partition 7", "2 partitions"]);
    refused(&["replay"], &["--from", "5", "--to", "5"], 2, &["--from 5", "--to 5"]);
    refused(&["replay"], &["--from", "tomorrow"], 2, &["tomorrow", "2026-01-31T12:00:00Z", "2h"]);
    refused(&["dead", "replay"], &["--reason", "bad_magik"], 2, &["bad_magik", "bad_magic"]);
    refused(&["dead", "replay"], &["--batch-rows", "0"], 2, &["--batch-rows", "1 to 1000000"]);
    let file = bench.world.write(&bench.config());
    let ran = crate::world::millrace(&["replay", "--config", &file, "--topic", "ordres"]);
    assert!(ran.status == 2 && ran.stderr.contains(&bench.topic), "{}", ran.stderr);
    bench.world.clean_up().await;
}
