//! What the deduplication index costs: memory, probes, pauses, loading; in one thread and without Kafka or ClickHouse.

use std::hint::black_box;
use std::time::Duration;

use millrace_pipeline::dedup::{Millis, PartitionIndex};
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use crate::random::mix;

const WINDOW_MS: Millis = 24 * 3600 * 1000;
/// Ids of one call: the records of one chunk.
pub const BATCH: usize = 4096;
/// Calls whose median is told.
const ROUNDS: usize = 512;
/// The index lets go of ids in so many steps.
const STEPS: usize = 16;
const SMALLEST_GENERATION: usize = 1 << 16;

/// Times are processor time of the calling thread, the kernel's for it included.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Window {
    /// Ids in the index.
    pub ids: usize,
    /// Bytes that the index allocated.
    pub bytes_per_id: f64,
    /// The same at its worst while it grew, from a tenth of the ids on.
    pub bytes_per_id_growing: f64,
    /// Growth of the resident memory of the process.
    pub resident_bytes_per_id: f64,
    /// Asking for ids that are there; the median of many batches.
    pub probe_hit_ns: f64,
    /// Asking for ids that are not there; the median of many batches.
    pub probe_miss_ns: f64,
    /// Asking for ids that are not there and remembering them, while the index grows to its size: the mean.
    pub insert_ns: f64,
    /// The same while as many are forgotten as come.
    pub turnover_ns: f64,
    /// The longest call, of a batch of 4096 ids or of housekeeping, while the index grows, turns over, and runs empty.
    pub longest_pause_ms: f64,
    /// Reading ids back, of all ages in any order.
    pub load_ids_per_s: f64,
}

/// The `n`th id: any 128 bits.
pub fn id(n: usize) -> u128 {
    let n = n as u64;
    u128::from(mix(n)) << 64 | u128::from(mix(n ^ 1 << 63))
}

/// An index as the pipeline makes it when so many ids fill it, growing one call at a time.
pub fn filled(ids: usize) -> PartitionIndex {
    let mut index = empty(ids);
    let mut fresh = Vec::new();
    for from in (0..ids).step_by(BATCH) {
        insert(&mut index, from..(from + BATCH).min(ids), ids, &mut fresh);
    }
    index
}

/// Measures an index of so many ids. Takes about 2 minutes for 100 million.
pub fn measure(ids: usize) -> Window {
    let mut fresh = Vec::new();
    let mut longest = Duration::ZERO;
    let resident_before = resident_bytes();
    let mut index = empty(ids);
    let (mut inserting, mut bytes_per_id_growing) = (Duration::ZERO, 0.0f64);
    for from in (0..ids).step_by(BATCH) {
        let took = insert(&mut index, from..(from + BATCH).min(ids), ids, &mut fresh);
        longest = longest.max(took);
        inserting += took;
        if from > ids / 10 {
            bytes_per_id_growing = bytes_per_id_growing.max(index.allocated_bytes() as f64 / index.len() as f64);
        }
    }
    let held = index.len() as f64;
    let bytes_per_id = index.allocated_bytes() as f64 / held;
    let resident_bytes_per_id = (resident_bytes() - resident_before) / held;
    let probe_hit_ns = probe(&mut index, &mut fresh, |n| mix(n as u64) as usize % ids);
    let probe_miss_ns = probe(&mut index, &mut fresh, |n| 10 * ids + n);

    let (mut turning, turned) = (Duration::ZERO, ids / 2);
    for from in (ids..ids + turned).step_by(BATCH) {
        let began = cpu();
        index.expire(now(from, ids));
        longest = longest.max(cpu() - began);
        let took = insert(&mut index, from..from + BATCH, ids, &mut fresh);
        longest = longest.max(took);
        turning += cpu() - began;
    }
    while index.allocated_bytes() > 1 << 20 {
        let began = cpu();
        index.expire(Millis::MAX / 2);
        longest = longest.max(cpu() - began);
    }
    drop(index);

    Window {
        ids,
        bytes_per_id,
        bytes_per_id_growing,
        resident_bytes_per_id,
        probe_hit_ns,
        probe_miss_ns,
        insert_ns: inserting.as_nanos() as f64 / ids as f64,
        turnover_ns: turning.as_nanos() as f64 / turned as f64,
        longest_pause_ms: longest.as_secs_f64() * 1e3,
        load_ids_per_s: load(ids),
    }
}

fn empty(ids: usize) -> PartitionIndex {
    PartitionIndex::new(Duration::from_millis(WINDOW_MS), (ids / STEPS).max(SMALLEST_GENERATION))
}

/// The window is as long as it takes to bring the ids that fill it.
fn now(n: usize, ids: usize) -> Millis {
    (n as u128 * u128::from(WINDOW_MS) / ids as u128) as Millis
}

fn insert(index: &mut PartitionIndex, ns: std::ops::Range<usize>, ids: usize, fresh: &mut Vec<bool>) -> Duration {
    let now = now(ns.start, ids);
    let batch: Vec<u128> = ns.map(id).collect();
    let began = cpu();
    index.insert_batch(&batch, now, |_| true, fresh);
    cpu() - began
}

fn probe(index: &mut PartitionIndex, fresh: &mut Vec<bool>, number: impl Fn(usize) -> usize) -> f64 {
    let mut took: Vec<Duration> = Vec::with_capacity(ROUNDS);
    for round in 0..ROUNDS {
        let batch: Vec<u128> = (round * BATCH..(round + 1) * BATCH).map(|n| id(number(n))).collect();
        let began = cpu();
        index.insert_batch(black_box(&batch), 0, |_| false, fresh);
        took.push(cpu() - began);
        black_box(&fresh);
    }
    took.sort_unstable();
    took[ROUNDS / 2].as_nanos() as f64 / BATCH as f64
}

fn load(ids: usize) -> f64 {
    let mut index = empty(ids);
    index.reserve(ids);
    let mut took = Duration::ZERO;
    for from in (0..ids).step_by(BATCH) {
        let batch: Vec<(u128, Millis)> =
            (from..(from + BATCH).min(ids)).map(|n| (id(n), mix(!n as u64) % WINDOW_MS)).collect();
        let began = cpu();
        index.load(&batch, WINDOW_MS);
        took += cpu() - began;
    }
    black_box(index.len()) as f64 / took.as_secs_f64()
}

/// Processor time that this thread has used.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Resident memory of this process; 0 where the system does not tell.
fn resident_bytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kib.unwrap_or(0.0) * 1024.0
}
