//! What may happen to a topic while it is read or not read: nothing of it is skipped in silence, and no row doubled.

use std::time::{Duration, Instant};

use millrace_schemas::CUSTOMER_V1;

use crate::{
    small::{Running, Small},
    world::{NOBODY, register},
};

const SOON: Duration = Duration::from_secs(20);
/// Until librdkafka has asked for the topic's partitions again, and until the log has been looked at.
const AFTER_A_LOOK: Duration = Duration::from_secs(60);

async fn lost(small: &Small, running: &Running, cause: &str) -> Option<f64> {
    let series = format!("millrace_positions_lost_total{{topic=\"{}\",cause=\"{cause}\"}}", small.topic);
    running.metric(&series).await
}

/// Lets `millrace` read the ids below `ids`, and end.
async fn read_once(small: &Small, ids: u32) {
    small.produce(0, 0..ids).await;
    let mut running = small.run();
    small.until_rows(u64::from(ids), SOON, &running).await;
    assert!(running.terminate().await.0.success());
    assert_eq!(small.committed().unwrap().0, i64::from(ids));
}

#[tokio::test]
async fn a_topic_made_anew_while_nobody_read_it_is_read_from_its_beginning() {
    let small = Small::new().await;
    read_once(&small, 50).await;
    let (offset, mark) = small.committed().unwrap();
    assert!(mark.starts_with("millrace1:"), "{mark}");
    small.delete_topic().await;
    small.make_topic(1).await;
    small.produce(0, 40..140).await;
    // Kafka forgets the offsets of a topic that is deleted; one that was committed on the way would look like this.
    small.commit(offset, &mark);

    let mut running = small.run();
    small.until_rows(140, SOON, &running).await;
    assert_eq!(lost(&small, &running, "recreated").await, Some(1.0));
    assert!(running.log().contains("the topic was deleted and made anew"), "{}", running.log());
    running.terminate().await;
    // The new log is known now.
    small.produce(0, 140..150).await;
    let mut running = small.run();
    small.until_rows(150, SOON, &running).await;
    assert_eq!(lost(&small, &running, "recreated").await, Some(0.0));
    running.terminate().await;
    small.world.clean_up().await;
}

#[tokio::test]
async fn a_topic_made_anew_while_it_is_read_is_read_from_its_beginning() {
    let mut small = Small::new().await;
    small.set("#start = \"earliest\"", "start = \"latest\"");
    let mut running = small.run();
    running.until_logged("partition is read", SOON).await;
    small.produce(0, 0..50).await;
    small.until_rows(50, SOON, &running).await;
    small.delete_topic().await;
    small.make_topic(1).await;
    small.produce(0, 50..250).await;
    small.until_rows(250, AFTER_A_LOOK, &running).await;
    let told = (lost(&small, &running, "recreated").await, lost(&small, &running, "expired").await);
    assert!(told.0 >= Some(1.0) || told.1 >= Some(1.0), "{told:?}\n{}", running.log());
    assert!(running.terminate().await.0.success());
    small.world.clean_up().await;
}

#[tokio::test]
async fn offsets_that_have_expired_do_not_make_the_events_meanwhile_be_skipped() {
    let mut small = Small::new().await;
    small.set("#start = \"earliest\"", "start = \"latest\"");
    let mut running = small.run();
    running.until_logged("partition is read", SOON).await;
    small.produce(0, 0..20).await;
    small.until_rows(20, SOON, &running).await;
    running.terminate().await;
    small.delete_group().await;
    small.produce(0, 20..50).await;

    let mut running = small.run();
    small.until_rows(50, SOON, &running).await;
    assert_eq!(lost(&small, &running, "expired").await, Some(1.0));
    running.terminate().await;
    small.world.clean_up().await;
}

#[tokio::test]
async fn what_retention_has_taken_is_said_and_the_policy_decides() {
    let mut small = Small::new().await;
    read_once(&small, 20).await;
    small.produce(0, 20..60).await;
    small.delete_records(45).await;
    small.set("#on_lost_position = \"resume\"", "on_lost_position = \"stop\"");
    let mut running = small.run();
    assert_eq!(running.ended(SOON).await.code(), Some(1));
    let log = running.log();
    let error = log.lines().find(|line| line.starts_with("error: ")).unwrap_or_else(|| panic!("{log}"));
    for words in [&*small.topic, "partition 0", "retention", "committed offset 20", "45 to 60", "\"resume\""] {
        assert!(error.contains(words), "{words} in {error}");
    }
    assert_eq!((small.committed().unwrap().0, small.rows().await.0), (20, 20));

    small.set("on_lost_position = \"stop\"", "on_lost_position = \"resume\"");
    let mut running = small.run();
    small.until_rows(20 + 15, SOON, &running).await;
    assert_eq!(lost(&small, &running, "retention").await, Some(1.0));
    assert!(running.log().contains("\"committed\":\"20\""), "{}", running.log());
    running.terminate().await;
    assert_eq!(small.committed().unwrap().0, 60);
    small.world.clean_up().await;
}

#[tokio::test]
async fn a_partition_that_is_added_is_read_from_its_beginning_and_its_first_row_is_timed() {
    let mut small = Small::new().await;
    small.set("#start = \"earliest\"", "start = \"latest\"");
    let mut running = small.run();
    running.until_logged("partition is read", SOON).await;
    small.produce(0, 0..5).await;
    small.until_rows(5, SOON, &running).await;
    let timed = format!("millrace_first_row_seconds_count{{topic=\"{}\"}}", small.topic);
    assert_eq!(running.metric(&timed).await, None, "nothing waited when the first partition came");
    small.grow(&small.topic, 2).await;
    small.produce(1, 5..25).await;
    small.until_rows(25, AFTER_A_LOOK, &running).await;
    assert_eq!(running.metric(&timed).await, Some(1.0));
    running.terminate().await;
    small.world.clean_up().await;
}

#[tokio::test]
async fn a_partition_that_is_added_to_a_reference_topic_is_read_from_its_beginning() {
    let mut small = Small::new().await;
    small.world.config = small.whole_config.clone();
    let topic = format!("{}.customers", small.world.database);
    let schema_id = register(&small.world.stack.registry, &format!("{topic}-value"), CUSTOMER_V1).await;
    let mut running = small.run();
    running.until_logged("partition is read", SOON).await;
    let rows = "millrace_reference_rows{lookup=\"customer\"}";
    assert_eq!(running.metric(rows).await, Some(0.0));
    small.grow(&topic, 2).await;
    let mut customer = [&[0], &schema_id.to_be_bytes()[..]].concat();
    for text in ["c-1", "consumer", "DE"] {
        customer.push(text.len() as u8 * 2);
        customer.extend(text.as_bytes());
    }
    customer.push(0);
    small.produce_to(&topic, 1, &[customer]).await;
    running.until_logged("partitions were added to a reference topic", AFTER_A_LOOK).await;
    let begun = Instant::now();
    while running.metric(rows).await != Some(1.0) {
        assert!(begun.elapsed() < SOON, "{}", running.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(running.terminate().await.0.success());
    small.world.clean_up().await;
}

#[tokio::test]
async fn an_unreachable_broker_does_not_hold_the_end_up() {
    let mut small = Small::new().await;
    small.world.config = small.whole_config.replace(&small.world.stack.kafka, NOBODY);
    let mut running = small.run();
    running.until_logged("\"subscribed\"", SOON).await;
    let (status, took) = running.terminate().await;
    assert!(status.success() && took < SOON, "{took:?}\n{}", running.log());
    small.world.clean_up().await;
}
