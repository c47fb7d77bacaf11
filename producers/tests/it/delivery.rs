use std::time::{Duration, Instant};

use millrace_producers::{Cause, Delivered, EventPublisher, TraceParent, schema_id};
use millrace_schemas::{ORDER_EVENT_V1, OrderEvent};
use rdkafka::message::{Headers, Message, OwnedMessage};

use crate::stack::{NOBODY, decode, event, read_all, topic};

fn traceparent(message: &OwnedMessage) -> Option<TraceParent> {
    let header = message.headers()?.iter().find(|header| header.key == "traceparent")?;
    TraceParent::parse(std::str::from_utf8(header.value?).ok()?)
}

#[tokio::test]
async fn events_lie_where_the_publisher_says_and_read_back_as_they_were() {
    let config = topic(3, &[]).await;
    let publisher = EventPublisher::<OrderEvent>::connect(config.clone()).await.unwrap();
    let events: Vec<OrderEvent> = std::iter::repeat_with(event).take(200).collect();
    let mut answers = Vec::new();
    for event in &events {
        answers.push(publisher.send(event).await.unwrap());
    }
    publisher.close(Duration::from_secs(20)).await.unwrap();

    let id = schema_id(&config.registry, &config.topic, ORDER_EVENT_V1, false).await.unwrap();
    let records = read_all(&config);
    assert_eq!(records.len(), events.len());
    for (event, answer) in events.iter().zip(answers) {
        let Delivered { partition, offset } = answer.await.unwrap();
        let record = &records[&(partition, offset)];
        assert_eq!(decode(record.payload().unwrap()), (id, event.clone()));
        assert_eq!(record.key().unwrap(), event.event_id.to_string().as_bytes());
        assert!(traceparent(record).is_some());
    }
    let partitions: std::collections::HashSet<i32> = records.keys().map(|&(partition, _)| partition).collect();
    assert_eq!(partitions.len(), 3, "keys spread over the partitions");
}

#[tokio::test]
async fn an_event_sent_by_another_session_goes_to_the_same_partition() {
    let config = topic(7, &[]).await;
    let event = event();
    let mut partitions = Vec::new();
    for _ in 0..3 {
        let publisher = EventPublisher::connect(config.clone()).await.unwrap();
        partitions.push(publisher.publish(&event).await.unwrap().partition);
        publisher.close(Duration::from_secs(20)).await.unwrap();
    }
    assert_eq!(partitions, [partitions[0]; 3]);
}

#[tokio::test]
async fn the_callers_trace_is_passed_on_and_none_is_made_up_when_told_so() {
    let mut config = topic(1, &[]).await;
    config.generate_traceparent = false;
    let publisher = EventPublisher::connect(config.clone()).await.unwrap();
    let trace = TraceParent::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    publisher.send_traced(&event(), trace).await.unwrap().await.unwrap();
    publisher.publish(&event()).await.unwrap();
    let records = read_all(&config);
    assert_eq!(traceparent(&records[&(0, 0)]), trace);
    assert_eq!(traceparent(&records[&(0, 1)]), None);
}

#[tokio::test]
async fn an_event_that_is_encoded_already_arrives_as_it_is() {
    let config = topic(1, &[]).await;
    let publisher = EventPublisher::<OrderEvent>::connect(config.clone()).await.unwrap();
    let delivered = publisher.send_encoded(b"key", b"value").await.unwrap().await.unwrap();
    publisher.close(Duration::from_secs(20)).await.unwrap();
    let record = &read_all(&config)[&(delivered.partition, delivered.offset)];
    assert_eq!((record.key(), record.payload()), (Some(&b"key"[..]), Some(&b"value"[..])));
    assert!(traceparent(record).is_some());
    let refused = publisher.send_encoded(b"key", b"value").await.unwrap_err();
    assert_eq!((refused.cause, refused.key.as_str()), (Cause::Closed, "key"));
}

#[tokio::test]
async fn without_a_broker_an_event_times_out_in_time_and_is_named() {
    let mut config = topic(1, &[]).await;
    config.bootstrap_servers = NOBODY.into();
    config.delivery_timeout_ms = 2_000;
    let publisher = EventPublisher::connect(config).await.unwrap();
    let event = event();
    let began = Instant::now();
    let error = publisher.publish(&event).await.unwrap_err();
    assert_eq!((error.cause, error.key), (Cause::TimedOut, event.event_id.to_string()));
    let took = began.elapsed();
    assert!((1_900..6_000).contains(&took.as_millis()), "{took:?}");
}

#[tokio::test]
async fn close_says_how_many_events_it_gave_up_and_their_futures_resolve() {
    let mut config = topic(1, &[]).await;
    config.bootstrap_servers = NOBODY.into();
    let publisher = EventPublisher::connect(config).await.unwrap();
    let mut answers = Vec::new();
    for _ in 0..5 {
        answers.push(publisher.send(&event()).await.unwrap());
    }
    let error = publisher.close(Duration::from_millis(300)).await.unwrap_err();
    assert_eq!(error.undelivered, 5);
    for answer in answers {
        assert_eq!(answer.await.unwrap_err().cause, Cause::Closed);
    }
    let refused = publisher.send(&event()).await.unwrap_err();
    assert_eq!(refused.cause, Cause::Closed);
}

#[tokio::test]
async fn an_abandoned_publisher_settles_what_it_had() {
    let mut config = topic(1, &[]).await;
    config.bootstrap_servers = NOBODY.into();
    let publisher = EventPublisher::connect(config).await.unwrap();
    let answer = publisher.send(&event()).await.unwrap();
    drop(publisher);
    assert_eq!(answer.await.unwrap_err().cause, Cause::Closed);
}
