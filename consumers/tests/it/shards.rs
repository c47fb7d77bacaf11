//! Two shards, each a ClickHouse of its own: rows land on the shard of their partition, one that is away holds no other up,
//! and shards that were exchanged are refused.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use clickhouse::Client;
use millrace_consumers::clickhouse::{insert::Outcome, replicas::Replicas};

use crate::{
    protocol::{batch, claims_on, inserter_with, rows},
    second_clickhouse::Second,
    small::{Running, Small},
    world::{NOBODY, World},
};

const SOON: Duration = Duration::from_secs(90);
const PARTITIONS: i32 = 4;
/// Three chunks of 4,096 records, and some.
const MORE_THAN_IS_HELD: u32 = 16_000;

struct Two {
    small: Small,
    second: Second,
}

impl Two {
    async fn new() -> Self {
        let mut small = Small::new().await;
        small.grow(&small.topic, PARTITIONS as usize).await;
        let second = Second::start(&small.world).await;
        let first = small.world.stack.clickhouse.clone();
        small.set(&format!("\nurl = {first:?}\n"), "\n");
        // Batches that are soon full, so that a shard that is away is full with little.
        small.set("max_age = \"50ms\"", "max_age = \"50ms\"\nmax_rows = 50");
        // And what is away is noticed to be back at once.
        small.set("#rest = \"5s\"", "rest = \"500ms\"");
        small.set("#longest = \"10s\"", "longest = \"500ms\"");
        small.world.config += &shards(&[&first, &second.url]);
        let ran = small.world.millrace("migrate", &["--apply"], &small.world.config);
        assert_eq!(ran.status, 0, "{}{}", ran.stdout, ran.stderr);
        assert!(ran.stdout.contains(&second.url) && ran.stdout.contains("create table orders"), "{}", ran.stdout);
        Self { small, second }
    }

    /// To each partition so many events, with ids from `first` on.
    async fn produce(&self, first: u32, each: u32) {
        for partition in 0..PARTITIONS {
            let from = first + partition as u32 * each;
            self.small.produce(partition, from..from + each).await;
        }
    }

    /// Rows by partition, of one shard.
    async fn rows(&self, client: &Client) -> BTreeMap<i32, u64> {
        let sql = format!(
            "SELECT _partition, uniqExact(event_id) FROM {}.orders GROUP BY _partition HAVING throwIf(count() != uniqExact(event_id)) = 0",
            self.small.world.database
        );
        client.query_raw(&sql).fetch_all::<(i32, u64)>().await.unwrap().into_iter().collect()
    }

