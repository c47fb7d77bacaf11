//! `millrace migrate` on a real ClickHouse: the plan first, then what the plan said, and nothing twice.

use crate::world::{NOBODY, World};

#[tokio::test]
async fn the_plan_changes_nothing_and_applying_it_leaves_nothing_to_do() {
    let world = World::new().await;
    let plan = world.millrace("migrate", &[], &world.config);
    assert_eq!(plan.status, 0, "{}{}", plan.stdout, plan.stderr);
    for line in ["+ create database ", "+ create table orders (22 columns)", "+ create table claims"] {
        assert!(plan.stdout.contains(line), "{line} in {}", plan.stdout);
    }
    assert!(plan.stdout.ends_with("Nothing has been done; run it with --apply.\n"), "{}", plan.stdout);
    assert_eq!(world.millrace("migrate", &[], &world.config).stdout, plan.stdout);

    let applied = world.millrace("migrate", &["--apply"], &world.config);
    assert_eq!(applied.status, 0, "{}{}", applied.stdout, applied.stderr);
    assert!(applied.stdout.ends_with("Done: 3 of 3 steps.\n"), "{}", applied.stdout);

    let again = world.millrace("migrate", &["--apply"], &world.config);
    assert!(again.status == 0 && again.stdout.contains("Nothing to do."), "{}", again.stdout);
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
    world.sql("ALTER TABLE {db}.orders MODIFY COLUMN total Decimal(10, 2)").await;
    world.sql("DROP TABLE {db}.claims").await;
    world.sql("CREATE TABLE {db}.claims (topic String, partition Int32, epoch UInt64, owner String) ENGINE = MergeTree ORDER BY owner").await;
    let applied = world.millrace("migrate", &["--apply"], &world.config);
    assert_eq!(applied.status, 1, "{}{}", applied.stdout, applied.stderr);
    for line in [
        "! table orders: column total is of type Decimal(10, 2), shipped is Decimal(18, 2)",
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
