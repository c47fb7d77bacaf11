//! `millrace audit` on real parts: what a pipeline landed is accounted for while it runs, and each break that is made on
//! purpose afterwards is found with its coordinates.

pub(crate) mod bench;

use std::{
    io::{BufRead, BufReader, Read},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use millrace_schemas::golden::bad;
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, FutureRecord, Producer},
};
use serde_json::Value;
use uuid::Uuid;

use self::bench::{Bench, PATIENCE, Running, TIMEOUT, id};
use crate::world::NOBODY;

/// Of all partitions.
fn sum(report: &Value, field: &str) -> u64 {
    let partitions = report["topics"][0]["partitions"].as_array().unwrap();
    partitions.iter().map(|partition| partition[field].as_u64().unwrap()).sum()
}

/// How many of a kind, and for each sample its id and first coordinates.
fn found(report: &Value, kind: &str) -> (u64, Vec<(Option<String>, i64, i64)>) {
    let found = &report["topics"][0]["findings"][kind];
    let samples = found["samples"].as_array().unwrap().iter().map(|sample| {
        let record = &sample["records"][0];
        let id = sample["id"].as_str().map(str::to_owned);
        (id, record["partition"].as_i64().unwrap(), record["offset"].as_i64().unwrap())
    });
    (found["count"].as_u64().unwrap(), samples.collect())
}

