//! A topic whose types of event go into a table each: what lands, and how one section of several is audited, replayed and
//! looked at.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    admin::Admin,
    payments::{rows, until_metric, until_rows},
    small::{Running, Small},
    world::{Ran, millrace, register},
};

const SOON: Duration = Duration::from_secs(20);

const REFUND: &str = r#"{"type": "record", "name": "Refund", "namespace": "shop", "fields": [
    {"name": "refund_id", "type": {"type": "string", "logicalType": "uuid"}},
    {"name": "reason", "type": "string"}]}"#;
const CHARGE: &str = r#"{"type": "record", "name": "Charge", "namespace": "shop", "fields": [
    {"name": "charge_id", "type": {"type": "string", "logicalType": "uuid"}},
    {"name": "cents", "type": "long"}]}"#;
const VOUCHER: &str = r#"{"type": "record", "name": "Voucher", "namespace": "shop", "fields": []}"#;

/// The datum of a record with an id and one more field, behind the header.
fn event(schema_id: u32, branch: &[u8], id: u32, rest: &[u8]) -> Vec<u8> {
    let id = uuid::Uuid::from_u128(u128::from(id)).to_string();
    [&[0], &schema_id.to_be_bytes()[..], branch, &[72], id.as_bytes(), rest].concat()
}

/// A topic of charges and refunds, by record name and as a union, each with a section and a table of its own.
struct Shop {
    small: Small,
    charge: u32,
    refund: u32,
    voucher: u32,
    union: u32,
}

impl Shop {
    async fn new() -> Self {
        let mut small = Small::new().await;
        let (database, registry) = (small.world.database.clone(), small.world.stack.registry.clone());
        let topic = small.topic.clone();
        let charge = register(&registry, &format!("{database}.shop.Charge"), CHARGE).await;
        let refund = register(&registry, &format!("{database}.shop.Refund"), REFUND).await;
        let voucher = register(&registry, &format!("{database}.shop.Voucher"), VOUCHER).await;
        let union = register(&registry, &format!("{topic}-union"), &format!("[{CHARGE}, {REFUND}, {VOUCHER}]")).await;
        for (name, schema) in [("charge", CHARGE), ("refund", REFUND)] {
            std::fs::write(small.world.directory.join(format!("{name}.avsc")), schema).unwrap();
        }
        for (table, column) in
            [("charges", "charge_id UUID, cents Int64"), ("refunds", "refund_id UUID, reason String")]
        {
            small
                .world
                .sql(&format!(
                    "CREATE TABLE {{db}}.{table} ({column}, _partition Int32, _offset Int64, \
                     _ingested_at DateTime64(3, 'UTC') DEFAULT now64(3)) ENGINE = MergeTree ORDER BY _offset \
                     SETTINGS non_replicated_deduplication_window = 10000"
                ))
                .await;
        }
        let (head, _) = small.world.config.split_once("[[topics]]").unwrap();
        let section = |table: &str, record: &str, file: &str, id: &str, other: &str| {
            format!(
                "[[topics]]\nname = {topic:?}\ntable = \"{table}\"\ndead_letter_topic = \"{database}.dead\"\nid = \"{id}\"\n\
                 record = \"shop.{record}\"\nreader_schema = \"{file}.avsc\"\n[topics.batch]\nmax_age = \"50ms\"\n\
                 [topics.columns]\n{id} = \"{id}\"\n{other} = \"{other}\"\n"
            )
        };
        let charges = section("charges", "Charge", "charge", "charge_id", "cents");
        let charges = charges.replace("record =", "other_records = \"dead_letter\"\nrecord =");
        small.world.config =
            head.to_owned() + &charges + &section("refunds", "Refund", "refund", "refund_id", "reason");
        Self { small, charge, refund, voucher, union }
    }

    /// 80 charges and 80 refunds, each of 60 ids, two vouchers, which no section is for, and what is no event.
    fn values(&self) -> Vec<Vec<u8>> {
        let Self { charge, refund, voucher, union, .. } = *self;
        let mut values = Vec::new();
        for n in 0..40 {
            values.push(event(charge, &[], n, &[2 * n as u8]));
            values.push(event(refund, &[], n, b"\x08late"));
            // Equal ids in the other form are duplicates, unless they are new.
            values.push(event(union, &[0], n + 20, &[2 * (n + 20) as u8 % 100]));
            values.push(event(union, &[2], n + 20, b"\x08late"));
        }
        values.push([&[0], &voucher.to_be_bytes()[..]].concat());
        values.push([&[0], &union.to_be_bytes()[..], &[4]].concat());
        values.push(vec![0, 0, 0]);
        values
    }

