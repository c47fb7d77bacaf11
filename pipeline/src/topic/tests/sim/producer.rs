//! Producers: they send events and poison, begin again and send twice, abort transactions; Kafka compacts behind them.

use std::sync::OnceLock;

use millrace_schemas::golden;

use super::{super::world::order, faults::Fault, run::World};

/// Events there are; event `n` has id `n`, belongs to partition `n % partitions` and to customer `n % CUSTOMERS`.
pub(super) const EVENTS: usize = 48;
pub(super) const CUSTOMERS: usize = 4;
/// Months of the table that events lie in.
const MONTHS: usize = 3;
/// Records after which nothing is sent twice any more, so that a run ends.
const ENOUGH: usize = 160;

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Event(usize),
    Poison(usize),
}

impl What {
    pub(super) fn value(self) -> &'static [u8] {
        match self {
            Self::Event(event) => &values()[event],
            Self::Poison(at) => &poison()[at].bytes,
        }
    }
}

/// The month of the table that an event lies in.
pub(super) fn month(event: usize) -> usize {
    (event.wrapping_mul(0x9e37_79b1) >> 12) % MONTHS
}

/// Everything that was ever sent, in order, by whatever session of whatever producer.
#[derive(Default)]
pub(super) struct Producer {
    sent: Vec<usize>,
    next_event: usize,
    doubled: bool,
}

impl Producer {
    /// Sends something; `faults` says whether anything may go wrong with it.
    pub(super) fn step(&mut self, world: &mut World) {
        match world.random.below(12) {
            0 if self.may_repeat() => {
                world.happened(Fault::SentAgain, || "a producer restarts and sends 30 % again".into());
                let from = self.sent.len() - self.sent.len() * 3 / 10;
                self.repeat(from, world);
            }
            1 if self.may_repeat() && !self.doubled && world.random.one_in(3) => {
                world.happened(Fault::SentAgain, || "the whole topic is produced twice".into());
                self.doubled = true;
                self.repeat(0, world);
            }
            2 => {
                let partition = world.random.below(world.kafka.ends.len());
                let skipped = world.random.between(1, 4) as i64;
                world.happened(Fault::Gaps, || format!("{skipped} records of an aborted transaction in {partition}"));
                // The marker of the abort has an offset too.
                world.kafka.ends[partition] += skipped + 1;
            }
            3 => Self::compact(world),
            4 | 5 if self.may_repeat() => {
                let late = self.sent[world.random.below(self.sent.len())];
                self.append(late, world);
            }
            6 => {
                let at = world.random.below(poison().len());
                let partition = world.random.below(world.kafka.ends.len());
                world.kafka.append(partition, What::Poison(at));
                world.say(|| format!("poison in {partition}: {}", poison()[at].reason));
            }
            _ => {
                for _ in 0..world.random.between(1, 6) {
                    self.next(world);
                }
            }
        }
    }

    /// Sends the next event that was never sent.
    pub(super) fn next(&mut self, world: &mut World) {
        if self.next_event < EVENTS {
            self.next_event += 1;
            self.append(self.next_event - 1, world);
        }
    }

    pub(super) fn repeat(&mut self, from: usize, world: &mut World) {
        let again = self.sent[from..].to_vec();
        again.into_iter().for_each(|event| self.append(event, world));
    }

    fn append(&mut self, event: usize, world: &mut World) {
        let partition = event % world.kafka.ends.len();
        let offset = world.kafka.append(partition, What::Event(event));
        world.oracle.produced[event] = true;
        world.say(|| format!("event {event} is sent to {partition} at {offset}"));
        self.sent.push(event);
    }

    /// Kafka drops a record that has come again later.
    fn compact(world: &mut World) {
        let partition = world.random.below(world.kafka.ends.len());
        let log = &mut world.kafka.logs[partition];
        let superseded = log.iter().enumerate().find(|(at, (_, what))| {
            matches!(what, What::Event(_)) && log[at + 1..].iter().any(|(_, later)| later == what)
        });
        if let Some(at) = superseded.map(|(at, _)| at) {
            let (offset, _) = log.remove(at);
            world.happened(Fault::Gaps, || format!("offset {offset} of {partition} is compacted away"));
        }
    }

    fn may_repeat(&self) -> bool {
        !self.sent.is_empty() && self.sent.len() < ENOUGH
    }
}

/// Values of the events by number, made once.
fn values() -> &'static [Vec<u8>] {
    static VALUES: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    VALUES.get_or_init(|| (0..EVENTS).map(|n| order(n as u128, &customer_of(n), &["s"])).collect())
}

pub(super) fn customer_of(event: usize) -> String {
    format!("customer-{}", event % CUSTOMERS)
}

fn poison() -> &'static [golden::Bad] {
    static POISON: OnceLock<Vec<golden::Bad>> = OnceLock::new();
    POISON.get_or_init(golden::bad)
}
