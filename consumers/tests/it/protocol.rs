//! The delivery protocol's words with ClickHouse: claim, quiet, fence, block, load.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use arrow_array::{ArrayRef, FixedSizeBinaryArray, Int32Array, Int64Array, RecordBatch, TimestampMillisecondArray};
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use millrace_consumers::{
    clickhouse::{
        claims::Claims,
        errors::{ErrorClass, classify},
        insert::{Inserter, Outcome, body},
        replicas::Replicas,
        rollups::Rollups,
        table::describe,
    },
    config::{Config, LostPosition, StartOffset},
    kafka::source::Source,
    takeover::{Elsewhere, Held, Ids, Request, TakeOver, TakenOver},
};
use millrace_pipeline::{
    batch::{Batch, Progress, Trigger},
    dedup::PartitionIndex,
};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
    producer::{FutureProducer, FutureRecord},
};
use uuid::Uuid;

use crate::world::World;

const TIMEOUT: Duration = Duration::from_secs(10);
const WINDOW: Duration = Duration::from_secs(24 * 3600);

pub(crate) fn claims(world: &World, owner: &str) -> Claims {
    claims_on(world.client.clone(), world, owner)
}

/// Claims on these servers.
pub(crate) fn claims_on(servers: impl Into<Replicas>, world: &World, owner: &str) -> Claims {
    Claims::new(servers, world.qualified("claims"), "orders", owner, TIMEOUT)
}

async fn inserter(world: &World, claims: &Claims) -> Inserter {
    inserter_with(world, world.client.clone(), claims).await
}

/// An inserter that speaks to these servers.
pub(crate) async fn inserter_with(world: &World, servers: impl Into<Replicas>, claims: &Claims) -> Inserter {
    let table = describe(&world.client, &world.database, "orders", TIMEOUT).await.unwrap().unwrap();
    let columns = ["event_id", "timestamp", "_partition", "_offset"].map(str::to_owned);
    let table_name = world.qualified("orders");
    Inserter::new(servers, claims.clone(), "orders", &table_name, &table, &columns, TIMEOUT)
}

/// Rows of one partition with offsets from 0, their times spread over `months`.
pub(crate) fn rows(count: usize, months: i64) -> RecordBatch {
    const MONTH_MS: i64 = 31 * 86_400_000;
    let ids = (0..count).map(|_| Uuid::new_v4().into_bytes());
    let times = (0..count as i64).map(|row| 1_700_000_000_000 + row % months * MONTH_MS);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("event_id", Arc::new(FixedSizeBinaryArray::try_from_iter(ids).unwrap())),
        ("timestamp", Arc::new(TimestampMillisecondArray::from_iter_values(times).with_timezone("+00:00"))),
        ("_partition", Arc::new(Int32Array::from_value(0, count))),
        ("_offset", Arc::new(Int64Array::from_iter_values(0..count as i64))),
    ];
    let fields: Vec<Field> =
        columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), false)).collect();
    assert_eq!(fields[1].data_type(), &DataType::Timestamp(TimeUnit::Millisecond, Some("+00:00".into())));
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.into_iter().map(|(_, array)| array).collect()).unwrap()
}

pub(crate) fn batch(rows: RecordBatch, epoch: u64) -> Batch {
    let next_offset = rows.num_rows() as i64;
    Batch {
        seq: 0,
        published_ms: vec![0; rows.num_rows()],
        rows,
        progress: vec![Progress { partition: 0, epoch, next_offset }],
        dead_letters: Vec::new(),
        trigger: Trigger::Rows,
    }
}

impl World {
    fn qualified(&self, table: &str) -> String {
        format!("`{}`.`{table}`", self.database)
    }

    async fn count(&self, what: &str) -> u64 {
        self.client.query_raw(&what.replace("{db}", &self.database)).fetch_one().await.unwrap()
    }

    pub(crate) async fn rows_landed(&self) -> u64 {
        self.count("SELECT count() FROM {db}.orders").await
    }
}

#[tokio::test]
async fn the_last_to_claim_writes_and_everyone_before_is_refused_by_the_server() {
    let world = World::migrated().await;
    let (first, second) = (claims(&world, "first"), claims(&world, "second"));
    let first_epoch = first.claim(&[0, 1]).await.unwrap();
    assert_eq!(first_epoch, BTreeMap::from([(0, 1), (1, 1)]));
    let into_first = inserter(&world, &first).await;
    assert_eq!(into_first.land(&mut batch(rows(3, 1), 1)).await, Outcome::Durable);

    assert_eq!(second.claim(&[0]).await.unwrap(), BTreeMap::from([(0, 2)]));
    assert_eq!(into_first.land(&mut batch(rows(3, 1), 1)).await, Outcome::Refused);
    assert_eq!(world.rows_landed().await, 3);
    let into_second = inserter(&world, &second).await;
    assert_eq!(into_second.land(&mut batch(rows(3, 1), 2)).await, Outcome::Durable);

    // Getting the partition back does not let an insert of the earlier claim in.
    assert_eq!(first.claim(&[0]).await.unwrap(), BTreeMap::from([(0, 3)]));
    assert_eq!(into_first.land(&mut batch(rows(3, 1), 1)).await, Outcome::Refused);
    assert_eq!(into_first.land(&mut batch(rows(3, 1), 3)).await, Outcome::Durable);
    assert_eq!(world.rows_landed().await, 9);
    world.clean_up().await;
}

