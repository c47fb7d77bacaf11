//! A topic that is written in transactions, some of them aborted, and compacted: offsets with gaps of every kind.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use millrace_chaos::stack::until;
use millrace_chaos::staged::{Copier, Staged};
use millrace_chaos::world::Load;
use rdkafka::Message;
use rdkafka::message::OwnedMessage;

use super::Case;
use crate::trial::Trial;

const LOAD: Load = Load { events: 100_000, rate: 0, duplicates: 0.05, poison: 0.005 };
/// Records of a transaction.
const TRANSACTION: usize = 1000;
/// Records a second while `millrace` reads.
const RATE: usize = 10_000;
/// Records that are in the topic, twice, before it is compacted.
const COMPACTED: usize = 30_000;
/// Records at the end that are in no transaction: behind a transaction's marker the end of a partition is no record's.
const PLAIN: usize = 400;
/// The broker looks every 15 s for what is to be compacted.
const COMPACTION: Duration = Duration::from_secs(60);

pub(super) fn cases() -> Vec<Case> {
    vec![Case {
        number: 15,
        name: "aborted-and-compacted",
        what: "two transactional producers, half of whose transactions are aborted, into a topic that is compacted; SIGKILL",
        rests_on: &[],
        run: aborted_and_compacted,
    }]
}

/// Writes events of the load in transactions, and strange ones in others that are aborted.
struct Writer {
    right: Copier,
    strange: Copier,
    plain: Copier,
    /// Whether a transaction of strange events is open.
    open: bool,
    aborted: u64,
    aborted_records: u64,
}

fn aborted_and_compacted(trial: &mut Trial) {
    let (world, config) = (&trial.world, trial.world.config());
    let topic = world.topic();
    let staged = Staged::new(world, LOAD, 4);
    // Segments of 1 MiB, the least there is; the last one is never compacted.
    let compacted =
        [("cleanup.policy", "compact,delete"), ("segment.bytes", "1048576"), ("min.cleanable.dirty.ratio", "0.01")];
    world.kafka.configure(&topic, &compacted);
    let mut records: Vec<&OwnedMessage> = staged.records.values().flatten().collect();
    // Each partition's share by share, so that all of them end with plain records.
    let share = |record: &OwnedMessage| record.offset() * 1_000_000 / staged.records[&record.partition()].len() as i64;
    records.sort_by_key(|record| (share(record), record.partition()));
    let (before, rest) = records.split_at(COMPACTED);
    let (under_load, last) = rest.split_at(rest.len() - PLAIN);
    let mut writer = Writer {
        right: Copier::transactional(world, "right"),
        strange: Copier::transactional(world, "strange"),
        plain: Copier::plain(world),
        open: false,
        aborted: 0,
        aborted_records: 0,
    };

    for transaction in before.chunks(TRANSACTION) {
        writer.commit(&staged, transaction);
        writer.strange(trial, transaction);
        writer.give_up();
        // The same events once more, under the same keys: compaction leaves only these.
        let events: Vec<&OwnedMessage> =
            transaction.iter().copied().filter(|record| !staged.is_poison(record)).collect();
        writer.commit(&staged, &events);
    }
    let offsets: i64 = trial.world.kafka.ends(&topic).values().sum();
    // What a reader of committed records gets of each partition, and would get if nothing were compacted.
    let readable =
        || trial.world.kafka.records(&topic).into_iter().map(|(partition, records)| (partition, records.len()));
    let mut written: BTreeMap<i32, usize> = BTreeMap::new();
    for record in before {
        *written.entry(record.partition()).or_default() += if staged.is_poison(record) { 1 } else { 2 };
    }
    let (mut left, begun) = (BTreeMap::new(), Instant::now());
    until("each partition is compacted", COMPACTION, || {
        std::thread::sleep(Duration::from_millis(500));
        left = readable().collect();
        left.iter().all(|(partition, left)| left * 10 < written[partition] * 9)
    });
    let (before, after) = (written.values().sum::<usize>(), left.values().sum::<usize>());
    trial.note(format!(
        "of {offsets} offsets {before} had a record for a reader of committed ones, and {after} when reading began, {:.0} s after \
         they were written",
        begun.elapsed().as_secs_f64()
    ));

    let mut first = Some(trial.start(&config));
    let begun = Instant::now();
    for (at, transaction) in under_load.chunks(TRANSACTION).enumerate() {
        if trial.random.below(2) == 0 {
            writer.strange(trial, transaction);
        }
        if trial.random.below(4) == 0 {
            writer.abort(transaction);
        }
        writer.commit(&staged, transaction);
        // One of strange events may stay open over several others, which nobody may read past.
        if trial.random.below(3) == 0 {
            writer.give_up();
        }
        let due = Duration::from_secs_f64((at * TRANSACTION) as f64 / RATE as f64);
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
        if let Some(mut process) = first.take_if(|process| process.rows() > 20_000) {
            process.kill();
            trial.killed(1);
            let next = trial.start(&config);
            trial.keep(next);
        }
    }
    trial.expect(first.is_none(), "nothing was killed under load");
    writer.give_up();
    trial.world.kafka.until_no_transaction_is_open(&topic);
    last.iter().for_each(|record| writer.plain.copy(record, record.partition()));
    writer.plain.flush();
    staged.moved(&trial.world, &[&writer.right, &writer.plain]);
    trial.injected(writer.aborted);
    trial.note(format!("{} transactions with {} records were aborted", writer.aborted, writer.aborted_records));
    trial.expect(writer.aborted > 20, "hardly a transaction was aborted");
    trial.sent(staged.generator);
}

