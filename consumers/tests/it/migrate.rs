//! `millrace migrate` on a real ClickHouse: the plan first, then what the plan said, and nothing twice.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use millrace_schemas::ORDER_EVENT_V2;

use crate::world::{NOBODY, World, register};

#[tokio::test]
async fn the_plan_changes_nothing_and_applying_it_leaves_nothing_to_do() {
    let world = World::new().await;
    let plan = world.millrace("migrate", &[], &world.config);
    assert_eq!(plan.status, 0, "{}{}", plan.stdout, plan.stderr);
    for line in [
        "+ create database ",
        "+ create table orders (22 columns)",
        "+ create table claims",
        "+ create materialized view orders_steps_mv",
    ] {
        assert!(plan.stdout.contains(line), "{line} in {}", plan.stdout);
    }
    assert!(plan.stdout.ends_with("Nothing has been done; run it with --apply.\n"), "{}", plan.stdout);
    assert_eq!(world.millrace("migrate", &[], &world.config).stdout, plan.stdout);

    let applied = world.millrace("migrate", &["--apply"], &world.config);
    assert_eq!(applied.status, 0, "{}{}", applied.stdout, applied.stderr);
    assert!(applied.stdout.ends_with("Done: 12 of 12 steps.\n"), "{}", applied.stdout);

    let again = world.millrace("migrate", &["--apply"], &world.config);
    assert!(again.status == 0 && again.stdout.contains("Nothing to do."), "{}", again.stdout);
    world.clean_up().await;
}

/// Of a replicated table one replica has at once what was made on another. Here both are one server under two names.
#[tokio::test]
async fn a_replica_is_planned_for_again_when_the_one_before_it_is_done() {
    let world = World::new().await;
    let first = world.stack.clickhouse.clone();
    let second = first.replace("127.0.0.1", "localhost");
    assert_ne!(first, second);
    let config = world.config.replace(&format!("\nurl = {first:?}\n"), "\n");
    let config = format!("{config}\n[[clickhouse.shards]]\nreplicas = [{first:?}, {second:?}]\n");
    let plan = world.millrace("migrate", &[], &config);
    assert_eq!(plan.stdout.matches("+ create table orders (22 columns)").count(), 2, "{}{}", plan.stdout, plan.stderr);
    let applied = world.millrace("migrate", &["--apply"], &config);
    assert_eq!(applied.status, 0, "{}{}", applied.stdout, applied.stderr);
    let (done, after) = applied.stdout.split_once("Done: 12 of 12 steps.\n").unwrap();
    assert!(done.contains(&first) && after.contains(&second) && after.contains("Nothing to do."), "{}", applied.stdout);
    world.clean_up().await;
}

#[tokio::test]
async fn what_is_missing_is_added_where_it_belongs_and_rows_stay() {
    let world = World::migrated().await;
    world.sql("INSERT INTO {db}.orders (order_id, timestamp) VALUES ('o-1', now())").await;
    for statement in [
        "ALTER TABLE {db}.orders DROP COLUMN coupon",
        "ALTER TABLE {db}.orders DROP INDEX ingested_at_minmax",
        "ALTER TABLE {db}.orders RESET SETTING non_replicated_deduplication_window",
        "ALTER TABLE {db}.orders ADD COLUMN region String DEFAULT 'eu'",
    ] {
        world.sql(statement).await;
    }
    let applied = world.millrace("migrate", &["--apply"], &world.config);
    assert_eq!(applied.status, 0, "{}{}", applied.stdout, applied.stderr);
    assert!(applied.stdout.ends_with("Done: 3 of 3 steps.\n"), "{}", applied.stdout);
    assert_eq!(world.check(&world.config).status, 0);

    let columns = "SELECT name FROM system.columns WHERE database = ? AND table = 'orders' ORDER BY position";
    let columns = world.client.query(columns).bind(&world.database).fetch_all::<String>().await.unwrap();
    assert_eq!(columns[6..9], ["total", "coupon", "channel"]);
    assert!(columns.contains(&"region".to_owned()), "a column of somebody else's was dropped");
    let rows = format!("SELECT count() FROM {}.orders WHERE order_id = 'o-1'", world.database);
    assert_eq!(world.client.query(&rows).fetch_one::<u64>().await.unwrap(), 1);
    world.clean_up().await;
}