fn one(id: Option<Uuid>, partition: i64, offset: i64) -> (u64, Vec<(Option<String>, i64, i64)>) {
    (1, vec![(id.map(|id| id.to_string()), partition, offset)])
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_pipeline_lands_is_accounted_for_and_every_break_is_found_with_its_coordinates() {
    const EVENTS: u64 = 1_000;
    let bench = Bench::new().await;
    let running = bench.run();
    let mut offsets = Vec::new();
    for n in 0..EVENTS {
        offsets.push(bench.send_event((n % 2) as i32, id(n)).await);
        if n % 20 == 0 {
            bench.send_event((n % 2) as i32, id(n)).await;
        }
    }
    let poison: Vec<Vec<u8>> = bad().into_iter().map(|bad| bad.bytes).collect();
    for value in &poison {
        bench.send(1, value).await;
    }
    let report = bench.settled().await;
    let totals = ["records", "rows", "duplicates", "dead_letters", "lost"].map(|field| sum(&report, field));
    let bad = poison.len() as u64;
    assert_eq!(totals, [EVENTS + EVENTS / 20 + bad, EVENTS, EVENTS / 20, bad, 0], "{report:#}");
    running.stop();
    let ran = bench.audit(&[]);
    assert!(ran.status == 0 && ran.stdout.ends_with("\nAll accounted for.\n"), "{}{}", ran.stdout, ran.stderr);

    // Events that are not committed are on their way.
    bench.send_event(0, id(9_001)).await;
    bench.send_event(1, id(9_002)).await;
    let (status, report) = bench.audit_json(&[]);
    assert_eq!((status, sum(&report, "pending"), sum(&report, "lost")), (0, 2, 0), "{report:#}");

    // Each break, with nothing to do with the others.
    let [lost, doubled] = [id(10), id(31)];
    bench
        .world
        .sql(&format!("ALTER TABLE {{db}}.orders DELETE WHERE event_id = '{lost}' SETTINGS mutations_sync = 1"))
        .await;
    bench
        .world
        .sql(&format!("INSERT INTO {{db}}.orders SELECT * FROM {{db}}.orders WHERE event_id = '{doubled}'"))
        .await;
    let foreign = id(9_003);
    bench.insert(foreign, 0, offsets[100], 0).await;
    let moved = id(52);
    let moved_to = bench.send_event(1, moved).await;
    bench.insert(moved, 1, moved_to, 0).await;
    let late = id(9_004);
    let late_at = [bench.send_event(0, late).await, bench.send_event(0, late).await];
    bench.insert(late, 0, late_at[0], 3).await;
    bench.insert(late, 0, late_at[1], 0).await;
    let again = id(9_005);
    let again_at = [bench.send_event(0, again).await, bench.send_event(0, again).await];
    bench.insert(again, 0, again_at[0], 0).await;
    bench.insert(again, 0, again_at[1], 0).await;
    let unreadable = bench.send(1, b"no Avro at all").await;
    // A dead letter of the same offset in another topic explains nothing.
    let headers = [("topic", "others"), ("partition", "1"), ("offset", &unreadable.to_string())];
    let headers = headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
        headers.insert(Header { key: &format!("millrace.source.{key}"), value: Some(*value) })
    });
    let dead = format!("{}.dead", bench.world.database);
    let letter = FutureRecord::<[u8], [u8]>::to(&dead).headers(headers);
    bench.producer.send(letter, TIMEOUT).await.unwrap();
    bench.commit(0, again_at[1] + 1);
    bench.commit(1, unreadable + 1);

    let (status, report) = bench.audit_json(&[]);
    assert_eq!(status, 1, "{report:#}");
    let pending_then = found(&report, "lost");
    assert_eq!(pending_then.0, 3, "the two that were pending are committed past now: {report:#}");
    assert!(pending_then.1.contains(&one(Some(lost), 0, offsets[10]).1[0]), "{report:#}");
    assert_eq!(found(&report, "dead_letters_missing"), one(None, 1, unreadable), "{report:#}");
    assert_eq!(found(&report, "rows_unexplained"), one(Some(foreign), 0, offsets[100]), "{report:#}");
    assert_eq!(found(&report, "in_two_partitions"), one(Some(moved), 0, offsets[52]), "{report:#}");
    assert_eq!(found(&report, "beyond_window"), one(Some(late), 0, late_at[0]), "{report:#}");
    let doubles = [one(Some(doubled), 1, offsets[31]), one(Some(again), 0, again_at[0])];
    let (count, samples) = found(&report, "doubled");
    assert!(count == 2 && doubles.iter().all(|(_, one)| samples.contains(&one[0])), "{report:#}");
    assert_eq!(report["violations"], 8, "{report:#}");

    // As text, with places and what to do.
    let ran = bench.audit(&["--samples", "1"]);
    assert!(ran.status == 1 && ran.stdout.ends_with("\n8 violations.\n"), "{}", ran.stdout);
    let place = format!("    {}[0]@{}: id {lost}", bench.topic, offsets[10]);
    for words in [&place, "lost: 3 events are neither a row nor a dead letter", "--reset-offsets", "… and 2 more"] {
        assert!(ran.stdout.contains(words), "{words} in {}", ran.stdout);
    }

    // A range tells of what lies in it, and of nothing else.
    let from = offsets[10].to_string();
    let to = (offsets[10] + 1).to_string();
    let (status, report) = bench.audit_json(&["--partition", "0", "--from", &from, "--to", &to]);
    assert_eq!((status, sum(&report, "records"), &report["violations"]), (1, 1, &1.into()), "{report:#}");
    let (status, report) = bench.audit_json(&["--partition", "0", "--from", &to, "--to", &offsets[14].to_string()]);
    assert_eq!((status, sum(&report, "lost")), (0, 0), "{report:#}");
    bench.world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_little_memory_the_topic_is_read_in_passes_that_find_the_same() {
    const EVENTS: u64 = 250_000;
    let bench = Bench::new().await;
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &bench.world.stack.kafka)
        .set("queue.buffering.max.messages", "1000000")
        .create()
        .unwrap();
    for n in 0..EVENTS {
        let value = bench.event(id(n));
        let record = BaseRecord::<[u8], [u8]>::to(&bench.topic).payload(&value).partition((n % 2) as i32);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
    let running = bench.run();
    bench.settled().await;
    running.stop();

    let little = ["--max-memory", "148MiB"];
    let (status, report) = bench.audit_json(&little);
    assert_eq!((status, sum(&report, "rows")), (0, EVENTS), "{report:#}");
    assert!(report["topics"][0]["passes"].as_u64() > Some(2), "{report:#}");

    let gone: Vec<String> = (0..50).map(|n| format!("'{}'", id(n * 4_999))).collect();
    let gone = gone.join(", ");
    bench
        .world
        .sql(&format!("ALTER TABLE {{db}}.orders DELETE WHERE event_id IN ({gone}) SETTINGS mutations_sync = 1"))
        .await;
    let (_, at_once) = bench.audit_json(&["--samples", "50"]);
    let (status, in_passes) = bench.audit_json(&["--samples", "50", little[0], little[1]]);
    assert_eq!((status, found(&in_passes, "lost").0), (1, 50), "{in_passes:#}");
    assert_eq!(found(&in_passes, "lost"), found(&at_once, "lost"));
    bench.world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_nobody_has_committed_is_pending_and_said_to_be() {
    let bench = Bench::new().await;
    for n in 0..5 {
        bench.send_event(0, id(n)).await;
    }
    let ran = bench.audit(&[]);
    assert_eq!(ran.status, 0, "{}{}", ran.stdout, ran.stderr);
    for words in ["5 offsets pending", "committed no offset", "there was nothing to account for"] {
        assert!(ran.stdout.contains(words), "{words} in {}", ran.stdout);
    }
    bench.world.sql("ALTER TABLE {db}.orders MODIFY TTL toDateTime(timestamp) + INTERVAL 25 MONTH").await;
    let ran = bench.audit(&[]);
    assert!(ran.stdout.contains("has TTL toDateTime(timestamp) + toIntervalMonth(25)"), "{}", ran.stdout);
    // An offset that lies past the end belongs to another life of the topic.
    bench.commit(0, 500);
    let ran = bench.audit(&[]);
    assert!(ran.status == 0 && ran.stdout.contains("the topic was recreated"), "{}{}", ran.stdout, ran.stderr);
    bench.world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_retention_took_before_it_was_read_is_told() {
    let bench = Bench::new().await;
    for n in 0..10 {
        let offset = bench.send_event(0, id(n)).await;
        bench.insert(id(n), 0, offset, 0).await;
    }
    bench.commit(0, 3);
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &bench.world.stack.kafka).create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&bench.topic, 0, Offset::Offset(7)).unwrap();
    admin.delete_records(&list, &AdminOptions::new()).await.unwrap();
    let (status, report) = bench.audit_json(&[]);
    assert_eq!(status, 1, "{report:#}");
    assert_eq!(found(&report, "deleted_unread"), (4, vec![(None, 0, 3)]), "{report:#}");
    bench.commit(0, 10);
    let (status, report) = bench.audit_json(&[]);
    assert_eq!((status, sum(&report, "rows")), (0, 3), "{report:#}");
    bench.world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_keeps_it_from_its_work_is_one_line_with_the_right_status() {
    let bench = Bench::new().await;
    let config = bench.config();
    let refused = |arguments: &[&str], config: &str, status: i32, words: &[&str]| {
        let ran = bench.world.millrace("audit", arguments, config);
        assert_eq!((ran.status, ran.stdout.as_str(), ran.stderr.lines().count()), (status, "", 1), "{}", ran.stderr);
        assert!(words.iter().all(|word| ran.stderr.contains(word)), "{words:?} in {}", ran.stderr);
    };
    let quick = ["--timeout", "2s"];
    refused(
        &quick,
        &config.replace(&bench.world.stack.kafka, NOBODY),
        1,
        &[&bench.topic, NOBODY, "kafka.bootstrap_servers"],
    );
    refused(
        &quick,
        &config.replace(&bench.world.stack.clickhouse, &format!("http://{NOBODY}")),
        1,
        &["clickhouse.url"],
    );
    let user = (&bench.world.stack.admin, &bench.world.stack.pipeline);
    let ungranted = config
        .replace(&format!("user = \"{}\"", user.0.user), &format!("user = \"{}\"", user.1.user))
        .replace(&*user.0.password_file.to_string_lossy(), &user.1.password_file.to_string_lossy());
    refused(&quick, &ungranted, 1, &["GRANT SELECT ON", &bench.world.database, &user.1.user]);
    refused(&["--partition", "7"], &config, 1, &["--partition 7", "2 partitions"]);
    refused(&["--topic", "ordres"], &config, 2, &["--topic", "ordres", &bench.topic]);
    refused(&["--partition", "0", "--from", "5", "--to", "5"], &config, 2, &["--from 5", "--to 5"]);
    refused(&quick, &config.replace("[kafka]\n", "[kafka]\ngruop_id = \"a\"\n"), 2, &["did you mean `group_id`?"]);
    bench.send_event(0, id(1)).await;
    bench.commit(0, 1);
    refused(&["--max-memory", "1MiB"], &config, 1, &["--max-memory", "1 MiB"]);
    bench.world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_it_at_once_with_status_1_and_no_verdict() {
    let bench = Bench::new().await;
    let file = bench.world.write(&bench.config().replace(&bench.world.stack.kafka, NOBODY));
    let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
    let command = command.args(["audit", "--config", &file, "--timeout", "5m"]).stdout(Stdio::piped());
    let mut running = Running(command.stderr(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(running.0.stderr.take().unwrap()).lines();
    // It waits for a broker, and after some seconds says so.
    let first = lines.next().unwrap().unwrap();
    assert!(first.contains("asking where it stands"), "{first}");
    let signalled = Instant::now();
    assert!(Command::new("kill").args(["-INT", &running.0.id().to_string()]).status().unwrap().success());
    let rest: Vec<String> = lines.map(Result::unwrap).filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(running.0.wait().unwrap().code(), Some(1));
    assert!(signalled.elapsed() < Duration::from_secs(5), "{:?}", signalled.elapsed());
    assert!(rest.len() == 1 && rest[0].contains("interrupted; nothing is concluded"), "{rest:?}");
    let mut said = String::new();
    running.0.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "");
    bench.world.clean_up().await;
}
