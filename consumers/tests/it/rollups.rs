//! Rollups hold what their table holds, whatever happens to an insert on its way: repeated, half applied, given up, refused.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arrow_array::{ArrayRef, Decimal128Array, DictionaryArray, RecordBatch, StringArray, types::Int32Type};
use arrow_schema::{Field, Schema};
use millrace_consumers::clickhouse::{
    claims::Claims,
    errors::{ErrorClass, classify, code},
    insert::{Inserter, body},
    rollups::Rollups,
    table::describe,
};
use millrace_pipeline::batch::{Batch, Progress};
use millrace_schemas::{CLICKHOUSE_DDL, QUERIES};

use crate::{
    protocol::{batch, claims, rows},
    world::World,
};

const TIMEOUT: Duration = Duration::from_secs(60);
const VIEWS: [&str; 4] =
    ["orders_revenue_per_minute", "orders_steps", "orders_skus_per_day", "customer_value_per_hour"];

const EXAMPLES: &[(&str, &str)] = &[
    ("analysts", include_str!("../../../schemas/clickhouse/examples/analysts.sql")),
    ("retention", include_str!("../../../schemas/clickhouse/examples/retention.sql")),
];

/// Rows of orders that were paid, over some months: each of 2.50 EUR.
fn paid(count: usize, months: i64) -> RecordBatch {
    let plain = rows(count, months);
    let text =
        |text: &str| -> ArrayRef { Arc::new(std::iter::repeat_n(text, count).collect::<DictionaryArray<Int32Type>>()) };
    let total = Decimal128Array::from_value(250, count).with_precision_and_scale(18, 2).unwrap();
    let more: Vec<(&str, ArrayRef)> = vec![
        ("event_type", text("paid")),
        ("order_id", Arc::new(StringArray::from_iter_values((0..count).map(|row| format!("order-{row}"))))),
        ("customer_id", text("customer-1")),
        ("currency", text("EUR")),
        ("total", Arc::new(total)),
    ];
    let mut fields: Vec<Field> = plain.schema().fields().iter().map(|field| (**field).clone()).collect();
    fields.extend(more.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), false)));
    let columns = plain.columns().iter().cloned().chain(more.into_iter().map(|(_, array)| array)).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

async fn inserter(world: &World, claims: &Claims) -> Inserter {
    let table = describe(&world.client, &world.database, "orders", TIMEOUT).await.unwrap().unwrap();
    let columns = [
        "event_id",
        "timestamp",
        "_partition",
        "_offset",
        "event_type",
        "order_id",
        "customer_id",
        "currency",
        "total",
    ];
    let columns = columns.map(str::to_owned);
    let orders = format!("`{}`.orders", world.database);
    Inserter::new(world.client.clone(), claims.clone(), "orders", &orders, &table, &columns, TIMEOUT)
}

fn rollups(world: &World) -> Rollups {
    Rollups::new(world.client.clone(), &world.database, "orders")
}

fn from(epoch: u64, offset: i64) -> [Progress; 1] {
    [Progress { partition: 0, epoch, next_offset: offset }]
}

/// Rows of the table; orders in the rollups of revenue, of steps and of customers; and cents of the first and the last.
async fn held(world: &World) -> [u64; 6] {
    let one = |what: &str, table: &str| format!("(SELECT toUInt64(ifNull(sum({what}), 0)) FROM {{db}}.{table})");
    let figures = [
        one("1", "orders"),
        one("orders", "orders_revenue_per_minute"),
        one("orders", "orders_steps"),
        one("orders", "customer_value_per_hour"),
        one("revenue * 100", "orders_revenue_per_minute"),
        one("revenue * 100", "customer_value_per_hour"),
    ];
    let sql = format!("SELECT arrayMap(n -> assumeNotNull(n), [{}])", figures.join(", "));
    let sql = sql.replace("{db}", &world.database);
    world.client.query_raw(&sql).fetch_one::<Vec<u64>>().await.unwrap().try_into().unwrap()
}