#[tokio::test]
async fn claims_made_at_the_same_moment_have_one_holder() {
    let world = World::migrated().await;
    let all: Vec<Claims> = (0..8).map(|owner| claims(&world, &format!("owner-{owner}"))).collect();
    let made = futures::future::join_all(all.iter().map(|claims| claims.claim(&[0]))).await;
    made.into_iter().for_each(|claim| drop(claim.unwrap()));
    // Who holds it is asked once all are written: one of them, and every other is refused.
    let mut durable = 0;
    for (claims, epoch) in all.iter().flat_map(|claims| (1..=8).map(move |epoch| (claims, epoch))) {
        let landed = inserter(&world, claims).await.land(&mut batch(rows(1, 1), epoch)).await;
        durable += u32::from(landed == Outcome::Durable);
    }
    assert_eq!(durable, 1);
    assert_eq!(world.rows_landed().await, 1);
    world.clean_up().await;
}

#[tokio::test]
async fn a_large_batch_is_one_block_so_one_part_for_each_month() {
    let world = World::migrated().await;
    let claims = claims(&world, "me");
    claims.claim(&[0]).await.unwrap();
    let landed = inserter(&world, &claims).await.land(&mut batch(rows(300_000, 3), 1)).await;
    assert_eq!(landed, Outcome::Durable);
    assert_eq!(world.rows_landed().await, 300_000);
    let parts = "SELECT count() FROM system.parts WHERE database = '{db}' AND table = 'orders' AND level = 0";
    assert_eq!(world.count(parts).await, 3);
    world.clean_up().await;
}

#[tokio::test]
async fn the_same_rows_under_the_same_token_land_once_also_through_the_fence() {
    let world = World::migrated().await;
    let claims = claims(&world, "me");
    claims.claim(&[0]).await.unwrap();
    let inserter = inserter(&world, &claims).await;
    let batch = batch(rows(1000, 2), 1);
    let body = body(&batch.rows).unwrap();
    for attempt in 0..3 {
        inserter.send(&batch, "one-token", attempt, claims.lease(), &body).await.unwrap();
    }
    assert_eq!(world.rows_landed().await, 1000);
    inserter.send(&batch, "another-token", 0, claims.lease(), &body).await.unwrap();
    assert_eq!(world.rows_landed().await, 2000, "the negative control: without the token they land again");
    world.clean_up().await;
}

/// What was sent in another life of the server, or comes long after it was sent, is refused and not taken for new.
#[tokio::test]
async fn an_insert_that_comes_too_late_to_be_told_from_a_repetition_is_refused() {
    let world = World::migrated().await;
    let claims = claims(&world, "me");
    assert_eq!(claims.lease(), None);
    claims.claim(&[0]).await.unwrap();
    let inserter = inserter(&world, &claims).await;
    let batch = batch(rows(1000, 2), 1);
    let body = body(&batch.rows).unwrap();
    let lease = claims.lease().unwrap();
    for wrong in [lease.in_another_life(), lease.run_out()] {
        let error = inserter.send(&batch, &world.database, 0, Some(wrong), &body).await.unwrap_err();
        assert_eq!(classify(&error), ErrorClass::TooLate, "{error}");
    }
    assert_eq!(world.rows_landed().await, 0);
    inserter.send(&batch, &world.database, 1, Some(lease), &body).await.unwrap();
    assert_eq!(world.rows_landed().await, 1000);
    world.clean_up().await;
}