#[tokio::test]
async fn what_cannot_be_changed_is_told_and_left_alone() {
    let world = World::migrated().await;
    world.sql("ALTER TABLE {db}.orders MODIFY COLUMN total String").await;
    world.sql("DROP TABLE {db}.claims").await;
    world.sql("CREATE TABLE {db}.claims (topic String, partition Int32, epoch UInt64, owner String) ENGINE = MergeTree ORDER BY owner").await;
    let applied = world.millrace("migrate", &["--apply"], &world.config);
    assert_eq!(applied.status, 1, "{}{}", applied.stdout, applied.stderr);
    for line in [
        "! table orders: column total is of type String, which does not keep data.total: expected Decimal(18, 2)",
        "! table claims: ORDER BY is owner, shipped is (topic, partition, epoch, owner)",
        "+ table claims: add column claimed_at",
    ] {
        assert!(applied.stdout.contains(line), "{line} in {}", applied.stdout);
    }
    world.clean_up().await;
}

#[tokio::test]
async fn a_user_without_the_right_and_a_server_that_is_down_are_one_clear_error() {
    let world = World::new().await;
    let password = world.stack.pipeline.password_file.to_string_lossy().into_owned();
    let user = ["--apply", "--user", &world.stack.pipeline.user, "--password-file", &password];
    let ran = world.millrace("migrate", &user, &world.config);
    assert_eq!((ran.status, ran.stderr.lines().count()), (1, 1), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("create database") && ran.stderr.contains("--user and --password-file"),
        "{}",
        ran.stderr
    );

    let ran =
        world.millrace("migrate", &[], &world.config.replace(&world.stack.clickhouse, &format!("http://{NOBODY}")));
    assert_eq!((ran.status, ran.stderr.lines().count()), (1, 1), "{}", ran.stderr);
    assert!(ran.stderr.contains("cannot be reached"), "{}", ran.stderr);
    world.clean_up().await;
}

/// A table of a name that is not shipped, for the shipped events.
fn own_table(world: &World) -> String {
    world.config.replace("table = \"orders\"", "table = \"sales\"")
}

#[tokio::test]
async fn a_table_that_is_not_shipped_is_made_of_the_schema_by_migrate_or_by_the_reviewed_script() {
    let world = World::new().await;
    let config = own_table(&world);
    let plan = world.millrace("migrate", &[], &config);
    assert!(plan.stdout.contains("+ create table sales (19 mapped columns)"), "{}", plan.stdout);
    let script = world.millrace("migrate", &["--plan"], &config);
    assert_eq!(script.status, 0, "{}{}", script.stdout, script.stderr);
    for line in [
        &*format!("CREATE TABLE IF NOT EXISTS `{}`.`sales`", world.database),
        "    `event_type` LowCardinality(String) COMMENT 'event_type',",
        "    `items.category` Array(LowCardinality(Nullable(String))) COMMENT 'product:category',",
        "PARTITION BY toYYYYMM(`timestamp`)",
    ] {
        assert!(script.stdout.contains(line), "{line} in {}", script.stdout);
    }
    // It is SQL from its first line to its last.
    for statement in script.stdout.split(";\n").filter(|statement| !statement.trim().is_empty()) {
        world.sql(statement).await;
    }
    let applied = world.millrace("migrate", &["--apply"], &config);
    assert!(applied.status == 0 && applied.stdout.contains("Nothing to do."), "{}{}", applied.stdout, applied.stderr);
    let checked = world.check(&config);
    assert_eq!((checked.status, checked.problems().len()), (0, 0), "{}", checked.stdout);

    world.sql("DROP TABLE {db}.sales").await;
    let applied = world.millrace("migrate", &["--apply"], &config);
    assert!(applied.stdout.ends_with("Done: 1 of 1 steps.\n"), "{}{}", applied.stdout, applied.stderr);
    assert_eq!(world.check(&config).status, 0);
    world.clean_up().await;
}

