//! Generator and verifier against a real stack. The test takes the consumer's part: it inserts rows and writes dead
//! letters, right ones first and then damaged ones. Run by `cargo xtask test`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod plain_consumer;
mod replay;
mod scenarios;
mod stand_in;

use std::path::Path;
use std::sync::Arc;

use millrace_bench::generate::{Load, Progress, Versions, generate};
use millrace_bench::manifest::Manifest;
use millrace_bench::orders::Timeline;
use millrace_bench::setup::reference;
use millrace_bench::stack::{Stack, Topics};
use millrace_bench::verify::verify;
use millrace_producers::Compression;

use stand_in::StandIn;

fn stack() -> Stack {
    let file = std::env::var("MILLRACE_STACK").expect(
        "these tests need a running stack: `cargo xtask stack up`, then set MILLRACE_STACK to its stack.json \
         (`cargo xtask test` does both)",
    );
    Stack::read(Path::new(&file)).unwrap()
}

fn load(seed: u64) -> Load {
    Load {
        seed,
        first: 0,
        events: 20_000,
        timeline: Timeline { start_ms: 1_767_225_600_000, spacing_us: 1_000_000 },
        duplicates: 0.1,
        poison: 0.02,
        rate: 0,
        compression: Compression::Lz4,
        schemas: Versions::First,
        traceparent: true,
        traced: 0.0,
    }
}

#[tokio::test]
async fn a_run_that_arrived_passes_and_every_kind_of_damage_is_found() {
    let stack = stack();
    let prefix = format!("it-bench-{}-", uuid::Uuid::new_v4().simple());
    let topics = Topics::new(&prefix);
    reference(&stack, &topics, 5, 3, |_| ()).await.unwrap();
    reference(&stack, &topics, 5, 3, |_| ()).await.expect("a second time does no harm");

    let load = load(5);
    let progress = Arc::new(Progress::default());
    let manifest = generate(&stack, &topics, &load, Arc::clone(&progress)).await.unwrap();
    let sent = manifest.events + manifest.duplicates + manifest.poison.len() as u64;
    assert_eq!(manifest.delivered, sent);
    assert_eq!(manifest.restarts, 4);
    assert!((1_800..2_200).contains(&manifest.duplicates), "{}", manifest.duplicates);
    assert!((300..500).contains(&manifest.poison.len()), "{}", manifest.poison.len());
    let written: i64 = manifest.end_offsets.values().zip(manifest.begin_offsets.values()).map(|(e, b)| e - b).sum();
    assert_eq!(written as u64, sent);

    let file = std::env::temp_dir().join(format!("{prefix}manifest.json"));
    manifest.write(&file).unwrap();
    assert!(Manifest::read(&file).unwrap() == manifest, "the manifest survives its file");
    std::fs::remove_file(&file).unwrap();

    let stand_in = StandIn::new(&stack, &prefix, &manifest).await;
    stand_in.insert_rows(0..manifest.events).await;
    for poison in &manifest.poison {
        stand_in.write_dead_letter(poison, poison.reason.as_deref().unwrap_or("truncated")).await;
    }
    let verdict = verify(&stack, &manifest, &stand_in.table).await.unwrap();
    assert!(verdict.is_right(), "{verdict:?}");
    assert_eq!((verdict.rows, verdict.dead_letters), (manifest.events, manifest.poison.len() as u64));
    assert_eq!((verdict.produced, verdict.duplicates_dropped), (sent, manifest.duplicates));

    // Two rows again, one of them damaged; one dead letter again; one event fewer than there should be.
    stand_in.insert_rows(7..8).await;
    stand_in.insert_damaged_row(8).await;
    stand_in.write_dead_letter(&manifest.poison[0], "truncated").await;
    let one_more = Manifest { events: manifest.events + 1, ..manifest.clone() };
    let verdict = verify(&stack, &one_more, &stand_in.table).await.unwrap();
    assert!(!verdict.is_right());
    assert_eq!((verdict.lost, verdict.doubled, verdict.wrong), (1, 2, 1), "{verdict:?}");
    assert_eq!(verdict.dead_letters_unexpected, 1, "{verdict:?}");
    stand_in.drop_table().await;
}
