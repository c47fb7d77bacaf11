//! What was replayed against what it was replayed from, record by record.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use millrace_bench::generate::{Progress, generate};
use millrace_bench::manifest::{Offsets, record_hash};
use millrace_bench::replay::{Replay, replay};
use millrace_bench::setup::reference;
use millrace_bench::stack::{Stack, Topics};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Message, OwnedMessage};
use rdkafka::{Offset, TopicPartitionList};

fn records(stack: &Stack, topic: &str, begin: &Offsets, end: &Offsets) -> BTreeMap<(i32, i64), OwnedMessage> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &stack.kafka)
        .set("group.id", "it-bench")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    let mut assignment = TopicPartitionList::new();
    for (&partition, &begin) in begin {
        assignment.add_partition_offset(topic, partition, Offset::Offset(begin)).unwrap();
    }
    consumer.assign(&assignment).unwrap();
    let count: i64 = end.iter().map(|(partition, end)| end - begin[partition]).sum();
    let mut records = BTreeMap::new();
    while records.len() < count as usize {
        let record = consumer.poll(Duration::from_secs(20)).expect("an answer within the timeout").unwrap();
        records.insert((record.partition(), record.offset() - begin[&record.partition()]), record.detach());
    }
    records
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

#[tokio::test]
async fn a_replayed_topic_holds_the_same_records_at_the_time_and_pace_of_the_replay() {
    let stack = crate::stack();
    let id = uuid::Uuid::new_v4().simple();
    let (from, to) = (Topics::new(&format!("it-from-{id}-")), Topics::new(&format!("it-to-{id}-")));
    for topics in [&from, &to] {
        reference(&stack, topics, 6, 3, |_| ()).await.unwrap();
    }
    // The source has a run before the one that is replayed, and so does the destination: offsets must be mapped.
    generate(&stack, &from, &crate::load(7), Arc::new(Progress::default())).await.unwrap();
    let source = generate(&stack, &from, &crate::load(6), Arc::new(Progress::default())).await.unwrap();
    let what = |rate, limit| Replay { from: from.orders.clone(), to: to.clone(), rate, limit };
    let progress = AtomicU64::new(0);
    let part = replay(&stack, &what(10_000, Some(Duration::from_millis(300))), None, &progress).await.unwrap();
    assert!((1_000..20_000).contains(&part.records), "{} records in 300 ms at 10,000/s", part.records);
    assert!(part.manifest(&source, &to).is_err(), "a part has no manifest");

    let began = now_ms();
    let range = Some((&source.begin_offsets, &source.end_offsets));
    let sent = replay(&stack, &what(20_000, None), range, &progress).await.unwrap();
    let ended = now_ms();
    assert_eq!((sent.records, progress.load(Ordering::Relaxed)), (source.delivered, source.delivered));
    assert!(sent.seconds > source.delivered as f64 / 20_000.0 - 0.2, "{} s", sent.seconds);
    let manifest = sent.manifest(&source, &to).unwrap();
    assert!(manifest.begin_offsets.values().all(|&begin| begin > 0));

    let before = records(&stack, &from.orders, &source.begin_offsets, &source.end_offsets);
    let after = records(&stack, &to.orders, &manifest.begin_offsets, &manifest.end_offsets);
    assert!(before.keys().eq(after.keys()), "the same partitions with as many records each");
    for (place, before) in &before {
        let after = &after[place];
        assert_eq!((before.key(), before.payload()), (after.key(), after.payload()));
        let time = after.timestamp().to_millis().unwrap();
        // Records of a batch keep their distance, and a batch is filled within its linger.
        assert!((began - 1_000..=ended).contains(&time), "{time} is not between {began} and {ended}");
    }
    assert_eq!(manifest.poison.len(), source.poison.len());
    for (poison, original) in manifest.poison.iter().zip(&source.poison) {
        let record = &after[&(poison.partition, poison.offset - manifest.begin_offsets[&poison.partition])];
        let hash = record_hash(record.key().unwrap_or_default(), record.payload().unwrap_or_default());
        assert_eq!((&hash, &poison.hash), (&original.hash, &original.hash));
    }
}
