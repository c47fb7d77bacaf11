//! The deduplication index, probed a chunk at a time: ids that are there, ids that are not, ids that are remembered.
//!
//! At 1 and 10 million ids, and at as many as `MILLRACE_BENCH_IDS` names, separated by commas.

#![allow(clippy::unwrap_used, reason = "a benchmark may end at an error")]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use millrace_bench::window::{BATCH, filled, id};

fn dedup(criterion: &mut Criterion) {
    let sizes = std::env::var("MILLRACE_BENCH_IDS").unwrap_or_else(|_| "1000000,10000000".to_owned());
    for ids in sizes.split(',').map(|ids| ids.parse::<usize>().unwrap()) {
        let mut index = filled(ids);
        let mut fresh = Vec::new();
        let mut group = criterion.benchmark_group(format!("dedup/{ids}"));
        group.throughput(Throughput::Elements(BATCH as u64));
        let mut next = 0;
        let mut batch = |from: usize, below: usize| -> Vec<u128> {
            next += BATCH;
            (next..next + BATCH).map(|n| id(from + (id(n) % below as u128) as usize)).collect()
        };
        group.bench_function("hit", |bencher| {
            bencher.iter_batched(
                || batch(0, ids),
                |ids| index.insert_batch(black_box(&ids), 0, |_| false, &mut fresh),
                BatchSize::LargeInput,
            );
        });
        group.bench_function("miss", |bencher| {
            bencher.iter_batched(
                || batch(10 * ids, 1 << 60),
                |ids| index.insert_batch(black_box(&ids), 0, |_| false, &mut fresh),
                BatchSize::LargeInput,
            );
        });
        group.finish();
    }
}

criterion_group!(benches, dedup);
criterion_main!(benches);