fn all(count: u64) -> [u64; 6] {
    [count, count, count, count, 250 * count, 250 * count]
}

async fn send(
    inserter: &Inserter,
    claims: &Claims,
    batch: &Batch,
    token: &str,
    attempt: u32,
) -> Result<(), ErrorClass> {
    let body = body(&batch.rows).unwrap();
    inserter.send(batch, token, attempt, claims.lease(), &body).await.map_err(|error| classify(&error))
}

#[tokio::test]
async fn repeated_and_half_applied_inserts_count_once_and_equal_ones_each_for_itself() {
    let world = World::migrated().await;
    let claims = claims(&world, "me");
    claims.claim(&[0]).await.unwrap();
    let inserter = inserter(&world, &claims).await;
    let one = batch(paid(1000, 3), 1);
    let token = |name: &str| format!("{}-{name}", world.database);
    for attempt in 0..3 {
        send(&inserter, &claims, &one, &token("one"), attempt).await.unwrap();
    }
    assert_eq!(held(&world).await, all(1000));
    // Other orders that add up to the same figures in every group and month, byte by byte.
    send(&inserter, &claims, &batch(paid(1000, 3), 1), &token("two"), 0).await.unwrap();
    assert_eq!(held(&world).await, all(2000));

    // The table takes the rows, and one of the views fails: some rollups have them, and some have not.
    world.sql("ALTER TABLE {db}.orders_steps ADD CONSTRAINT never CHECK orders > 1000000").await;
    let three = batch(paid(1000, 3), 1);
    assert!(send(&inserter, &claims, &three, &token("three"), 0).await.is_err());
    let [in_table, _, in_steps, ..] = held(&world).await;
    assert_eq!((in_table, in_steps), (3000, 2000));
    world.sql("ALTER TABLE {db}.orders_steps DROP CONSTRAINT never").await;
    send(&inserter, &claims, &three, &token("three"), 1).await.unwrap();
    assert_eq!(held(&world).await, all(3000));
    world.clean_up().await;
}

#[tokio::test]
async fn what_an_insert_that_was_given_up_left_out_of_rollups_is_counted_at_the_take_over() {
    let world = World::migrated().await;
    let (first, second) = (claims(&world, "first"), claims(&world, "second"));
    first.claim(&[0]).await.unwrap();
    let into_first = inserter(&world, &first).await;
    let token = |name: &str| format!("{}-{name}", world.database);
    let rows = paid(3000, 3);
    let part = |start: usize| {
        let mut batch = batch(rows.slice(start, 1000), 1);
        batch.progress[0].next_offset = start as i64 + 1000;
        batch
    };
    send(&into_first, &first, &part(0), &token("one"), 0).await.unwrap();
    world.sql("ALTER TABLE {db}.orders_steps ADD CONSTRAINT never CHECK orders > 1000000").await;
    assert!(send(&into_first, &first, &part(1000), &token("two"), 0).await.is_err());
    world.sql("ALTER TABLE {db}.orders_steps DROP CONSTRAINT never").await;
    // The process dies here. What it had landed last is taken for duplicates by its heir, and does not come again.
    assert_eq!(second.claim(&[0]).await.unwrap()[&0], 2);
    second.quiet(&[0], std::time::Instant::now()).await.unwrap();
    let [in_table, _, in_steps, ..] = held(&world).await;
    assert_eq!((in_table, in_steps), (2000, 1000), "the negative control: nothing was lost that could be completed");

    let rollups = rollups(&world);
    // Whoever lost the partition completes nothing.
    let refused = rollups.complete(&first, &from(1, 1000), Duration::ZERO).await;
    assert_eq!(refused.map_err(|error| classify(&error)), Err(ErrorClass::Fenced));
    assert_eq!(held(&world).await[2], 1000);
    // What is too much for the server is tried again for a while, and then left to a person.
    let cramped = world.client.clone().with_setting("max_memory_usage", "10000");
    let cramped = Rollups::new(cramped, &world.database, "orders");
    let refused = cramped.complete(&second, &from(2, 1000), Duration::from_secs(119)).await;
    assert_eq!(refused.map_err(|error| code(&error)), Err(Some(241)));
    cramped.complete(&second, &from(2, 1000), Duration::from_secs(121)).await.unwrap();
    assert_eq!(held(&world).await[2], 1000);
    for _ in 0..2 {
        rollups.complete(&second, &from(2, 1000), Duration::ZERO).await.unwrap();
        assert_eq!(held(&world).await, all(2000), "once, however often it is completed");
    }
    // And the heir goes on.
    let mut rest = part(2000);
    rest.progress[0].epoch = 2;
    let into_second = inserter(&world, &second).await;
    send(&into_second, &second, &rest, &token("three"), 0).await.unwrap();
    rollups.complete(&second, &from(2, 0), Duration::ZERO).await.unwrap();
    assert_eq!(held(&world).await, all(3000));
    world.clean_up().await;
}

