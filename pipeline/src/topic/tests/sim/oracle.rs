//! What must hold: after every step, and at the end. It knows the table by what lands in it, and trusts nobody.

use super::{
    clickhouse::{Claim, Row},
    kafka::Kafka,
    producer::{EVENTS, What},
};

pub(super) struct Oracle {
    /// Events that a reader of committed transactions may see.
    pub(super) produced: [bool; EVENTS],
    /// Every row that ever landed.
    rows: Vec<Row>,
    per_event: [u32; EVENTS],
    /// Every claim that was ever written.
    claims: Vec<(i32, Claim)>,
    /// Up to where each partition's records are known to be safe; what is safe once stays so.
    safe_up_to: Vec<i64>,
    /// Customers from the start: their segment is in every row of theirs.
    known_customers: usize,
    /// Whether events of other customers are dead letters.
    strict: bool,
    /// What went wrong first.
    pub(super) wrong: Option<String>,
}

impl Oracle {
    pub(super) fn new(partitions: usize, known_customers: usize, strict: bool) -> Self {
        Self {
            produced: [false; EVENTS],
            rows: Vec::new(),
            per_event: [0; EVENTS],
            claims: Vec::new(),
            safe_up_to: vec![0; partitions],
            known_customers,
            strict,
            wrong: None,
        }
    }

    pub(super) fn claimed(&mut self, partition: i32, claim: Claim) {
        self.claims.push((partition, claim));
    }

    /// Whether a claim is the greatest of its partition, by a look at all of them.
    pub(super) fn stands(&self, partition: i32, claim: Claim) -> bool {
        self.claims.iter().filter(|(other, _)| *other == partition).all(|(_, other)| *other <= claim)
    }

    /// A row has landed; `claimed` says whether every claim of its insert stood when the fence was evaluated, `at_home`
    /// whether it is on the shard of its partition.
    pub(super) fn landed(&mut self, row: Row, claimed: bool, at_home: bool) {
        if !at_home {
            self.object(format!("a row on another shard than its partition's: {row:?}"));
        }
        if !claimed {
            self.object(format!("a row without a claim: {row:?}"));
        }
        self.per_event[row.event] += 1;
        if self.per_event[row.event] > 1 {
            let first = self.rows.iter().find(|other| other.event == row.event);
            self.object(format!("event {} is there twice: {first:?} and {row:?}", row.event));
        }
        let must_be_known = row.event % super::producer::CUSTOMERS < self.known_customers;
        if row.segment == Some(false) || row.segment.is_none() && must_be_known {
            self.object(format!("the customer of event {} is wrong: {row:?}", row.event));
        }
        self.rows.push(row);
    }

    /// The group has committed an offset.
    pub(super) fn committed(&mut self, partition: i32, next_offset: i64, kafka: &Kafka) {
        let safe_up_to = self.safe_up_to[partition as usize];
        let log = &kafka.logs[partition as usize];
        let behind = log.iter().filter(|(offset, _)| (safe_up_to..next_offset).contains(offset));
        for (offset, what) in behind {
            if !self.is_safe(partition, *offset, *what, kafka) {
                self.object(format!(
                    "{partition} is committed to {next_offset}, past {offset}, which is nowhere: {what:?}"
                ));
                return;
            }
        }
        self.safe_up_to[partition as usize] = safe_up_to.max(next_offset);
    }

    /// The oracle O, once everything is read.
    pub(super) fn at_the_end(&mut self, kafka: &Kafka) {
        for event in 0..EVENTS {
            let expected = u32::from(self.produced[event] && !self.is_dead_letter(event));
            if self.per_event[event] != expected {
                self.object(format!("event {event}: {} rows, not {expected}", self.per_event[event]));
            }
        }
        for (partition, log) in (0..).zip(&kafka.logs) {
            for (offset, what) in log {
                let is_dead = kafka.dead.contains(&(partition, *offset));
                let must_be = match what {
                    What::Event(event) => self.is_dead_letter(*event),
                    What::Poison(_) => true,
                };
                if is_dead != must_be {
                    self.object(format!("{what:?} at {offset} of {partition}: dead letter {is_dead}, not {must_be}"));
                }
            }
        }
    }

    pub(super) fn rows_of(&self, event: usize) -> u32 {
        self.per_event[event]
    }

    pub(super) fn object(&mut self, wrong: String) {
        self.wrong.get_or_insert(wrong);
    }

    fn is_dead_letter(&self, event: usize) -> bool {
        self.strict && event % super::producer::CUSTOMERS >= self.known_customers
    }

    fn is_safe(&self, partition: i32, offset: i64, what: What, kafka: &Kafka) -> bool {
        match what {
            What::Event(event) if !self.is_dead_letter(event) => self.per_event[event] > 0,
            What::Event(_) | What::Poison(_) => kafka.dead.contains(&(partition, offset)),
        }
    }
}