impl Writer {
    /// Events in a transaction that is committed, each under a key of its own, so that compaction takes no event away.
    fn commit(&self, staged: &Staged, records: &[&OwnedMessage]) {
        self.right.begin();
        for record in records {
            if staged.is_poison(record) {
                self.right.copy(record, record.partition());
            } else {
                self.right.send(key(record).as_bytes(), record.payload().unwrap(), record.partition(), None);
            }
        }
        self.right.end(true);
    }

    /// The same in one that is aborted: they come again.
    fn abort(&mut self, records: &[&OwnedMessage]) {
        self.right.begin();
        for record in records {
            self.right.send(key(record).as_bytes(), record.payload().unwrap(), record.partition(), None);
        }
        self.right.end(false);
        self.aborted += 1;
        self.aborted_records += records.len() as u64;
    }

    /// Events and unreadable records that nobody may ever see, in a transaction that stays open.
    fn strange(&mut self, trial: &mut Trial, like: &[&OwnedMessage]) {
        if !self.open {
            self.strange.begin();
            (self.open, self.aborted) = (true, self.aborted + 1);
        }
        for record in like.iter().step_by(3) {
            let value = record.payload().unwrap();
            let (high, low) = (trial.random.below(u64::MAX), trial.random.below(u64::MAX));
            let id = format!(
                "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
                high >> 32,
                high & 0xffff,
                high >> 16 & 0xfff,
                low >> 48 & 0xfff,
                low & 0xffff_ffff_ffff
            );
            // Magic byte, schema id, length, 36 characters of the event id: a value that is none stays as it is.
            let value = match value.get(42..) {
                Some(rest) if value[..6] == [0, value[1], value[2], value[3], value[4], 72] => {
                    [&value[..6], id.as_bytes(), rest].concat()
                }
                _ => value.to_vec(),
            };
            self.strange.send(id.as_bytes(), &value, record.partition(), None);
            self.aborted_records += 1;
        }
        self.strange.flush();
    }

    /// Aborts it.
    fn give_up(&mut self) {
        if std::mem::take(&mut self.open) {
            self.strange.end(false);
        }
    }
}

fn key(record: &OwnedMessage) -> String {
    format!("{}-{}", record.partition(), record.offset())
}