    /// Does something as the group that a section is read by.
    fn as_group_of<T>(&mut self, table: &str, act: impl FnOnce(&Small) -> T) -> T {
        let group = self.small.group.clone();
        self.small.group = format!("{group}.{table}");
        let done = act(&self.small);
        self.small.group = group;
        done
    }

    /// The series of dead letters of a section.
    fn letters(&self, table: &str, reason: &str) -> String {
        format!("millrace_dead_letters_total{{topic=\"{}/{table}\",reason=\"{reason}\"}}", self.small.topic)
    }
}

#[tokio::test]
async fn each_type_of_event_of_a_topic_lands_in_its_own_table_exactly_once() {
    let mut shop = Shop::new().await;
    let (topic, values) = (shop.small.topic.clone(), shop.values());
    let ran = shop.small.world.check(&shop.small.world.config);
    assert_eq!(ran.status, 0, "{}{}", ran.stdout, ran.stderr);
    for table in ["charges", "refunds"] {
        assert!(ran.stdout.contains(&format!("group {}.{table} may be used", shop.small.group)), "{}", ran.stdout);
    }
    shop.small.produce_to(&topic, 0, &values).await;

    let mut running = shop.small.run();
    until_rows(&shop.small, "charges", 60, &running).await;
    until_rows(&shop.small, "refunds", 60, &running).await;
    until_metric(&running, &shop.letters("charges", "unexpected_record"), 2.0).await;
    until_metric(&running, &shop.letters("charges", "truncated_header"), 1.0).await;
    for reason in ["unexpected_record", "truncated_header"] {
        assert_eq!(running.metric(&shop.letters("refunds", reason)).await, Some(0.0));
    }
    let passed = format!("millrace_records_passed_over_total{{topic=\"{topic}/refunds\"}}");
    until_metric(&running, &passed, 83.0).await;
    assert!(running.terminate().await.0.success(), "{}", running.log());
    // Each has committed all of the topic, as a group of its own, and nothing lands again.
    for table in ["charges", "refunds"] {
        assert_eq!(shop.as_group_of(table, |small| small.committed().unwrap().0), values.len() as i64, "{table}");
    }
    let mut running = shop.small.run();
    shop.small.produce_to(&topic, 0, &values).await;
    until_metric(&running, &passed, 83.0).await;
    until_metric(&running, &shop.letters("charges", "truncated_header"), 1.0).await;
    assert!(running.terminate().await.0.success(), "{}", running.log());
    for (table, id) in [("charges", "charge_id"), ("refunds", "refund_id")] {
        let sql = format!("SELECT count() = 60 AND uniqExact({id}) = 60 AS once FROM {{db}}.{table}");
        assert_eq!(rows(&shop.small, &sql).await[0]["once"], 1, "{table}");
    }
    shop.small.world.clean_up().await;
}

impl Shop {
    /// `millrace <command> --json` with the configuration as it is.
    fn ask(&self, command: &[&str], arguments: &[&str]) -> (i32, Value) {
        let ran = self.tell(command, &[arguments, &["--json"]].concat());
        let answer = serde_json::from_str(&ran.stdout);
        (ran.status, answer.unwrap_or_else(|error| panic!("{error}: {}{}", ran.stdout, ran.stderr)))
    }

    fn tell(&self, command: &[&str], arguments: &[&str]) -> Ran {
        let file = self.small.world.write(&self.small.world.config);
        millrace(&[command, &["--config", &file], arguments].concat())
    }

    /// What became of the records of each section, charges first, of a whole that is in order or is not.
    fn audit(&self, in_order: bool) -> [Audited; 2] {
        let (status, report) = self.ask(&["audit"], &[]);
        assert_eq!((status, &report["ok"]), (i32::from(!in_order), &json!(in_order)), "{report:#}");
        let sections = report["topics"].as_array().unwrap();
        let tables: Vec<&Value> = sections.iter().map(|section| &section["table"]).collect();
        let table = |table: &str| json!(format!("{}.{table}", self.small.world.database));
        assert_eq!(tables, [&table("charges"), &table("refunds")]);
        [0, 1].map(|at| Audited::of(&sections[at]))
    }

    /// Rows of a table, and all there is to them but the time of their insert.
    async fn state(&self, table: &str) -> Value {
        let sum = "sum(cityHash64(toString(tuple(* EXCEPT (_ingested_at)))))";
        let sql = format!("SELECT count() AS rows, toString({sum}) AS sum FROM {{db}}.{table}");
        rows(&self.small, &sql).await.remove(0)
    }
}

