//! ClickHouse that takes no rows for a while: each fault is made on the real server, told for what it is, and waited out.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use clickhouse::Client;
use millrace_consumers::clickhouse::{
    errors::{ErrorClass, classify, code},
    insert::{Outcome, body},
};

use crate::{
    protocol::{batch, claims, inserter_with, rows},
    world::World,
};

const SOON: Duration = Duration::from_secs(30);

/// Makes a fault by `make`, sees that inserts fail with `expected` and that the trouble is told, mends it by `mend`, and
/// sees that the same insert lands once.
async fn waited_out(make: &[&str], mend: &[&str], expected: &str) {
    let world = World::migrated().await;
    let claims = claims(&world, "me");
    claims.claim(&[0]).await.unwrap();
    let inserter = Arc::new(inserter_with(&world, world.client.clone(), &claims).await);
    // Two parts, so that one more would be too many.
    for _ in 0..2 {
        assert_eq!(inserter.land(&mut batch(rows(10, 1), 1)).await, Outcome::Durable);
    }
    for statement in make {
        world.sql(statement).await;
    }
    let landing = {
        let inserter = Arc::clone(&inserter);
        tokio::spawn(async move { inserter.land(&mut batch(rows(1000, 1), 1)).await })
    };
    let begun = Instant::now();
    let trouble = loop {
        if let Some(trouble) = inserter.trouble() {
            break trouble;
        }
        assert!(begun.elapsed() < SOON && !landing.is_finished());
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(trouble.contains(expected), "{trouble}");
    for statement in mend {
        world.sql(statement).await;
    }
    assert_eq!(landing.await.unwrap(), Outcome::Durable);
    assert_eq!((inserter.trouble(), world.rows_landed().await), (None, 1020));
    world.clean_up().await;
}

#[tokio::test]
async fn too_many_parts_are_waited_out() {
    waited_out(
        &["SYSTEM STOP MERGES {db}.orders", "ALTER TABLE {db}.orders MODIFY SETTING parts_to_throw_insert = 1"],
        &["ALTER TABLE {db}.orders RESET SETTING parts_to_throw_insert", "SYSTEM START MERGES {db}.orders"],
        "(TOO_MANY_PARTS)",
    )
    .await;
}

#[tokio::test]
async fn a_full_disk_is_waited_out() {
    waited_out(
        &["ALTER TABLE {db}.orders MODIFY SETTING min_free_disk_bytes_to_perform_insert = 1000000000000000"],
        &["ALTER TABLE {db}.orders RESET SETTING min_free_disk_bytes_to_perform_insert"],
        "(NOT_ENOUGH_SPACE)",
    )
    .await;
}

#[tokio::test]
async fn a_column_that_was_dropped_is_waited_for() {
    waited_out(
        &[
            "DROP VIEW {db}.orders_revenue_per_minute_mv",
            "DROP VIEW {db}.orders_steps_mv",
            "DROP VIEW {db}.orders_skus_per_day_mv",
            "DROP VIEW {db}.customer_value_per_hour_mv",
            "ALTER TABLE {db}.orders DROP COLUMN _offset",
        ],
        &["ALTER TABLE {db}.orders ADD COLUMN _offset Int64"],
        "(NO_SUCH_COLUMN_IN_TABLE)",
    )
    .await;
}

/// What a server answers whose user has such a setting; the same rows land through one whose user has not.
async fn refused_under(setting: (&str, &str), expected: u32) {
    let world = World::migrated().await;
    let claims = claims(&world, "me");
    claims.claim(&[0]).await.unwrap();
    let batch = batch(rows(50_000, 1), 1);
    let body = body(&batch.rows).unwrap();
    let restricted: Client = world.client.clone().with_setting(setting.0, setting.1);
    let restricted = inserter_with(&world, restricted, &claims).await;
    // Ids of queries are the server's, and other tests insert into a topic of this name, too.
    let token = &world.database;
    let error = restricted.send(&batch, token, 0, claims.lease(), &body).await.unwrap_err();
    assert_eq!((code(&error), classify(&error)), (Some(expected), ErrorClass::Retry), "{error}");
    assert_eq!(world.rows_landed().await, 0);
    let free = inserter_with(&world, world.client.clone(), &claims).await;
    free.send(&batch, token, 1, claims.lease(), &body).await.unwrap();
    assert_eq!(world.rows_landed().await, 50_000);
    world.clean_up().await;
}

#[tokio::test]
async fn a_memory_limit_is_worth_another_try() {
    refused_under(("max_memory_usage", "1000000"), 241).await;
}

#[tokio::test]
async fn a_read_only_user_is_worth_another_try() {
    refused_under(("readonly", "2"), 164).await;
}
