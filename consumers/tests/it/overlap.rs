//! Producers and consumers of both versions at once: the new producers come first, the table is migrated while the old
//! consumer runs, the new one joins it in the same group, and the old one leaves. Nothing is lost or doubled, and what the
//! new consumer lands has what version 2 brought.

use std::{fs, ops::Range, time::Duration};

use millrace_schemas::{ORDER_EVENT_V1, ORDER_EVENT_V2};

use crate::{
    orders::{self, SOURCE},
    small::Small,
    world::register,
};

const SOON: Duration = Duration::from_secs(30);

struct Producers {
    first: u32,
    second: u32,
}

impl Producers {
    /// Even numbers in version 1, odd ones in version 2, and every other of these a step that version 1 does not know; one
    /// after the other into two partitions.
    async fn send(&self, small: &Small, numbers: Range<u32>) {
        let value = |number: u32| match number % 2 {
            0 => orders::first(self.first, number),
            _ => orders::second(self.second, number, number % 4 == 3),
        };
        for partition in 0..2 {
            let of_partition = numbers.clone().filter(|number| number / 4 % 2 == partition);
            let values: Vec<Vec<u8>> = of_partition.map(value).collect();
            small.produce_to(&small.topic, partition as i32, &values).await;
        }
    }
}

async fn landed(small: &Small, what: &str) -> u64 {
    let sql = format!("SELECT count() FROM {}.orders WHERE {what}", small.world.database);
    small.world.client.query_raw(&sql).fetch_one().await.unwrap()
}

fn is_returned(number: &u32) -> bool {
    number % 4 == 3
}

#[tokio::test(flavor = "multi_thread")]
async fn old_and_new_producers_and_consumers_overlap_while_the_table_is_migrated() {
    let mut small = Small::new().await;
    small.grow(&small.topic, 2).await;
    let subject = format!("{}-value", small.topic);
    let registry = small.world.stack.registry.clone();
    let schema = |name: &str, text: &str| {
        let file = small.world.directory.join(name);
        fs::write(&file, text).unwrap();
        format!("reader_schema = {file:?}")
    };
    let line = "#reader_schema = \"order_event.avsc\"";
    let old = small.whole_config.replace(line, &schema("v1.avsc", ORDER_EVENT_V1));
    let new = small.whole_config.replace(line, &schema("v2.avsc", ORDER_EVENT_V2)) + "source = \"source\"\n";
    let first = register(&registry, &subject, ORDER_EVENT_V1).await;
    small.world.config = old;
    let mut old_one = small.run();
    old_one.until_logged("partition is read", SOON).await;

    // Producers deploy before consumers.
    let producers = Producers { first, second: register(&registry, &subject, ORDER_EVENT_V2).await };
    producers.send(&small, 0..400).await;
    small.until_rows(400, SOON, &old_one).await;
    let unknown = (0..400).filter(is_returned).count() as u64;
    assert_eq!(landed(&small, "event_type = 'unknown'").await, unknown);

    // The table is migrated under the old consumer's hands.
    let plan = small.world.millrace("migrate", &["--plan"], &new);
    for statement in ["ADD COLUMN IF NOT EXISTS `source` Nullable(String) DEFAULT NULL", "'returned' = 8)"] {
        assert!(plan.stdout.contains(statement), "{statement} in {}{}", plan.stdout, plan.stderr);
    }
    assert_eq!(landed(&small, "1").await, 400, "a plan does nothing");
    let (applied, ()) = tokio::join!(
        async { tokio::task::block_in_place(|| small.world.millrace("migrate", &["--apply"], &new)) },
        producers.send(&small, 400..1200)
    );
    assert!(
        applied.status == 0 && applied.stdout.ends_with("Done: 2 of 2 steps.\n"),
        "{}{}",
        applied.stdout,
        applied.stderr
    );
    small.until_rows(1200, SOON, &old_one).await;
    assert_eq!(landed(&small, "source IS NULL").await, 1200, "the old consumer knows no source");

    // The new one joins, and both land what comes.
    let mut new_one = small.run_beside(&new);
    new_one.until_logged("partition is read", SOON).await;
    producers.send(&small, 1200..1600).await;
    small.until_rows(1600, SOON, &new_one).await;
    let filled = landed(&small, &format!("source = '{SOURCE}'")).await;
    assert!(filled > 0, "the new consumer has landed nothing yet\n{}", new_one.log());

    // The old one leaves while events come.
    tokio::join!(
        async { assert!(old_one.terminate().await.0.success(), "{}", old_one.log()) },
        producers.send(&small, 1600..2000)
    );
    small.until_rows(2000, SOON, &new_one).await;
    producers.send(&small, 2000..2400).await;
    small.until_rows(2400, SOON, &new_one).await;
    let of_the_new_one = "event_id >= toUUID('00000000-0000-0000-0000-0000000007d0')";
    assert_eq!(landed(&small, &format!("{of_the_new_one} AND source = '{SOURCE}'")).await, 200);
    assert_eq!(landed(&small, &format!("{of_the_new_one} AND event_type = 'returned'")).await, 100);
    assert_eq!(landed(&small, &format!("{of_the_new_one} AND event_type = 'paid'")).await, 300);
    // Whoever landed it, a new step is told or said to be unknown, and never another one.
    let returned = (0..2400).filter(is_returned).count() as u64;
    assert_eq!(landed(&small, "event_type IN ('unknown', 'returned')").await, returned);
    assert_eq!(landed(&small, "event_type = 'returned' AND source IS NULL").await, 0);
    assert!(new_one.terminate().await.0.success());
    for log in [old_one.log(), new_one.log()] {
        assert!(!log.contains("\"ERROR\""), "{log}");
    }
    assert_eq!(small.ends(&format!("{}.dead", small.world.database)), 0, "dead letters");
    small.world.clean_up().await;
}