#[tokio::test]
async fn a_half_sent_insert_of_an_earlier_owner_is_stopped_and_leaves_no_row() {
    let world = World::migrated().await;
    let (first, second) = (claims(&world, "first"), claims(&world, "second"));
    first.claim(&[0]).await.unwrap();
    let batch = batch(rows(200_000, 1), 1);
    let body = body(&batch.rows).unwrap();
    let sql = format!(
        "INSERT INTO {} (event_id, timestamp, _partition, _offset) SELECT event_id, timestamp, _partition, _offset FROM \
         input('event_id UUID, timestamp DateTime64(3, \\'UTC\\'), _partition Int32, _offset Int64') WHERE {} FORMAT ArrowStream",
        world.qualified("orders"),
        first.fence(&batch.progress, None)
    );
    let mut insert = world
        .client
        .insert_formatted_with(sql)
        .with_setting("log_comment", first.comment(&batch.progress))
        .with_setting("wait_end_of_query", "1");
    let body = body.concat();
    let (half, rest) = body.split_at(body.len() / 2);
    insert.send(half.to_vec().into()).await.unwrap();
    let running = "SELECT count() FROM system.processes WHERE Settings['log_comment'] LIKE '%\"owner\":\"first\"%'";
    let deadline = tokio::time::Instant::now() + TIMEOUT;
    while world.count(running).await == 0 {
        assert!(tokio::time::Instant::now() < deadline, "the half-sent insert never showed up");
    }

    second.claim(&[0]).await.unwrap();
    assert!(second.quiet(&[0], std::time::Instant::now()).await.unwrap() >= 1);
    let ended = async {
        insert.send(rest.to_vec().into()).await?;
        insert.end().await
    };
    assert!(ended.await.is_err(), "the server must refuse the rest");
    assert_eq!(world.rows_landed().await, 0);
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_inside_the_window_and_past_the_commit_are_loaded_and_no_others() {
    let world = World::migrated().await;
    let [recent, old, uncommitted] = [1u128, 2, 3];
    for (id, offset, age_days) in [(recent, 0, 0), (old, 1, 3), (uncommitted, 7, 3)] {
        let id = Uuid::from_u128(id);
        world
            .sql(&format!(
                "INSERT INTO {{db}}.orders (event_id, _partition, _offset, _ingested_at) \
                 VALUES ('{id}', 0, {offset}, now64(3) - toIntervalDay({age_days}))"
            ))
            .await;
    }
    let config = Config::load(world.write(&world.config).as_ref()).unwrap();
    let topic = &config.topics[0].spec.topic;
    produce(&config, topic, 8).await;
    commit(&config, topic, 5);

    let source = Source::subscribe(&config.kafka, topic, topic).unwrap();
    let take_over = TakeOver {
        claims: claims(&world, "me"),
        elsewhere: Elsewhere::default(),
        ids: Ids {
            replicas: world.client.clone().into(),
            topic: topic.clone(),
            table: world.qualified("orders"),
            id_column: "event_id".into(),
            window: WINDOW,
            unacknowledged_rows: 1,
        },
        rollups: Rollups::new(world.client.clone(), &world.database, "orders"),
        topic: topic.clone(),
        label: topic.clone(),
        start: StartOffset::Earliest,
        on_lost_position: LostPosition::Resume,
        kafka_timeout: TIMEOUT,
    };
    let take_over = Arc::new(take_over);
    let taken = take_over_all(&take_over, &source, 1000).await;
    assert_eq!((taken.len(), taken[0].epoch, taken[0].next_offset), (1, 1, 5));
    let index = &taken[0].index;
    assert!(index.contains(recent), "inside the window");
    assert!(index.contains(uncommitted), "past the committed offset, however old");
    assert!(!index.contains(old), "outside the window and committed");
    assert_eq!(index.len(), 2);

    // With room for one, what is past the committed offset comes first, and of that what was ingested last.
    let last = Uuid::from_u128(4);
    let insert = "INSERT INTO {db}.orders (event_id, _partition, _offset, _ingested_at) VALUES";
    world.sql(&format!("{insert} ('{last}', 0, 6, now64(3) - toIntervalDay(2))")).await;
    let taken = take_over_all(&take_over, &source, 1).await;
    assert_eq!((taken[0].epoch, taken[0].index.len()), (2, 1));
    assert!(taken[0].index.contains(last.as_u128()));
    world.clean_up().await;
}

async fn take_over_all(take_over: &Arc<TakeOver>, source: &Source, room: usize) -> Vec<TakenOver> {
    let taken: Arc<Mutex<Vec<TakenOver>>> = Arc::default();
    let ready = {
        let taken = Arc::clone(&taken);
        move |one| taken.lock().unwrap().push(one)
    };
    let new_index = || PartitionIndex::new(WINDOW, 1 << 20);
    let held = Held::default();
    held.set([0].into_iter());
    let request = Request { attempt: 1, partitions: vec![0, 1], held, room };
    Arc::clone(take_over).run(request, source.reader(), new_index, || 1_000_000_000, ready).await.unwrap();
    std::mem::take(&mut *taken.lock().unwrap())
}

async fn produce(config: &Config, topic: &str, records: usize) {
    let producer: FutureProducer =
        ClientConfig::new().set("bootstrap.servers", &config.kafka.bootstrap_servers).create().unwrap();
    for _ in 0..records {
        let record = FutureRecord::<str, str>::to(topic).payload("anything").partition(0);
        producer.send(record, TIMEOUT).await.unwrap();
    }
}

fn commit(config: &Config, topic: &str, offset: i64) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &config.kafka.bootstrap_servers)
        .set("group.id", &config.kafka.group_id)
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Offset(offset)).unwrap();
    consumer.commit(&list, CommitMode::Sync).unwrap();
}
