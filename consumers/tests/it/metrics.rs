//! What a running `millrace` says of itself, on real parts: every series is documented, those of partitions end with them, the
//! probe sees rows, and the registry's breaker opens and closes.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use millrace_consumers::telemetry::catalogue::{Kind, Metric, metric};
use rdkafka::{
    ClientConfig,
    producer::{BaseProducer, BaseRecord, Producer},
};
use tokio::net::TcpListener;

use crate::small::{Running, Small};

const SOON: Duration = Duration::from_secs(30);

/// Partitions of the topic with a lag, by the text of `/metrics`.
fn partitions(text: &str, name: &str) -> BTreeSet<String> {
    let lines = text.lines().filter(|line| line.starts_with(&format!("{name}{{")));
    lines.map(|line| line.split("partition=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()).collect()
}

async fn until(running: &Running, what: &str, is_so: impl Fn(&str) -> bool) -> String {
    let deadline = Instant::now() + SOON;
    loop {
        let text = running.get("/metrics").await;
        if is_so(&text) {
            return text;
        }
        assert!(Instant::now() < deadline, "not {what}:\n{text}\n{}", running.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn in_transaction(small: &Small, partition: i32, values: &[Vec<u8>]) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &small.world.stack.kafka)
        .set("transactional.id", &small.topic)
        .create()
        .unwrap();
    producer.init_transactions(SOON).unwrap();
    producer.begin_transaction().unwrap();
    for value in values {
        producer.send(BaseRecord::to(&small.topic).key("key").payload(value).partition(partition)).unwrap();
    }
    producer.commit_transaction(SOON).unwrap();
}

/// Every series is in the catalogue, with the labels that are told there.
fn is_documented(text: &str) {
    let help: BTreeMap<&str, &str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let mut seen = BTreeSet::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok(), "{line}");
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        let known = metric(name).or_else(|| metric(of_histogram?));
        let Metric { name, kind, labels: expected, .. } =
            known.unwrap_or_else(|| panic!("{line} is documented nowhere"));
        assert_eq!(help.get(name), Some(&kind.word()), "{name}");
        let labels = labels.trim_end_matches('}').split("\",").filter_map(|label| Some(label.split_once('=')?.0));
        let labels: Vec<&str> = labels.filter(|label| !matches!(kind, Kind::Histogram(_)) || *label != "le").collect();
        assert_eq!(&labels, expected, "{line}");
        seen.insert(*name);
    }
    assert!(seen.len() > 35, "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn series_of_a_partition_end_with_it_and_every_series_is_documented() {
    let mut small = Small::new().await;
    small.grow(&small.topic, 2).await;
    small.set("#interval = \"5s\"", "interval = \"50ms\"");
    let mut first = small.run();
    for partition in [0, 1] {
        small.produce(partition, partition as u32 * 100..partition as u32 * 100 + 50).await;
    }
    // Behind the last event of a transaction lies its end, which is no event to lag behind.
    in_transaction(&small, 0, &[small.event(50)]);
    // One that is there already, and one that is none.
    small.produce(1, 100..101).await;
    small.produce_to(&small.topic, 1, &[b"no event".to_vec()]).await;
    small.until_rows(101, SOON, &first).await;
    let topic = &small.topic;
    let both = BTreeSet::from(["0".to_owned(), "1".to_owned()]);
    let nothing_left = |text: &str| {
        let zero =
            |name: &str| text.lines().filter(|line| line.starts_with(name) && line.ends_with("} 0")).count() == 2;
        zero("millrace_lag_events{") && zero("millrace_lag_seconds{")
    };
    let text = until(&first, "without lag", nothing_left).await;
    assert_eq!(
        (partitions(&text, "millrace_lag_events"), partitions(&text, "millrace_lag_seconds")),
        (both.clone(), both)
    );
    let seen = format!("millrace_probes_total{{topic=\"{topic}\",outcome=\"visible\"}}");
    let text =
        until(&first, "a row seen", |text| text.lines().any(|line| line.starts_with(&seen) && !line.ends_with(" 0")))
            .await;
    is_documented(&text);
    // Rows and lag are told before the last events, which make neither, need have been read.
    let expected = [
        (format!("millrace_events_total{{topic=\"{topic}\"}}"), 103),
        (format!("millrace_duplicates_dropped_total{{topic=\"{topic}\"}}"), 1),
        (format!("millrace_stage_events_total{{topic=\"{topic}\",stage=\"poll\"}}"), 103),
        (format!("millrace_stage_events_total{{topic=\"{topic}\",stage=\"decode\"}}"), 102),
        (format!("millrace_stage_events_total{{topic=\"{topic}\",stage=\"dedup\"}}"), 101),
        (format!("millrace_stage_events_total{{topic=\"{topic}\",stage=\"insert\"}}"), 101),
        (format!("millrace_stage_events_total{{topic=\"{topic}\",stage=\"dead_letter\"}}"), 1),
        (format!("millrace_stage_events_total{{topic=\"{topic}\",stage=\"commit\"}}"), 103),
        (format!("millrace_stage_errors_total{{topic=\"{topic}\",stage=\"decode\",reason=\"bad_magic\"}}"), 1),
        (format!("millrace_dedup_ids{{topic=\"{topic}\"}}"), 101),
        (format!("millrace_breaker_state{{target=\"clickhouse/{topic}\"}}"), 0),
        (format!("millrace_partitions_running{{topic=\"{topic}\"}}"), 2),
        (format!("millrace_kafka_brokers_up{{topic=\"{topic}\"}}"), 1),
    ]
    .map(|(series, value)| format!("{series} {value}\n"));
    until(&first, "told all of its counts", |text| expected.iter().all(|line| text.contains(line))).await;
    // A second process takes one of the two partitions.
    let mut second = small.run_beside(&small.world.config);
    let ids = |text: &str, ids: u64| {
        text.lines().any(|line| line == format!("millrace_dedup_ids{{topic=\"{topic}\"}} {ids}"))
    };
    let one = |text: &str| partitions(text, "millrace_lag_events").len() == 1 && (ids(text, 50) || ids(text, 51));
    let kept = until(&first, "left with one partition and its ids", one).await;
    assert_eq!(partitions(&kept, "millrace_lag_events"), partitions(&kept, "millrace_lag_seconds"));
    let taken = until(&second, "reading the other", one).await;
    assert!(partitions(&kept, "millrace_lag_events").is_disjoint(&partitions(&taken, "millrace_lag_events")));
    assert!(first.terminate().await.0.success() && second.terminate().await.0.success());
    small.world.clean_up().await;
}

/// Lets bytes through to the registry, or nobody connect.
struct Gate {
    address: String,
    to: String,
    passing: Option<tokio::task::JoinHandle<()>>,
}

impl Gate {
    async fn open(&mut self) {
        let listener = TcpListener::bind(&self.address).await.unwrap();
        let to = self.to.clone();
        self.passing = Some(tokio::spawn(async move {
            let mut through = tokio::task::JoinSet::new();
            while let Ok((mut inner, _)) = listener.accept().await {
                let to = to.clone();
                through.spawn(async move {
                    let mut outer = tokio::net::TcpStream::connect(to).await?;
                    tokio::io::copy_bidirectional(&mut inner, &mut outer).await
                });
            }
        }));
    }

    async fn close(&mut self) {
        let passing = self.passing.take().unwrap();
        passing.abort();
        _ = passing.await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_breaker_of_the_registry_opens_while_it_is_away_and_closes_once_it_answers() {
    let mut small = Small::new().await;
    small.set("#failures_to_open = 5", "failures_to_open = 2");
    small.set("#rest = \"5s\"", "rest = \"200ms\"");
    small.set("#longest = \"10s\"", "longest = \"100ms\"");
    let registry = small.world.stack.registry.clone();
    let (host, path) = registry.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    small.set(&format!("url = {registry:?}"), &format!("url = \"http://{port}/{path}\""));
    let mut gate = Gate { address: port.to_string(), to: host.to_owned(), passing: None };
    gate.open().await;
    let mut running = small.run();
    running.until_logged("partition is read", SOON).await;
    gate.close().await;
    // Its schema is asked for with the first event.
    small.produce(0, 0..10).await;
    let state = "millrace_breaker_state{target=\"registry\"}";
    let openings = "millrace_breaker_openings_total{target=\"registry\"} 1";
    until(&running, "open", |text| text.contains(openings)).await;
    let deadline = Instant::now() + SOON;
    while !running.get("/readyz").await.contains("events wait for the schema registry") {
        assert!(Instant::now() < deadline, "{}\n{}", running.get("/readyz").await, running.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(running.metric(state).await.unwrap() > 0.0);
    gate.open().await;
    small.until_rows(10, SOON, &running).await;
    until(&running, "closed", |text| text.contains(&format!("{state} 0"))).await;
    let log = running.log();
    for line in ["circuit breaker opened", "circuit breaker closed"] {
        assert_eq!(log.matches(line).count(), 1, "{line} in\n{log}");
    }
    assert!(running.terminate().await.0.success());
    small.world.clean_up().await;
}
