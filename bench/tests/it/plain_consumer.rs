//! The plain consumer against the generator: it lands what it can read, and goes when it is told to.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clickhouse::Client;
use millrace_bench::generate::{Load, Progress, Versions, generate};
use millrace_bench::setup::reference;
use millrace_bench::stack::{Stack, Topics};

use crate::stand_in::StandIn;

const EVENT_COLUMNS: &str = "event_id, event_type, timestamp, order_id, customer_id, currency, total, coupon, channel, \
                             shipping_country, shipping_city, items.sku, items.quantity, items.unit_price";

fn start(stack: &Stack, topic: &str, table: &str) -> Child {
    Command::new(env!("CARGO_BIN_EXE_millrace-plain-consumer"))
        .args(["--brokers", &stack.kafka, "--topic", topic, "--group", topic, "--registry", &stack.registry])
        .args(["--clickhouse", &stack.clickhouse, "--database", &stack.database, "--table", table])
        .args(["--user", &stack.admin.user, "--password-file", stack.admin.password_file.to_str().unwrap()])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What it says at its end.
fn terminate(consumer: Child) -> String {
    assert!(Command::new("kill").args(["-TERM", &consumer.id().to_string()]).status().unwrap().success());
    let output = consumer.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

#[tokio::test]
async fn the_plain_consumer_lands_events_and_duplicates_of_both_versions_once_and_leaves_when_told() {
    let stack = crate::stack();
    let prefix = format!("it-plain-{}-", uuid::Uuid::new_v4().simple());
    let topics = Topics::new(&prefix);
    reference(&stack, &topics, 8, 3, |_| ()).await.unwrap();
    let load = Load { poison: 0.0, schemas: Versions::Alternating, ..crate::load(8) };
    let manifest = generate(&stack, &topics, &load, Arc::new(Progress::default())).await.unwrap();
    let sent = manifest.events + manifest.duplicates;

    let landed = StandIn::new(&stack, &prefix, &manifest).await;
    let right = StandIn::new(&stack, &format!("{prefix}right-"), &manifest).await;
    right.insert_rows(0..manifest.events).await;
    let client = Client::default()
        .with_url(&stack.clickhouse)
        .with_user(&stack.admin.user)
        .with_password(stack.admin.password().unwrap())
        .with_database(&stack.database);
    let number = async |sql: String| client.query(&sql).fetch_one::<u64>().await.unwrap();

    let consumer = start(&stack, &topics.orders, &landed.table);
    let began = Instant::now();
    while number(format!("SELECT count() FROM {}", landed.table)).await < sent {
        assert!(began.elapsed() < Duration::from_secs(30), "not everything has come in time");
    }
    assert!(terminate(consumer).contains(&format!("{{\"rows\":{sent},\"skipped\":0}}")));
    let places = number(format!("SELECT uniqExact(_partition, _offset) FROM {}", landed.table)).await;
    assert_eq!(places, sent);
    for (one, other) in [(&landed, &right), (&right, &landed)] {
        let (one, other) = (&one.table, &other.table);
        let selects = [one, other].map(|table| format!("SELECT {EVENT_COLUMNS} FROM {table}"));
        let differing = number(format!("SELECT count() FROM ({})", selects.join(" EXCEPT DISTINCT "))).await;
        assert_eq!(differing, 0, "in {one} and not in {other}");
    }

    // It had committed: another of its group finds nothing left.
    let one_more = Load { events: 1, duplicates: 0.0, ..load };
    generate(&stack, &topics, &one_more, Arc::new(Progress::default())).await.unwrap();
    let consumer = start(&stack, &topics.orders, &landed.table);
    while number(format!("SELECT count() FROM {}", landed.table)).await == sent {
        assert!(began.elapsed() < Duration::from_secs(60), "the last event has not come in time");
    }
    assert!(terminate(consumer).contains("{\"rows\":1,\"skipped\":0}"));
    landed.drop_table().await;
    right.drop_table().await;
}