#[tokio::test]
async fn rollups_that_are_made_later_count_what_is_there_once_and_it_is_told_how() {
    let world = World::migrated().await;
    without_rollups(&world).await;
    let claims = claims(&world, "me");
    claims.claim(&[0]).await.unwrap();
    let inserter = inserter(&world, &claims).await;
    let rows = paid(2000, 3);
    let halves = [rows.slice(0, 1000), rows.slice(1000, 1000)].map(|rows| batch(rows, 1));
    send(&inserter, &claims, &halves[0], &format!("{}-1", world.database), 0).await.unwrap();
    assert_eq!(held(&world).await, [1000, 0, 0, 0, 0, 0]);
    let applied = world.millrace("migrate", &["--apply"], &world.config);
    assert!(applied.stdout.contains("counts what is inserted from then on into orders_steps"), "{}", applied.stdout);
    send(&inserter, &claims, &halves[1], &format!("{}-2", world.database), 0).await.unwrap();
    assert_eq!(held(&world).await, [2000, 1000, 1000, 1000, 250_000, 250_000]);
    let ran = world.millrace("migrate", &["--backfill"], &world.config);
    assert!(ran.stdout.contains("4 rollups have all that was inserted more than 10 minutes ago"), "{}", ran.stdout);
    assert_eq!(held(&world).await[1], 1000, "what may still be under way is left alone");
    // What an earlier backfill has left running on the server is ended first: neither has seen what the other counts.
    let comment = format!("{{\"millrace\":\"backfill\",\"rollup\":\"{}.orders_steps\"}}", world.database);
    let id = format!("{}-left-behind", world.database);
    let left =
        world.client.query_raw("SELECT sum(sipHash64(number)) FROM numbers(1000000000000) SETTINGS max_threads = 1");
    let left = left.with_setting("log_comment", comment).with_setting("query_id", &id);
    let left = tokio::spawn(left.with_setting("max_execution_time", "60").fetch_one::<u64>());
    let runs = "SELECT count() FROM system.processes WHERE query_id = ?";
    while world.client.query(runs).bind(&id).fetch_one::<u64>().await.unwrap() == 0 {
        assert!(!left.is_finished(), "it ended by itself");
    }
    for _ in 0..2 {
        assert_eq!(rollups(&world).backfill(Duration::ZERO, |_| Ok(())).await.unwrap(), 4);
        assert_eq!(held(&world).await, all(2000));
    }
    assert!(left.await.unwrap().is_err(), "it was not ended");

    // A view that asks something else is told, and left alone.
    world.sql("DROP VIEW {db}.orders_current").await;
    world.sql("CREATE VIEW {db}.orders_current AS SELECT order_id FROM {db}.orders").await;
    let plan = world.millrace("migrate", &[], &world.config);
    assert!(plan.stdout.contains("! view orders_current asks another question"), "{}", plan.stdout);
    world.clean_up().await;
}

