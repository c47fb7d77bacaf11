use std::collections::HashSet;
use std::sync::Arc;

use millrace_producers::{Cause, EventPublisher, PublisherConfig};
use millrace_schemas::OrderEvent;
use rdkafka::message::Message;

use crate::stack::{decode, event, read_all, topic};

fn large_event() -> OrderEvent {
    let mut event = event();
    // Not compressible, or the broker would not see it as large.
    event.data.shipping.city = std::iter::repeat_with(|| uuid::Uuid::new_v4().to_string()).take(200).collect();
    event
}

#[tokio::test]
async fn an_event_too_large_for_the_publisher_is_refused_at_once() {
    let mut config = topic(1, &[]).await;
    config.max_event_bytes = 1_000;
    let publisher = EventPublisher::connect(config).await.unwrap();
    let (large, small) = (large_event(), event());
    let error = publisher.send(&large).await.unwrap_err();
    assert_eq!((error.cause, error.key), (Cause::TooLarge, large.event_id.to_string()));
    publisher.publish(&small).await.expect("the next event is not held back");
}

#[tokio::test]
async fn an_event_too_large_for_the_topic_fails_with_its_cause() {
    let config = topic(1, &[("max.message.bytes", "2000")]).await;
    let publisher = EventPublisher::connect(config).await.unwrap();
    let error = publisher.publish(&large_event()).await.unwrap_err();
    assert_eq!(error.cause, Cause::TooLarge, "{error}");
}

/// Four tasks send through a queue that holds next to nothing; every event must arrive once.
async fn all_arrive(config: PublisherConfig) {
    let publisher = EventPublisher::<OrderEvent>::connect(config.clone()).await.unwrap();
    let sent: Arc<Vec<OrderEvent>> = Arc::new(std::iter::repeat_with(event).take(2_000).collect());
    let tasks: Vec<_> = (0..4)
        .map(|task| {
            let (publisher, sent) = (publisher.clone(), Arc::clone(&sent));
            tokio::spawn(async move {
                for event in sent.iter().skip(task).step_by(4) {
                    publisher.send(event).await.unwrap();
                    assert!(publisher.in_flight() <= 100_000);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    publisher.flush().await;
    assert_eq!(publisher.in_flight(), 0);
    let records = read_all(&config);
    let arrived: HashSet<_> = records.values().map(|r| decode(r.payload().unwrap()).1.event_id).collect();
    assert_eq!((records.len(), arrived.len()), (sent.len(), sent.len()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_of_ten_events_loses_nothing() {
    let mut config = topic(2, &[]).await;
    config.max_in_flight_events = 10;
    config.linger_ms = 1;
    all_arrive(config).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_of_four_kibibytes_loses_nothing() {
    let mut config = topic(2, &[]).await;
    config.max_in_flight_kib = 4;
    config.linger_ms = 1;
    all_arrive(config).await;
}
