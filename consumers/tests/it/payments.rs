//! A second topic by configuration only.

use std::time::{Duration, Instant};

use millrace_schemas::{PAYMENT_METHOD_V1, PAYMENT_V1, golden};
use serde_json::{Value, json};

use crate::{
    small::{Running, Small},
    world::register,
};

const SOON: Duration = Duration::from_secs(20);

const PAYMENTS: &str = include_str!("../../assets/payments.toml");

/// The answer to a query, as an array of JSON objects.
pub(crate) async fn rows(small: &Small, sql: &str) -> Vec<Value> {
    let sql = sql.replace("{db}", &small.world.database);
    let mut cursor = small.world.client.query_raw(&sql).fetch_bytes("JSONEachRow").unwrap();
    let mut text = Vec::new();
    while let Some(bytes) = cursor.next().await.unwrap() {
        text.extend_from_slice(&bytes);
    }
    String::from_utf8(text).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub(crate) async fn until_rows(small: &Small, table: &str, count: usize, running: &Running) {
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

pub(crate) async fn until_metric(running: &Running, series: &str, value: f64) {
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
