//! The table is lost and restored from a backup, and the region of the topic is lost and its mirror read instead, whose
//! offsets are others. What docs/operations.md tells to do is done, and every event is there once; what it warns of happens.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::small::{Running, Small};

const SOON: Duration = Duration::from_secs(60);
const OLDER_THAN_THE_WINDOW: &str = "ALTER TABLE {db}.orders UPDATE _ingested_at = _ingested_at - toIntervalDay(10) WHERE 1 SETTINGS mutations_sync = 1";

impl Small {
    /// In one session of ClickHouse, whose backups in memory live as long as it.
    async fn in_session(&self, statement: &str) {
        let statement = self.world.client.query_raw(&statement.replace("{db}", &self.world.database));
        let statement = statement.with_setting("session_id", self.world.database.clone());
        statement.with_setting("session_timeout", "600").execute().await.unwrap();
    }

    /// Both tables are lost, and come back as they were when they were backed up.
    async fn restore(&self) {
        for table in ["orders", "claims"] {
            self.world.sql(&format!("DROP TABLE {{db}}.{table} SYNC")).await;
            self.in_session(&format!("RESTORE TABLE {{db}}.{table} FROM Memory('{table}')")).await;
        }
    }

    /// Status and report of `millrace audit`.
    fn audit(&self) -> (i32, Value) {
        let ran = self.world.millrace("audit", &["--json"], &self.world.config);
        (ran.status, serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {}", ran.stderr)))
    }

    /// `millrace replay` of the whole topic.
    fn replay(&self) {
        let ran = self.world.millrace("replay", &["--topic", &self.topic, "--pause", "1ms"], &self.world.config);
        assert_eq!(ran.status, 0, "{}{}", ran.stdout, ran.stderr);
    }

    /// Waits until the group has committed everything that the topic has.
    async fn until_committed(&self, running: &Running) {
        let deadline = Instant::now() + SOON;
        let end = self.ends(&self.topic);
        while self.committed().is_none_or(|(offset, _)| offset < end) {
            assert!(Instant::now() < deadline, "{:?} of {end}\n{}", self.committed(), running.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// From here on, another topic is read by another group.
    fn turn_to(&mut self, topic: &str, group: &str) {
        let replace = |config: &str, from: &str, to: &str| {
            assert!(config.contains(from), "{from} in {config}");
            config.replace(from, to)
        };
        let config = replace(&self.world.config, &format!("name = {:?}", self.topic), &format!("name = {topic:?}"));
        self.world.config = replace(&config, &format!("group_id = {:?}", self.group), &format!("group_id = {group:?}"));
        (self.topic, self.group) = (topic.to_owned(), group.to_owned());
    }

    /// A second topic with `before` records that it alone has, and then those of the first.
    async fn mirror(&mut self, before: std::ops::Range<u32>, ids: std::ops::Range<u32>) -> String {
        let mirror = format!("{}.mirror", self.world.database);
        self.at(&mirror, async |small| {
            small.make_topic(1).await;
            small.produce(0, before).await;
            small.produce(0, ids).await;
        })
        .await;
        mirror
    }
}

/// How many of a kind an audit has found.
fn found(report: &Value, kind: &str) -> u64 {
    report["topics"][0]["findings"][kind]["count"].as_u64().unwrap()
}

async fn terminate(mut running: Running) {
    assert!(running.terminate().await.0.success(), "{}", running.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_restored_from_a_backup_that_the_group_is_ahead_of_gets_everything_back_once() {
    let small = Small::new().await;
    let running = small.run();
    small.produce(0, 0..300).await;
    small.until_rows(300, SOON, &running).await;
    small.in_session("BACKUP TABLE {db}.orders TO Memory('orders')").await;
    small.in_session("BACKUP TABLE {db}.claims TO Memory('claims')").await;
    small.produce(0, 300..500).await;
    small.until_rows(500, SOON, &running).await;
    terminate(running).await;
    assert_eq!(small.committed().unwrap().0, 500);

    // The table first. Read on from the offsets alone, and what landed after the backup would stay lost.
    small.restore().await;
    assert_eq!(small.rows().await, (300, 300));
    let (status, report) = tokio::task::block_in_place(|| small.audit());
    assert_eq!((status, found(&report, "lost")), (1, 200), "{report:#}");
    tokio::task::block_in_place(|| small.replay());
    assert_eq!(small.rows().await, (500, 500));
    let running = small.run();
    small.produce(0, 450..600).await;
    small.until_rows(600, SOON, &running).await;
    small.until_committed(&running).await;
    terminate(running).await;
    let (status, report) = tokio::task::block_in_place(|| small.audit());
    assert_eq!(status, 0, "{report:#}");

    // The offsets may be set back instead, to any place before the backup, or be lost with everything else.
    for lost in [false, true] {
        small.restore().await;
        if lost {
            small.delete_group().await;
        } else {
            small.commit(250, "");
        }
        let running = small.run();
        small.until_rows(600, SOON, &running).await;
        small.until_committed(&running).await;
        terminate(running).await;
        assert_eq!(small.rows().await, (600, 600), "offsets lost: {lost}");
    }
    small.world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_with_other_offsets_is_read_into_the_same_table_once_within_the_window() {
    let mut small = Small::new().await;
    let running = small.run();
    small.produce(0, 0..400).await;
    small.until_rows(400, SOON, &running).await;
    terminate(running).await;

    // The region is lost with 200 events in its topic that have not landed. The mirror repeats some, and so has other offsets.
    let mirror = small.mirror(0..150, 0..600).await;
    let group = format!("{}.elsewhere", small.world.database);
    small.turn_to(&mirror, &group);
    let mut running = small.run();
    small.until_rows(600, SOON, &running).await;
    small.produce(0, 500..650).await;
    running.child.kill().unwrap();
    running.child.wait().unwrap();
    let running = small.run();
    small.until_rows(650, SOON, &running).await;
    small.until_committed(&running).await;
    terminate(running).await;
    assert_eq!(small.rows().await, (650, 650));
    let (_, report) = tokio::task::block_in_place(|| small.audit());
    let of_rows = ["lost", "doubled", "beyond_window", "rows_unexplained"].map(|kind| found(&report, kind));
    // The mirror has other events at the offsets of rows that the lost topic left, but for those that it repeated first.
    assert_eq!(of_rows, [0, 0, 0, 250], "{report:#}");
    small.world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_reaches_back_beyond_the_window_needs_a_replay_or_a_longer_window_or_it_doubles() {
    let mut small = Small::new().await;
    let running = small.run();
    small.produce(0, 0..400).await;
    small.until_rows(400, SOON, &running).await;
    terminate(running).await;
    small.world.sql(OLDER_THAN_THE_WINDOW).await;
    // Its offsets begin beyond all that the table has: no row of the lost topic counts as one that will come again.
    let mirror = small.mirror(0..500, 0..600).await;
    small.at(&mirror, async |small| small.delete_records(500).await).await;

    // A replay asks the table itself, up to the offset that the new group begins at.
    let group = |name: &str| format!("{}.{name}", small.world.database);
    let (first, second, third) = (group("replayed"), group("longer"), group("careless"));
    small.turn_to(&mirror, &first);
    small.commit(small.ends(&mirror), "");
    tokio::task::block_in_place(|| small.replay());
    assert_eq!(small.rows().await, (600, 600));
    let running = small.run();
    small.produce(0, 550..650).await;
    small.until_rows(650, SOON, &running).await;
    small.until_committed(&running).await;
    terminate(running).await;
    assert_eq!(small.rows().await, (650, 650));

    // So does a window that reaches back as far as the mirror does.
    let window = "#window = \"24h\"";
    assert!(small.world.config.contains(window));
    let short = small.world.config.clone();
    small.world.config = short.replace(window, "window = \"30d\"");
    small.turn_to(&mirror, &second);
    let running = small.run();
    small.until_committed(&running).await;
    terminate(running).await;
    assert_eq!(small.rows().await, (650, 650));

    // With neither, what was ingested before the window lands again, and nobody says so: an audit looks at the rows of the
    // offsets that the mirror has, and the first rows of these events have none of those.
    (small.world.config, small.group) = (short, first);
    small.turn_to(&mirror, &third);
    let running = small.run();
    small.until_committed(&running).await;
    terminate(running).await;
    assert_eq!(small.rows().await, (1050, 650));
    let (status, report) = tokio::task::block_in_place(|| small.audit());
    assert_eq!(status, 0, "{report:#}");
    small.world.clean_up().await;
}