/// What an audit says of one section.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Audited {
    rows: u64,
    duplicates: u64,
    dead_letters: u64,
    lost: u64,
    passed_over: u64,
    dead_letters_repeated: u64,
    violations: u64,
}

impl Audited {
    fn of(section: &Value) -> Self {
        let count = |name: &str| section["partitions"][0][name].as_u64().unwrap();
        let findings = section["findings"].as_object().unwrap().values();
        Self {
            rows: count("rows"),
            duplicates: count("duplicates"),
            dead_letters: count("dead_letters"),
            lost: count("lost"),
            passed_over: passed_over(section),
            dead_letters_repeated: section["dead_letters_repeated"].as_u64().unwrap(),
            violations: findings
                .filter(|found| found["violation"] == true)
                .map(|found| found["count"].as_u64().unwrap())
                .sum(),
        }
    }
}

/// How many records a note says were passed over.
fn passed_over(report: &Value) -> u64 {
    let notes = report["notes"].as_array().unwrap().iter().map(|note| note.as_str().unwrap());
    let told: Vec<u64> = notes
        .filter_map(|note| note.split_once(" records are for other sections of the topic")?.0.parse().ok())
        .collect();
    assert_eq!(told.len(), 1, "{report:#}");
    told[0]
}

#[tokio::test]
async fn sections_of_one_topic_are_audited_replayed_and_shown_each_by_itself() {
    let mut shop = Shop::new().await;
    let topic = shop.small.topic.clone();
    // What the reader's schema cannot read yet.
    let short = r#"{"type": "record", "name": "Refund", "namespace": "shop", "fields": [
        {"name": "refund_id", "type": {"type": "string", "logicalType": "uuid"}}]}"#;
    let short = register(&shop.small.world.stack.registry, &format!("{topic}-short"), short).await;
    let mut values = shop.values();
    values.extend([1_000, 1_001].map(|n| event(short, &[], n, &[])));
    shop.small.produce_to(&topic, 0, &values).await;
    let mut running = shop.small.run();
    until_rows(&shop.small, "charges", 60, &running).await;
    until_rows(&shop.small, "refunds", 60, &running).await;
    until_metric(&running, &shop.letters("charges", "truncated_header"), 1.0).await;
    until_metric(&running, &shop.letters("refunds", "unreadable"), 2.0).await;
    assert!(running.terminate().await.0.success(), "{}", running.log());

    // One of the two sections reads all of it again, which writes its dead letters again.
    shop.as_group_of("charges", |small| small.commit(0, ""));
    let mut running = shop.small.run();
    until_metric(&running, &shop.letters("charges", "truncated_header"), 1.0).await;
    assert!(running.terminate().await.0.success(), "{}", running.log());
    let charges = Audited {
        rows: 60,
        duplicates: 20,
        dead_letters: 3,
        lost: 0,
        passed_over: 82,
        dead_letters_repeated: 3,
        violations: 0,
    };
    let refunds = Audited { dead_letters: 2, passed_over: 83, dead_letters_repeated: 0, ..charges };
    assert_eq!(shop.audit(true), [charges, refunds]);
    let told = shop.tell(&["audit"], &["--topic", &topic, "--partition", "0"]);
    for table in ["charges", "refunds"] {
        assert!(told.stdout.contains(&format!("✓ {topic}/{table}[0] offsets 0 to 165: ")), "{}", told.stdout);
    }

    // Of the first ten rounds: their own ids, and those that come again as duplicates.
    shop.small.world.sql("ALTER TABLE {db}.refunds DELETE WHERE _offset < 40 SETTINGS mutations_sync = 2").await;
    let whole = shop.state("charges").await;
    let missing = Audited { rows: 40, duplicates: 10, lost: 30, violations: 30, ..refunds };
    assert_eq!(shop.audit(false), [charges, missing]);

    let refused = shop.tell(&["replay"], &["--topic", &topic]);
    assert_eq!((refused.status, refused.stdout.as_str()), (2, ""), "{}", refused.stderr);
    assert!(refused.stderr.contains("into charges") && refused.stderr.contains("into refunds"), "{}", refused.stderr);
    let refused = shop.tell(&["replay"], &["--topic", &topic, "--table", "refunts"]);
    assert!(refused.status == 2 && refused.stderr.contains("into refunds"), "{}", refused.stderr);
    let (status, report) = shop.ask(&["replay"], &["--topic", &topic, "--table", "refunds", "--pause", "1ms"]);
    let counts = ["records", "present", "landed", "repeated", "unreadable"].map(|name| report[name].as_u64().unwrap());
    assert_eq!((status, counts), (0, [82, 50, 20, 10, 2]), "{report:#}");
    assert_eq!(passed_over(&report), 83);
    assert_eq!(shop.audit(true), [charges, refunds]);
    assert_eq!(shop.state("charges").await, whole);

    // Of dead letters, which share a topic.
    let mended = REFUND.replace("\"type\": \"string\"}]", "\"type\": \"string\", \"default\": \"none\"}]");
    assert_ne!(mended, REFUND);
    std::fs::write(shop.small.world.directory.join("refund.avsc"), mended).unwrap();
    let listed = shop.tell(&["dead", "list"], &["--json"]).stdout;
    let listed: Vec<Value> = listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let sums: Vec<&Value> = listed.iter().filter(|line| line["count"].is_u64()).collect();
    assert_eq!((sums.len(), &sums[0]["count"]), (1, &json!(8)), "each letter is listed once: {listed:#?}");
    let letter = listed.iter().find(|line| line["reason"] == "unreadable").unwrap();
    let place = format!("0:{}", letter["dead_letter"]["offset"]);
    assert_eq!(shop.tell(&["dead", "show"], &[&place]).status, 2);
    let shown = |table: &str| shop.ask(&["dead", "show"], &["--table", table, &place]).1;
    assert_eq!(shown("refunds")["readable_now"], true);
    let of_charges = shown("charges");
    assert!(of_charges["now"].as_str().unwrap().starts_with("passed over: "), "{of_charges:#}");

    let replay = |table: &str| {
        let (status, report) = shop.ask(&["dead", "replay"], &["--topic", &topic, "--table", table, "--pause", "1ms"]);
        assert_eq!(status, 0, "{report:#}");
        let counts = ["records", "landed", "repeated", "unreadable"].map(|name| report[name].as_u64().unwrap());
        (counts, report["notes"].to_string())
    };
    let (counts, notes) = replay("charges");
    assert_eq!(counts, [3, 0, 0, 3]);
    assert!(notes.contains("2 other letters") && notes.contains("3 letters"), "{notes}");
    let (counts, notes) = replay("refunds");
    assert_eq!(counts, [2, 2, 0, 0]);
    assert!(notes.contains("6 other letters") && !notes.contains("earlier letter"), "{notes}");
    assert_eq!(shop.audit(true), [charges, Audited { rows: 62, dead_letters: 0, ..refunds }]);
    assert_eq!(shop.state("charges").await, whole);
    shop.small.world.clean_up().await;
}