/// Every parameter has its default.
fn with_defaults(text: &str) -> String {
    let (head, sql) = text.split_at(text.find("\nSELECT ").unwrap());
    let params = head.lines().filter_map(|line| line.strip_prefix("-- param "));
    params.fold(sql.to_owned(), |sql, param| {
        let (declared, rest) = param.split_once(" = ").unwrap();
        let (name, type_) = declared.split_once(' ').unwrap();
        let default = rest.split(':').next().unwrap();
        let literal = if type_ == "String" { format!("'{default}'") } else { default.to_owned() };
        sql.replace(&format!("{{{name}:{type_}}}"), &literal)
    })
}

#[tokio::test]
async fn an_order_is_seen_at_once_and_every_named_query_has_an_answer() {
    let world = World::migrated().await;
    let claims = claims(&world, "me");
    claims.claim(&[0]).await.unwrap();
    let inserter = inserter(&world, &claims).await;
    let begun = Instant::now();
    send(&inserter, &claims, &batch(paid(1000, 1), 1), &format!("{}-1", world.database), 0).await.unwrap();
    let written = begun.elapsed();
    let current = format!("SELECT toString(status) FROM {}.orders_current WHERE order_id = 'order-7'", world.database);
    assert_eq!(world.client.query(&current).fetch_one::<String>().await.unwrap(), "paid");
    let read = begun.elapsed();
    println!("an order was written after {written:?} and read after {read:?}");
    assert!(read - written < Duration::from_secs(30), "{read:?}");

    let (_, dead_letters) = CLICKHOUSE_DDL.iter().find(|(name, _)| name.ends_with("dead_letters")).unwrap();
    let client = world.client.clone().with_database(&world.database);
    client.query(&dead_letters.replace("EXISTS dead_letters", "EXISTS orders_dead")).execute().await.unwrap();
    for (name, text) in QUERIES {
        let answer = format!("SELECT count() FROM ({}\n)", with_defaults(text));
        let rows = client.query_raw(&answer).fetch_one::<u64>().await.unwrap_or_else(|error| panic!("{name}: {error}"));
        // Nobody has sold an item, written a dead letter, or has the order without a name.
        let none = ["dead_letters_by_reason", "order_current", "top_categories", "top_skus"].contains(name);
        assert_eq!(rows == 0, none, "{name}: {rows} rows");
    }
    world.clean_up().await;
}

#[tokio::test]
async fn every_table_view_and_column_says_in_clickhouse_itself_what_it_is() {
    let world = World::migrated().await;
    let silent = "SELECT concat(table, '.', name) FROM system.columns WHERE database = ? AND comment = '' AND table NOT LIKE '%_mv' \
                  UNION ALL SELECT name FROM system.tables WHERE database = ? AND comment = ''";
    let silent = world.client.query(silent).bind(&world.database).bind(&world.database).fetch_all::<String>();
    assert_eq!(silent.await.unwrap(), [""; 0]);
    world.clean_up().await;
}

/// The views that feed rollups are in the way of statements that take a column from the table.
pub(crate) async fn without_rollups(world: &World) {
    for view in VIEWS {
        world.sql(&format!("DROP VIEW {{db}}.{view}_mv")).await;
    }
}

#[tokio::test]
async fn the_examples_are_statements_and_those_of_retention_run() {
    let world = World::migrated().await;
    let client = world.client.clone().with_database(&world.database);
    for (name, text) in EXAMPLES {
        for statement in text.trim_end().trim_end_matches(';').split(";\n") {
            // The server of the tests keeps no users of its own, so that statements about users are parsed only.
            let parsed = client.query("SELECT formatQuery(?)").bind(statement).fetch_one::<String>().await;
            parsed.unwrap_or_else(|error| panic!("{name}: {error}: {statement}"));
            if *name == "retention" {
                client.query_raw(statement).execute().await.unwrap_or_else(|error| panic!("{error}: {statement}"));
            }
        }
    }
    let checked = world.check(&world.config);
    assert!(checked.stdout.contains("table orders keeps rows for 700 days"), "{}", checked.stdout);
    world.clean_up().await;
}
