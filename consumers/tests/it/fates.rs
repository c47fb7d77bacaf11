//! Topics of one process share the machinery but not their fate.

use std::time::{Duration, Instant};

use crate::small::{Running, Small};

const SOON: Duration = Duration::from_secs(20);

/// Two topics of small events, each with a table of its own.
struct Two {
    small: Small,
    second: String,
}

impl Two {
    /// `extra` are more keys of the second topic, whose table is `table`.
    async fn new(table: &str, extra: &str) -> Self {
        let mut small = Small::new().await;
        let database = small.world.database.clone();
        let second = format!("{database}.second");
        for topic in [&second, &format!("{second}.dead")] {
            small.at(topic, async |small| small.make_topic(1).await).await;
        }
        small.world.sql("CREATE TABLE {db}.second AS {db}.orders").await;
        let (_, first) = small.world.config.split_once("[[topics]]").unwrap();
        let section = first
            .replace(&format!("name = \"{database}.orders\""), &format!("name = {second:?}\n{extra}"))
            .replace("table = \"orders\"", &format!("table = {table:?}"))
            .replace(&format!("\"{database}.dead\""), &format!("\"{second}.dead\""));
        small.world.config += &format!("\n[[topics]]{section}");
        Self { small, second }
    }

    async fn produce(&self, ids: std::ops::Range<u32>) {
        self.small.produce(0, ids.clone()).await;
        self.small.produce_to(&self.second, 0, &self.small.events(ids)).await;
    }

    /// Rows of the second topic's table.
    async fn second_rows(&self) -> u64 {
        let sql = format!("SELECT count() FROM {}.second", self.small.world.database);
        self.small.world.client.query_raw(&sql).fetch_one::<u64>().await.unwrap()
    }

    async fn until_second_rows(&self, rows: u64, running: &Running) {
        let deadline = Instant::now() + SOON;
        while self.second_rows().await != rows {
            assert!(Instant::now() < deadline, "{} of {rows} rows\n{}", self.second_rows().await, running.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The first topic goes on, the second is stopped for `reason`, and that is told in every way.
    async fn second_is_stopped(&self, running: &Running, reason: &str) {
        let Self { small, second } = self;
        let first = &small.topic;
        running.until_logged("the topic is stopped; the others go on", SOON).await;
        for (series, value) in [
            (format!("millrace_topic_stopped{{topic={second:?},reason={reason:?}}}"), 1.0),
            (format!("millrace_topic_stopped{{topic={first:?},reason={reason:?}}}"), 0.0),
        ] {
            assert_eq!(running.metric(&series).await, Some(value), "{series}");
        }
        let readiness = running.get("/readyz").await;
        let told = format!("topic {second}: stopped ({reason}): ");
        // The first may have landed its rows and not have said yet that it is ready.
        assert!(readiness.lines().any(|line| line.starts_with(&told)), "{readiness}");
        assert_eq!(running.get("/healthz").await, "alive\n");
        let log = running.log();
        let said: Vec<&str> = log.lines().filter(|line| line.contains("\"ERROR\"")).collect();
        assert!(said.len() == 1 && said[0].contains(&**second), "{log}");
    }

    async fn clean_up(mut self) {
        for topic in [self.second.clone(), format!("{}.dead", self.second)] {
            self.small.at(&topic, async |small| small.delete_topic().await).await;
        }
        self.small.world.clean_up().await;
    }
}

#[tokio::test]
async fn a_topic_that_stops_gives_its_partitions_up_and_the_others_go_on() {
    let mut two = Two::new("second", "on_lost_position = \"stop\"").await;
    two.produce(0..20).await;
    let mut running = two.small.run();
    two.small.until_rows(20, SOON, &running).await;
    two.until_second_rows(20, &running).await;
    assert!(running.terminate().await.0.success());

    // Retention takes what the second topic has not read, and only of that topic.
    two.produce(20..60).await;
    let second = two.second.clone();
    two.small.at(&second, async |small| small.delete_records(45).await).await;
    let mut running = two.small.run();
    two.small.until_rows(60, SOON, &running).await;
    two.second_is_stopped(&running, "position_lost").await;
    let assigned = |topic: &str| format!("millrace_partitions_assigned{{topic={topic:?}}}");
    assert_eq!(running.metric(&assigned(&second)).await, Some(0.0));
    assert_eq!(running.metric(&assigned(&two.small.topic)).await, Some(1.0));

    // What comes now lands in the first topic, and stays where it is in the second.
    two.produce(60..100).await;
    two.small.until_rows(100, SOON, &running).await;
    assert!(running.terminate().await.0.success(), "{}", running.log());
    assert_eq!(two.second_rows().await, 20);
    assert_eq!(two.small.committed().unwrap().0, 100);
    let committed = two.small.at(&second, async |small| small.committed().unwrap().0).await;
    assert_eq!(committed, 20);

    // Somebody has decided.
    two.small.set("on_lost_position = \"stop\"", "on_lost_position = \"resume\"");
    let mut running = two.small.run();
    two.until_second_rows(20 + 55, &running).await;
    assert!(running.terminate().await.0.success());
    two.clean_up().await;
}

#[tokio::test]
async fn a_topic_that_cannot_start_keeps_no_other_from_starting() {
    let two = Two::new("nowhere", "").await;
    two.produce(0..20).await;
    let mut running = two.small.run();
    two.small.until_rows(20, SOON, &running).await;
    two.second_is_stopped(&running, "start").await;
    let log = running.log();
    assert!(log.contains("no table") && log.contains("nowhere"), "{log}");
    assert!(running.terminate().await.0.success(), "{}", running.log());
    two.clean_up().await;
}

#[tokio::test]
async fn the_process_ends_with_an_error_once_no_topic_is_left() {
    let mut two = Two::new("nowhere", "").await;
    two.small.set("table = \"orders\"", "table = \"elsewhere\"");
    let mut running = two.small.run();
    assert_eq!(running.ended(SOON).await.code(), Some(1));
    let log = running.log();
    let told = |topic: &str| log.lines().filter(|line| line.contains(topic) && line.contains("no table")).count();
    assert_eq!((told(&two.second), told(&two.small.topic)), (1, 1), "{log}");
    assert_eq!(log.lines().filter(|line| line.starts_with("error: topic ")).count(), 1, "{log}");
    two.clean_up().await;
}