#[tokio::test]
async fn every_kind_of_widening_keeps_the_rows_and_a_second_time_there_is_nothing_to_do() {
    let world = World::migrated().await;
    for statement in [
        "ALTER TABLE {db}.orders MODIFY COLUMN total Decimal(10, 2)",
        "ALTER TABLE {db}.orders MODIFY COLUMN `items.quantity` Array(Int16)",
        "ALTER TABLE {db}.orders MODIFY COLUMN customer_segment LowCardinality(String) DEFAULT ''",
        "ALTER TABLE {db}.orders MODIFY COLUMN customer_signup_date Nullable(Date)",
        "ALTER TABLE {db}.orders MODIFY COLUMN coupon String DEFAULT 'none'",
        "DROP VIEW {db}.orders_steps_mv",
        "ALTER TABLE {db}.orders DROP COLUMN channel",
        "INSERT INTO {db}.orders (timestamp, event_type, total, `items.sku`, `items.quantity`, `items.unit_price`, `items.category`, `items.brand`, customer_segment, customer_signup_date) \
         VALUES ('2026-01-02', 'unknown', 12.34, ['a'], [300], [1], ['c'], ['b'], 'vip', '2020-02-29')",
    ] {
        world.sql(statement).await;
    }
    register(&world.stack.registry, &format!("{}.orders-value", world.database), ORDER_EVENT_V2).await;
    let config = format!("{}source = \"source\"\n", world.config);
    let checked = world.check(&config);
    checked.tells(
        "columns",
        &["no column source", "`ALTER TABLE orders ADD COLUMN IF NOT EXISTS `source` Nullable(String)"],
    );
    checked.tells("columns", &["lacks returned", "MODIFY COLUMN `event_type` Enum8(", "'returned' = 8)"]);
    assert_eq!(checked.problems().len(), 8, "{}", checked.stdout);

    let applied = world.millrace("migrate", &["--apply"], &config);
    assert_eq!(applied.status, 0, "{}{}", applied.stdout, applied.stderr);
    assert!(applied.stdout.ends_with("Done: 9 of 9 steps.\n"), "{}", applied.stdout);
    let row = "SELECT ifNull(concat_ws(' ', toString(event_type), toString(total), toString(`items.quantity`), toString(customer_segment), \
               toString(customer_signup_date), toString(coupon), toString(source IS NULL), toString(channel = '')), 'null') FROM {db}.orders";
    let row: String = world.client.query_raw(&row.replace("{db}", &world.database)).fetch_one().await.unwrap();
    assert_eq!(row, "unknown 12.34 [300] vip 2020-02-29 none 1 1");
    let again = world.millrace("migrate", &["--apply"], &config);
    assert!(again.status == 0 && again.stdout.contains("Nothing to do."), "{}", again.stdout);
    assert_eq!(world.check(&config).status, 0);
    world.clean_up().await;
}

#[tokio::test]
async fn a_rewrite_is_watched_and_taken_up_again_after_an_interruption() {
    let world = World::migrated().await;
    for statement in [
        // Of 32 bits; with ten digits it would have as many as with 18, and nothing to rewrite.
        "ALTER TABLE {db}.orders MODIFY COLUMN total Decimal(9, 2)",
        "INSERT INTO {db}.orders (timestamp, total) VALUES ('2026-01-02', 12.34)",
        // The server rewrites nothing until it is told to.
        "SYSTEM STOP MERGES {db}.orders",
    ] {
        world.sql(statement).await;
    }
    let file = world.write(&world.config);
    let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
    let mut applying = command.args(["migrate", "--config", &file, "--apply"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(applying.stdout.take().unwrap()).lines();
    let told = lines.find(|line| line.as_ref().unwrap().contains("1 parts are still to be rewritten"));
    assert!(told.is_some(), "it ended without a word");
    applying.kill().unwrap();
    applying.wait().unwrap();

    let plan = world.millrace("migrate", &[], &world.config);
    assert!(plan.stdout.contains("an earlier ALTER is still rewriting 1 parts"), "{}", plan.stdout);
    assert!(plan.stdout.ends_with("Nothing to do.\n"), "{}", plan.stdout);
    world.sql("SYSTEM START MERGES {db}.orders").await;
    let applied = world.millrace("migrate", &["--apply"], &world.config);
    assert_eq!(applied.status, 0, "{}{}", applied.stdout, applied.stderr);
    let left = "SELECT count() FROM system.mutations WHERE database = ? AND NOT is_done";
    assert_eq!(world.client.query(left).bind(&world.database).fetch_one::<u64>().await.unwrap(), 0);
    let total = format!("SELECT toString(total) FROM {}.orders", world.database);
    assert_eq!(world.client.query_raw(&total).fetch_one::<String>().await.unwrap(), "12.34");
    world.clean_up().await;
}

#[tokio::test]
async fn without_a_schema_a_table_of_ones_own_is_refused_and_a_shipped_one_is_made() {
    let world = World::new().await;
    let config = world.config.replace(&world.stack.registry, &format!("http://{NOBODY}"));
    let applied = world.millrace("migrate", &["--apply"], &config);
    assert_eq!(applied.status, 0, "{}{}", applied.stdout, applied.stderr);
    assert!(applied.stdout.contains("compared with what is shipped only"), "{}", applied.stdout);
    let applied = world.millrace("migrate", &["--apply"], &config.replace("table = \"orders\"", "table = \"sales\""));
    assert_eq!(applied.status, 1, "{}{}", applied.stdout, applied.stderr);
    assert!(applied.stdout.contains("! table sales is not made") && applied.stdout.contains("cannot be reached"));
    world.clean_up().await;
}