    async fn until(&self, client: &Client, expected: [(i32, u64); 2], running: &Running) {
        let deadline = Instant::now() + SOON;
        while self.rows(client).await != expected.into() {
            assert!(Instant::now() < deadline, "{:?}, not {expected:?}\n{}", self.rows(client).await, running.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn is_accounted_for(&self) {
        let audit = self.small.world.millrace("audit", &["--json"], &self.small.world.config);
        assert_eq!(audit.status, 0, "{}{}", audit.stdout, audit.stderr);
    }
}

fn shards(urls: &[&str]) -> String {
    urls.iter().map(|url| format!("\n[[clickhouse.shards]]\nreplicas = [{url:?}]\n")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_land_on_the_shard_of_their_partition_and_one_that_is_away_holds_no_other_up() {
    let mut two = Two::new().await;
    let first = two.small.world.client.clone();
    let mut running = two.small.run();
    two.produce(0, 100).await;
    two.until(&first, [(0, 100), (2, 100)], &running).await;
    two.until(&two.second.client, [(1, 100), (3, 100)], &running).await;

    // One shard is killed, and more comes than it could have in flight: the partitions of the other go on.
    two.second.kill().await;
    two.produce(1_000, 1_000).await;
    two.until(&first, [(0, 1_100), (2, 1_100)], &running).await;
    let target = |shard: u32| format!("millrace_breaker_state{{target=\"clickhouse/{}/{shard}\"}}", two.small.topic);
    running.until_logged("circuit breaker opened", SOON).await;
    assert_eq!(running.metric(&target(0)).await, Some(0.0));
    assert_eq!(running.get("/healthz").await, "alive\n");
    // It is told once a second.
    let deadline = Instant::now() + SOON;
    while !running.get("/readyz").await.contains("shard 1: ") {
        assert!(Instant::now() < deadline, "{}\n{}", running.get("/readyz").await, running.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // What cannot land is not read: two batches in flight and the open one are held, none larger than a chunk of records.
    two.small.produce(1, 100_000..100_000 + MORE_THAN_IS_HELD).await;
    let deadline = Instant::now() + SOON;
    let lag = format!("millrace_lag_events{{topic={:?},partition=\"1\"}}", two.small.topic);
    while running.metric(&lag).await.is_none_or(|unread| unread < 1.0) {
        assert!(Instant::now() < deadline, "{}", running.get("/metrics").await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // And the other takes what comes later, too.
    two.small.produce(0, 90_000..90_100).await;
    two.until(&first, [(0, 1_200), (2, 1_100)], &running).await;

    two.second.up().await;
    let held_up = 1_100 + u64::from(MORE_THAN_IS_HELD);
    two.until(&two.second.client, [(1, held_up), (3, 1_100)], &running).await;
    assert!(running.terminate().await.0.success(), "{}", running.log());
    two.is_accounted_for();

    // Whoever starts next goes on where the shards stand.
    let mut running = two.small.run();
    two.produce(20_000, 50).await;
    two.until(&first, [(0, 1_250), (2, 1_150)], &running).await;
    two.until(&two.second.client, [(1, held_up + 50), (3, 1_150)], &running).await;
    assert!(running.terminate().await.0.success(), "{}", running.log());
    two.is_accounted_for();
    let check = two.small.world.check(&two.small.world.config);
    assert!(!check.problems().iter().any(|problem| problem.starts_with("clickhouse")), "{}", check.stdout);
    assert!(check.stdout.contains(&format!("shards[1], {}: table ", two.second.url)), "{}", check.stdout);

    // Exchanged, they are not written to.
    let own = two.small.world.config.clone();
    let (head, _) = own.split_once("\n[[clickhouse.shards]]").unwrap();
    two.small.world.config = format!("{head}{}", shards(&[&two.second.url, &two.small.world.stack.clickhouse]));
    two.produce(30_000, 1).await;
    let mut running = two.small.run();
    assert_eq!(running.ended(SOON).await.code(), Some(1), "{}", running.log());
    let log = running.log();
    assert!(log.contains("stopped (shards_changed)") && log.contains("docs/shards.md"), "{log}");
    two.until(&first, [(0, 1_250), (2, 1_150)], &running).await;

    // `check` names the server that does not answer, and goes on with the others.
    let nobody = format!("http://{NOBODY}");
    let check = two.small.world.check(&format!("{head}{}", shards(&[&two.small.world.stack.clickhouse, &nobody])));
    check.tells("clickhouse", &["shards[1]", &nobody, "cannot be reached"]);
    assert!(check.stdout.contains("table "), "{}", check.stdout);
    two.small.world.clean_up().await;
}

/// Replicated tables cannot be had here: two servers with plain ones stand for the replicas.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_fails_again_and_again_is_left_and_nothing_is_written_under_claims_made_there() {
    let world = World::migrated().await;
    let mut second = Second::start(&world).await;
    let ran = world.millrace("migrate", &["--apply"], &world.config.replace(&world.stack.clickhouse, &second.url));
    assert_eq!(ran.status, 0, "{}{}", ran.stdout, ran.stderr);
    let servers =
        vec![(second.url.clone(), second.client.clone()), (world.stack.clickhouse.clone(), world.client.clone())];
    let replicas = Replicas::new(servers, 2);
    let claims = claims_on(replicas.clone(), &world, "me");
    assert_eq!(claims.claim(&[0]).await.unwrap()[&0], 1);
    let inserter = inserter_with(&world, replicas.clone(), &claims).await;
    assert_eq!(inserter.land(&mut batch(rows(3, 1), 1)).await, Outcome::Durable);
    assert_eq!(world.rows_landed().await, 0);

    second.kill().await;
    // Neither is the batch sent to the next replica, where nobody has claimed anything, nor is any that comes after it.
    for _ in 0..2 {
        assert_eq!(inserter.land(&mut batch(rows(3, 1), 1)).await, Outcome::Unsettled);
        assert_eq!((replicas.current(), claims.are_left(), world.rows_landed().await), (1, true, 0));
    }
    inserter.answered();
    let claimed = claims.claim(&[0]).await.unwrap();
    assert_eq!(claims.quiet(&[0], Instant::now()).await.unwrap(), 0);
    assert!(!claims.are_left());
    assert_eq!(inserter.land(&mut batch(rows(3, 1), claimed[&0])).await, Outcome::Durable);
    assert_eq!(world.rows_landed().await, 3);
    world.clean_up().await;
}
