//! A table that is altered while it is written: what still fits is written on, what does not stops the topic with one
//! message, and nothing is lost or cut.

use std::{ops::Range, time::Duration};

use millrace_schemas::{ORDER_EVENT_V1, ORDER_EVENT_V2};

use crate::{
    orders,
    small::{Running, Small},
    world::register,
};

const SOON: Duration = Duration::from_secs(20);

/// A topic of order events, all columns mapped.
async fn orders_of_their_own() -> (Small, u32) {
    let mut small = Small::new().await;
    small.world.config = small.whole_config.clone();
    let id = register(&small.world.stack.registry, &format!("{}-value", small.topic), ORDER_EVENT_V1).await;
    (small, id)
}

async fn produce((small, id): &(Small, u32), numbers: Range<u32>) {
    let values: Vec<Vec<u8>> = numbers.map(|number| orders::first(*id, number)).collect();
    small.produce_to(&small.topic, 0, &values).await;
}

async fn landed(small: &Small, what: &str) -> u64 {
    let sql = format!("SELECT count() FROM {}.orders WHERE {what}", small.world.database);
    small.world.client.query_raw(&sql).fetch_one().await.unwrap()
}

/// The one line of error, after the process has ended by itself.
async fn stopped(running: &mut Running) -> String {
    assert_eq!(running.ended(SOON).await.code(), Some(1), "{}", running.log());
    let log = running.log();
    let errors: Vec<&str> =
        log.lines().filter(|line| line.starts_with("error: ") || line.contains("\"ERROR\"")).collect();
    assert_eq!(errors.len(), 1, "{log}");
    errors[0].to_owned()
}

#[tokio::test]
async fn a_column_that_is_added_and_types_that_are_widened_are_noticed_and_survived() {
    let it = orders_of_their_own().await;
    let small = &it.0;
    let mut running = small.run();
    produce(&it, 0..50).await;
    small.until_rows(50, SOON, &running).await;
    for (at, alter) in [
        "ADD COLUMN region String DEFAULT 'eu'",
        "MODIFY COLUMN total Decimal(38, 4)",
        "MODIFY COLUMN `items.quantity` Array(Int64)",
        "MODIFY COLUMN event_type Enum8('created' = 1, 'paid' = 2, 'shipped' = 3, 'delivered' = 4, 'cancelled' = 5, 'refunded' = 6, 'unknown' = 7, 'returned' = 8)",
    ]
    .iter()
    .enumerate()
    {
        let before = 50 + 50 * at as u32;
        // Some arrive while it is altered.
        let statement = format!("ALTER TABLE {{db}}.orders {alter}");
        tokio::join!(small.world.sql(&statement), produce(&it, before..before + 25));
        produce(&it, before + 25..before + 50).await;
        small.until_rows(u64::from(before) + 50, SOON, &running).await;
    }
    running.until_logged("total is Decimal(38, 4), was Decimal(18, 2)", SOON).await;
    assert!(running.log().contains("region is new, String DEFAULT"), "{}", running.log());
    assert!(!running.log().contains("taken over again"), "{}", running.log());
    assert_eq!(landed(small, "total = 236.15 AND region = 'eu' AND event_type = 'paid'").await, 250);
    assert!(running.terminate().await.0.success());
    assert_eq!(small.committed().unwrap().0, 250);
    it.0.world.clean_up().await;
}

/// Lands events, alters the table so that it does not take them any more, sees the topic stop, alters it back, and sees
/// everything land once.
async fn stopped_by(alter: &str, back: &str, words: &[&str]) {
    let it = orders_of_their_own().await;
    let small = &it.0;
    let mut running = small.run();
    produce(&it, 0..50).await;
    small.until_rows(50, SOON, &running).await;
    small.world.sql(&format!("ALTER TABLE {{db}}.orders {alter}")).await;
    produce(&it, 50..150).await;
    let error = stopped(&mut running).await;
    for word in [&*small.topic, "table orders", "Nothing is lost"].iter().chain(words) {
        assert!(error.contains(word), "{word} in {error}");
    }
    assert_eq!((small.rows().await.0, small.committed().unwrap().0), (50, 50));

    // It does not start either, and says the same.
    let mut running = small.run();
    let error = stopped(&mut running).await;
    assert!(words.iter().skip(1).all(|word| error.contains(word)), "{words:?} in {error}");
    assert_eq!((small.rows().await.0, small.committed().unwrap().0), (50, 50));

    small.world.sql(&format!("ALTER TABLE {{db}}.orders {back}")).await;
    let mut running = small.run();
    small.until_rows(150, SOON, &running).await;
    assert!(running.terminate().await.0.success());
    assert_eq!(
        (small.committed().unwrap().0, landed(small, "coupon = 'WINTER-10' AND total = 236.15").await),
        (150, 150)
    );
    it.0.world.clean_up().await;
}

