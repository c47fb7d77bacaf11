//! One batch on its way, as `consumers/src/clickhouse/insert.rs` and `Crew::land` carry it: rows under one token until
//! the outcome is known or cannot be, then the dead letters, then a word to the worker.

use std::rc::Rc;

use super::{
    clickhouse::{Answer, Owner, Query, Row, Stage},
    consumer::Told,
    faults::Fault,
    producer::month,
    run::World,
};
use crate::{batch::Progress, dedup::Millis};

/// `insert_timeout`.
const TIMEOUT_MS: Millis = 60_000;
/// `SETTLE_WITHIN`.
const SETTLE_WITHIN_MS: Millis = 60_000;
/// Longest backoff and longest rest of the breaker together.
const LONGEST_REST_MS: Millis = 15_000;

pub(super) struct Insert {
    pub(super) shard: usize,
    seq: u64,
    token: u64,
    progress: Vec<Progress>,
    rows: Rc<[Row]>,
    letters: Vec<(i32, i64)>,
    first_sent: Option<(Millis, u64)>,
    unsure_since: Option<Millis>,
    state: State,
    /// Whether its process slept while the group went on without it.
    pub(super) slept: bool,
}

enum State {
    Resting { until: Millis },
    Waiting { query: u64, until: Millis },
    WritingLetters,
}

impl Insert {
    pub(super) fn new(
        shard: usize,
        seq: u64,
        token: u64,
        progress: Vec<Progress>,
        rows: Vec<Row>,
        letters: Vec<(i32, i64)>,
    ) -> Self {
        // No rows, no insert, and no fence.
        let state = if rows.is_empty() { State::WritingLetters } else { State::Resting { until: 0 } };
        let rows = Rc::from(rows);
        Self { shard, seq, token, progress, rows, letters, first_sent: None, unsure_since: None, state, slept: false }
    }

    /// The request whose answer is waited for.
    pub(super) fn waits_for(&self) -> Option<u64> {
        if let State::Waiting { query, .. } = self.state { Some(query) } else { None }
    }

    /// The next step, if there is one; the word to the worker ends it.
    pub(super) fn step(&mut self, owner: Owner, life: u64, world: &mut World) -> Option<Told> {
        let (shard, seq) = (self.shard, self.seq);
        match self.state {
            State::Resting { until } => {
                if world.now >= until {
                    self.send(owner, life, world)
                } else {
                    None
                }
            }
            State::Waiting { query, until } => match world.servers[shard].answers.remove(&query) {
                Some(Answer::Done) => {
                    world.servers[shard].acknowledged.push(self.token);
                    self.state = State::WritingLetters;
                    None
                }
                Some(Answer::Refused) => {
                    if self.slept {
                        world.happened(Fault::ZombieRefused, || format!("{owner:x} was a zombie: insert {query}"));
                    }
                    Some(Told::Unsettled { shard, seq, refused: true })
                }
                Some(Answer::Failed) => self.failed(true, world),
                None if world.now >= until => self.failed(true, world),
                None => None,
            },
            State::WritingLetters => {
                if let Some(letter) = self.letters.last() {
                    if world.kafka.up && !world.letters_fail {
                        world.kafka.dead.insert(*letter);
                        // An acknowledgement that is lost: it is written again.
                        if !(world.faulty && world.random.one_in(10)) {
                            self.letters.pop();
                        }
                    }
                    return None;
                }
                Some(Told::Durable { shard, seq })
            }
        }
    }

    fn send(&mut self, owner: Owner, life: u64, world: &mut World) -> Option<Told> {
        if !world.servers[self.shard].up {
            // Nothing was sent over a connection that never was.
            return self.failed(false, world);
        }
        let (first_sent, life) = *self.first_sent.get_or_insert((world.now, life));
        let mut months: Vec<usize> = self.rows.iter().map(|row| month(row.event)).collect();
        months.sort_unstable();
        months.dedup();
        let whole = !world.random.one_in(3);
        let query = world.servers[self.shard].send(Query {
            id: 0,
            token: self.token,
            owner,
            progress: self.progress.clone(),
            rows: Rc::clone(&self.rows),
            first_sent,
            life,
            stage: Stage::Travelling,
            since: world.now,
            whole,
            killed: false,
            slow_until: 0,
            claimed: false,
            months,
            begun: false,
        });
        world.say(|| format!("{owner:x} sends batch {} as insert {query} under token {}", self.seq, self.token));
        self.state = State::Waiting { query, until: world.now + TIMEOUT_MS };
        None
    }

    fn failed(&mut self, unsure: bool, world: &mut World) -> Option<Told> {
        if unsure {
            self.unsure_since.get_or_insert(world.now);
        }
        if self.unsure_since.is_some_and(|since| world.now - since > SETTLE_WITHIN_MS) {
            return Some(Told::Unsettled { shard: self.shard, seq: self.seq, refused: false });
        }
        self.state = State::Resting { until: world.now + world.random.between(50, LONGEST_REST_MS) };
        None
    }
}
