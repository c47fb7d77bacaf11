//! What each stage of the pipeline costs, on the order events of the load generator: one chunk of 4,096 records of which
//! 5 % are duplicates, then a batch of 131,072 rows.
//!
//! `cargo bench -p millrace-bench --bench stages`

#![allow(clippy::unwrap_used, clippy::missing_docs_in_private_items, missing_docs, reason = "a benchmark")]

use std::{hint::black_box, time::Duration};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use millrace_bench::stages::{Apart, CHUNK, Stage, Stages};

fn stages(criterion: &mut Criterion) {
    let mut stages = Stages::new(131_072);
    let mut group = criterion.benchmark_group("stages");
    group.measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_secs(1)).sample_size(20);
    group.throughput(Throughput::Elements(CHUNK as u64));
    group.bench_function("decode", |bencher| bencher.iter(|| black_box(stages.decode())));
    group.bench_function("chunk", |bencher| bencher.iter(|| stages.process_next()));
    let prepared = stages.prepare();
    group.bench_function("publish", |bencher| bencher.iter(|| stages.counted_round(Stage::Publish, &prepared)));
    let mut apart = Apart::new(&mut stages);
    let found = apart.enrich();
    group.bench_function("enrich", |bencher| bencher.iter(|| black_box(apart.enrich())));
    group.bench_function("project", |bencher| bencher.iter(|| black_box(apart.project(&found))));
    let (rows, copies) = (apart.project(&found), 24);
    group.throughput(Throughput::Elements((copies * CHUNK) as u64));
    group.bench_function("batch", |bencher| bencher.iter(|| black_box(Apart::gather(&rows, copies))));
    let batch = stages.batch();
    group.throughput(Throughput::Elements(batch.num_rows() as u64));
    group.bench_function("encode", |bencher| {
        bencher.iter_batched(|| batch.clone(), |batch| Stages::encode(&batch), BatchSize::LargeInput);
    });
    group.finish();
}

criterion_group!(benches, stages);
criterion_main!(benches);