#[tokio::test]
async fn a_column_that_is_dropped_stops_the_topic_and_nothing_is_lost() {
    stopped_by(
        "DROP COLUMN shipping_city",
        "ADD COLUMN shipping_city LowCardinality(String) DEFAULT '' AFTER shipping_country",
        &[
            "shipping_city is gone, was LowCardinality(String)",
            "has no column shipping_city",
            "ADD COLUMN IF NOT EXISTS `shipping_city`",
        ],
    )
    .await;
}

#[tokio::test]
async fn a_type_that_is_narrowed_stops_the_topic_before_a_value_is_cut() {
    stopped_by(
        "MODIFY COLUMN total Decimal(10, 2)",
        "MODIFY COLUMN total Decimal(18, 2)",
        &[
            "total is Decimal(10, 2), was Decimal(18, 2)",
            "expected Decimal(18, 2)",
            "MODIFY COLUMN `total` Decimal(18, 2)",
        ],
    )
    .await;
}

#[tokio::test]
async fn a_column_that_takes_no_null_any_more_stops_the_topic() {
    stopped_by(
        "MODIFY COLUMN coupon String DEFAULT ''",
        "MODIFY COLUMN coupon Nullable(String)",
        &["coupon is String DEFAULT, was Nullable(String)", "data.coupon may be null", "Nullable(String)"],
    )
    .await;
}

#[tokio::test]
async fn a_symbol_that_the_column_lacks_harms_nobody_until_it_comes_and_then_waits_for_the_column() {
    let it = orders_of_their_own().await;
    let small = &it.0;
    let second = register(&small.world.stack.registry, &format!("{}-value", small.topic), ORDER_EVENT_V2).await;
    let values = |numbers: Range<u32>, returned| -> Vec<Vec<u8>> {
        numbers.map(|number| orders::second(second, number, returned)).collect()
    };
    let mut running = small.run();
    running.until_logged("lacks returned", SOON).await;
    small.produce_to(&small.topic, 0, &values(0..50, false)).await;
    small.until_rows(50, SOON, &running).await;
    small.produce_to(&small.topic, 0, &values(50..100, true)).await;
    running.until_logged("ClickHouse refuses the rows", SOON).await;
    let applied = small.world.millrace("migrate", &["--apply"], &small.world.config);
    assert_eq!(applied.status, 0, "{}{}", applied.stdout, applied.stderr);
    small.until_rows(100, SOON, &running).await;
    assert_eq!(landed(small, "event_type = 'returned'").await, 50);
    assert!(running.terminate().await.0.success());
    it.0.world.clean_up().await;
}

#[tokio::test]
async fn a_table_is_made_at_the_start_only_if_the_configuration_says_so() {
    let mut it = orders_of_their_own().await;
    let small = &mut it.0;
    small.world.sql("DROP DATABASE {db}").await;
    small.set("table = \"orders\"", "table = \"sales\"");
    let mut running = small.run();
    assert_eq!(running.ended(SOON).await.code(), Some(1), "{}", running.log());
    small.set("#auto_create = false", "auto_create = true");
    let running = small.run();
    running.until_logged("partition is read", SOON).await;
    produce(&it, 0..20).await;
    let small = &it.0;
    let sql = format!("SELECT count() FROM {}.sales", small.world.database);
    let begun = std::time::Instant::now();
    while small.world.client.query_raw(&sql).fetch_one::<u64>().await.unwrap() < 20 {
        assert!(begun.elapsed() < SOON, "{}", running.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(small.world.check(&small.world.config).status, 0);
    drop(running);
    it.0.world.clean_up().await;
}
