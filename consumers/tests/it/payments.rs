//! A second topic by configuration only, and a topic whose types of event go into a table each.

use std::time::{Duration, Instant};

use millrace_schemas::{PAYMENT_METHOD_V1, PAYMENT_V1, golden};
use serde_json::{Value, json};

use crate::{
    small::{Running, Small},
    world::register,
};

const SOON: Duration = Duration::from_secs(20);

const PAYMENTS: &str = include_str!("../../assets/payments.toml");
const REFUND: &str = r#"{"type": "record", "name": "Refund", "namespace": "shop", "fields": [
    {"name": "refund_id", "type": {"type": "string", "logicalType": "uuid"}},
    {"name": "reason", "type": "string"}]}"#;
const CHARGE: &str = r#"{"type": "record", "name": "Charge", "namespace": "shop", "fields": [
    {"name": "charge_id", "type": {"type": "string", "logicalType": "uuid"}},
    {"name": "cents", "type": "long"}]}"#;
const VOUCHER: &str = r#"{"type": "record", "name": "Voucher", "namespace": "shop", "fields": []}"#;

/// The answer to a query, as an array of JSON objects.
async fn rows(small: &Small, sql: &str) -> Vec<Value> {
    let sql = sql.replace("{db}", &small.world.database);
    let mut cursor = small.world.client.query_raw(&sql).fetch_bytes("JSONEachRow").unwrap();
    let mut text = Vec::new();
    while let Some(bytes) = cursor.next().await.unwrap() {
        text.extend_from_slice(&bytes);
    }
    String::from_utf8(text).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn until_rows(small: &Small, table: &str, count: usize, running: &Running) {
    let deadline = Instant::now() + SOON;
    let sql =
        format!("SELECT count() AS rows FROM {{db}}.{table} SETTINGS output_format_json_quote_64bit_integers = 0");
    loop {
        let found = rows(small, &sql).await[0]["rows"].as_u64().unwrap() as usize;
        if found == count {
            return;
        }
        assert!(Instant::now() < deadline, "{found} of {count} rows in {table}\n{}", running.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn until_metric(running: &Running, series: &str, value: f64) {
    let deadline = Instant::now() + SOON;
    while running.metric(series).await != Some(value) {
        assert!(Instant::now() < deadline, "{series} is {:?}\n{}", running.metric(series).await, running.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn payments_land_beside_orders_by_files_and_a_section_of_configuration() {
    let mut small = Small::new().await;
    let database = small.world.database.clone();
    let topics = ["payments", "payments.dead", "payment_methods"].map(|topic| format!("{database}.{topic}"));
    for topic in &topics {
        small.at(topic, async |small| small.make_topic(1).await).await;
    }
    let id = register(&small.world.stack.registry, &format!("{}-value", topics[0]), PAYMENT_V1).await;
    let method_id = register(&small.world.stack.registry, &format!("{}-value", topics[2]), PAYMENT_METHOD_V1).await;
    let section = PAYMENTS
        .replace("name = \"payments\"", &format!("name = {:?}", topics[0]))
        .replace("\"payments.dead\"", &format!("{:?}", topics[1]))
        .replace("\"payment_methods\"", &format!("{:?}", topics[2]));
    small.world.config += &format!("\n{section}\n[topics.batch]\nmax_age = \"50ms\"\n");
    let ran = small.world.millrace("migrate", &["--apply"], &small.world.config);
    assert!(ran.status == 0 && ran.stdout.contains("create table payments"), "{}{}", ran.stdout, ran.stderr);
    let ran = small.world.check(&small.world.config);
    // Of the small events of this test's orders, and its topics, there is more to say.
    let others = |problem: &&str| problem.contains("table orders column ") || problem.contains("cleanup.policy");
    assert_eq!(ran.problems().iter().filter(|problem| !others(problem)).count(), 0, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("table payments takes all 18 columns"), "{}", ran.stdout);

    // method, family, fee_percent, refundable
    let mut visa = [&[0], &method_id.to_be_bytes()[..]].concat();
    for text in ["visa", "card"] {
        visa.push(text.len() as u8 * 2);
        visa.extend(text.as_bytes());
    }
    visa.extend([4, 0, 0x81, 1]);
    small.produce_to(&topics[2], 0, &[visa]).await;
    let (good, bad) = (golden::good_payments(), golden::bad_payments());
    // The same id a second time is a duplicate, so that each gets an id of its own.
    let payment = |(n, good): (u8, &golden::Good<_>)| {
        let mut value = golden::with_schema_id(&good.bytes, id);
        value[6..8].copy_from_slice(format!("{n:02x}").as_bytes());
        value
    };
    let values: Vec<Vec<u8>> = (0..).zip(&good).map(payment).collect();
    small.produce_to(&topics[0], 0, &values).await;
    let values: Vec<Vec<u8>> = bad.iter().map(|bad| golden::with_schema_id(&bad.bytes, id)).collect();
    small.produce_to(&topics[0], 0, &values).await;
    small.produce(0, 0..20).await;

    let mut running = small.run();
    until_rows(&small, "payments", good.len(), &running).await;
    small.until_rows(20, SOON, &running).await;
    let reasons: std::collections::BTreeSet<&str> = bad.iter().map(|bad| bad.reason).collect();
    for reason in reasons {
        let expected = bad.iter().filter(|bad| bad.reason == reason).count() as f64;
        let series = format!("millrace_dead_letters_total{{topic={:?},reason={reason:?}}}", topics[0]);
        until_metric(&running, &series, expected).await;
    }
    let landed = rows(
        &small,
        "SELECT status, toString(amount) AS amount, method, method_family, toString(method_fee_percent) AS fee, \
         method_refundable, card_network, card_last_digits, card_expires, bank, bank_country, wallet_provider, \
         wallet_account, attributes, toString(occurred_at) AS occurred_at FROM {db}.payments ORDER BY _offset",
    )
    .await;
    let none = json!({"card_network": null, "card_last_digits": null, "card_expires": null, "bank": null,
        "bank_country": null, "wallet_provider": null, "wallet_account": null, "attributes": {},
        "method_family": null, "fee": null, "method_refundable": null, "status": "captured", "amount": "118.39",
        "method": "visa", "occurred_at": "2026-01-01 00:00:00.123456"});
    let with = |set: Value| {
        let mut row = none.clone();
        row.as_object_mut().unwrap().extend(set.as_object().unwrap().clone());
        row
    };
    let card = json!({"method_family": "card", "fee": "1.29", "method_refundable": true, "card_network": "visa",
        "card_last_digits": "4242", "card_expires": "2028-01-01", "attributes": {"device": "web", "risk": "low"}});
    assert_eq!(
        landed,
        [
            with(card.clone()),
            with(json!({"status": "authorized", "amount": "0", "method": "sepa_credit", "bank": "Nordbank",
                "bank_country": "SE", "occurred_at": "1969-12-31 23:59:59.999999"})),
            with(json!({"status": "declined", "method": "paypal", "wallet_provider": "paypal",
                "attributes": {"": "", "näme": "wért"}})),
            with(json!({"status": "refunded", "amount": "-118.39", "method": "paypal", "wallet_provider": "paypal",
                "wallet_account": "a@example.com", "attributes": {"reason": "damaged"}})),
            with(json!({"method": "cash_on_delivery"})),
            with(card),
        ]
    );
    assert!(running.terminate().await.0.success());
    for topic in &topics {
        small.at(topic, async |small| small.delete_topic().await).await;
    }
    small.world.clean_up().await;
}

/// The datum of a record with an id and one more field, behind the header.
fn event(schema_id: u32, branch: &[u8], id: u32, rest: &[u8]) -> Vec<u8> {
    let id = uuid::Uuid::from_u128(u128::from(id)).to_string();
    [&[0], &schema_id.to_be_bytes()[..], branch, &[72], id.as_bytes(), rest].concat()
}

#[tokio::test]
async fn each_type_of_event_of_a_topic_lands_in_its_own_table_exactly_once() {
    let mut small = Small::new().await;
    let (database, registry) = (small.world.database.clone(), small.world.stack.registry.clone());
    let topic = small.topic.clone();
    // By record name, and as a union at the top.
    let charge = register(&registry, &format!("{database}.shop.Charge"), CHARGE).await;
    let refund = register(&registry, &format!("{database}.shop.Refund"), REFUND).await;
    let voucher = register(&registry, &format!("{database}.shop.Voucher"), VOUCHER).await;
    let union = register(&registry, &format!("{topic}-union"), &format!("[{CHARGE}, {REFUND}, {VOUCHER}]")).await;
    for (name, schema) in [("charge", CHARGE), ("refund", REFUND)] {
        std::fs::write(small.world.directory.join(format!("{name}.avsc")), schema).unwrap();
    }
    for (table, column) in [("charges", "charge_id UUID, cents Int64"), ("refunds", "refund_id UUID, reason String")] {
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
    small.world.config = head.to_owned() + &charges + &section("refunds", "Refund", "refund", "refund_id", "reason");

    let ran = small.world.check(&small.world.config);
    assert_eq!(ran.status, 0, "{}{}", ran.stdout, ran.stderr);

    let broken = [0, 0, 0];
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
    values.push(broken.to_vec());
    small.produce_to(&topic, 0, &values).await;

    let mut running = small.run();
    until_rows(&small, "charges", 60, &running).await;
    until_rows(&small, "refunds", 60, &running).await;
    let letters = |table: &str, reason: &str| {
        format!("millrace_dead_letters_total{{topic=\"{topic}/{table}\",reason=\"{reason}\"}}")
    };
    until_metric(&running, &letters("charges", "unexpected_record"), 2.0).await;
    until_metric(&running, &letters("charges", "truncated_header"), 1.0).await;
    for reason in ["unexpected_record", "truncated_header"] {
        assert_eq!(running.metric(&letters("refunds", reason)).await, Some(0.0));
    }
    let passed = format!("millrace_records_passed_over_total{{topic=\"{topic}/refunds\"}}");
    until_metric(&running, &passed, 83.0).await;
    assert!(running.terminate().await.0.success(), "{}", running.log());
    // Each has committed all of the topic, as a group of its own, and nothing lands again.
    let group = small.group.clone();
    for table in ["charges", "refunds"] {
        small.group = format!("{group}.{table}");
        assert_eq!(small.committed().unwrap().0, values.len() as i64, "{table}");
    }
    let mut running = small.run();
    small.produce_to(&topic, 0, &values).await;
    until_metric(&running, &passed, 83.0).await;
    until_metric(&running, &letters("charges", "truncated_header"), 1.0).await;
    assert!(running.terminate().await.0.success(), "{}", running.log());
    for (table, id) in [("charges", "charge_id"), ("refunds", "refund_id")] {
        let sql = format!("SELECT count() = 60 AND uniqExact({id}) = 60 AS once FROM {{db}}.{table}");
        assert_eq!(rows(&small, &sql).await[0]["once"], 1, "{table}");
    }
    small.world.clean_up().await;
}