#[tokio::test]
async fn the_dead_letters_of_a_section_are_replayed_by_command() {
    let mut shop = Shop::new().await;
    let topic = shop.small.topic.clone();
    shop.small.produce_to(&topic, 0, &shop.values()).await;
    let admin = Admin::of(&mut shop.small.world.config);
    let mut running = shop.small.run();
    until_rows(&shop.small, "charges", 60, &running).await;
    until_rows(&shop.small, "refunds", 60, &running).await;
    until_metric(&running, &shop.letters("charges", "truncated_header"), 1.0).await;
    for (table, letters) in [("charges", 3), ("refunds", 0)] {
        let replay = format!("/v1/topics/{topic}%2F{table}/dead-letters/replay");
        let (code, begun) = admin.ask(Method::POST, &replay, Some(json!({"pause": "0s"}))).await;
        assert_eq!(code, 202, "{begun:#}");
        let ended = until_ended(&admin, &replay, &running).await;
        let report = &ended["report"];
        assert_eq!((&ended["state"], &report["unreadable"]), (&json!("finished"), &json!(letters)), "{ended:#}");
        assert_eq!(report["table"], format!("{}.{table}", shop.small.world.database));
    }
    let (code, problem) = admin.ask(Method::POST, &format!("/v1/topics/{topic}/dead-letters/replay"), None).await;
    assert_eq!((code, &problem["type"]), (404, &json!("urn:millrace:problem:no_such_topic")));
    assert!(running.terminate().await.0.success(), "{}", running.log());
    shop.small.world.clean_up().await;
}

async fn until_ended(admin: &Admin, replay: &str, running: &Running) -> Value {
    let deadline = Instant::now() + SOON;
    loop {
        let (_, status) = admin.ask(Method::GET, replay, None).await;
        if status["state"] != "running" {
            return status;
        }
        assert!(Instant::now() < deadline, "{status:#}\n{}", running.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
