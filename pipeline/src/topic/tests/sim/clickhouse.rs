//! One shard of ClickHouse, a server: claims, requests on their way to becoming inserts, the months of the table that each commits on its own,
//! and the memory of tokens.

use std::{collections::BTreeMap, rc::Rc};

use super::{faults::Fault, producer::month, run::World};
use crate::{batch::Progress, dedup::Millis, shard::shard_of};

/// A process that writes; none ever had the same.
pub(super) type Owner = u64;
/// Epoch and owner: the greatest of a partition holds it.
pub(super) type Claim = (u64, Owner);

/// How long the server waits for the rest of a body.
pub(super) const RECEIVE_TIMEOUT_MS: Millis = 30_000;
/// Longest that an insert runs, and longest that a request is under way to the server.
const LONGEST_RUN_MS: Millis = 60_000;
/// For how long after its first sending an insert with a lease may start.
const LEASED_FOR_MS: Millis = 120_000;
/// How long a token is remembered at least, however many others come: what a window of N tokens is worth at the rate of
/// inserts that it was made for. The longest that an insert is sent again, with sleeps of the sender in between.
const LONG_MEMORY_MS: Millis = 15 * 60_000;
/// A memory that only inserts with a lease can live with.
const SHORT_MEMORY_MS: Millis = LEASED_FOR_MS + LONGEST_RUN_MS;

/// A row as it is sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) event: usize,
    pub(super) partition: i32,
    pub(super) offset: i64,
    /// Whether the enriched column is right; `None` when it is null.
    pub(super) segment: Option<bool>,
}

/// A request to insert a batch.
pub(super) struct Query {
    pub(super) id: u64,
    pub(super) token: u64,
    pub(super) owner: Owner,
    pub(super) progress: Vec<Progress>,
    pub(super) rows: Rc<[Row]>,
    pub(super) first_sent: Millis,
    /// Which life of the server the sender knows.
    pub(super) life: u64,
    pub(super) stage: Stage,
    /// Since when it is in this stage.
    pub(super) since: Millis,
    /// Whether the server has all of its body.
    pub(super) whole: bool,
    pub(super) killed: bool,
    /// Until when it only runs: a slow disk, a merge in its way.
    pub(super) slow_until: Millis,
    /// Whether all of its claims stood when its fence was evaluated.
    pub(super) claimed: bool,
    /// Months that have not landed, and whether any has.
    pub(super) months: Vec<usize>,
    pub(super) begun: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Not in `system.processes` yet: nobody sees it.
    Travelling,
    /// It runs, and has not looked at the claims.
    Registered,
    /// The fence has let it in.
    LetIn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Done,
    Refused,
    /// An error, or the connection broke: anything may have landed.
    Failed,
}

struct Token {
    token: u64,
    month: usize,
    written_at: Millis,
}

pub(super) struct Server {
    pub(super) up: bool,
    /// Counts its starts.
    pub(super) life: u64,
    /// How far its wall clock is off.
    pub(super) skew_ms: i64,
    claims: Vec<Vec<Claim>>,
    /// Claims whose sender has given up, and which are written all the same.
    pub(super) late_claims: Vec<(Owner, Vec<(i32, u64)>)>,
    pub(super) queries: Vec<Query>,
    pub(super) answers: BTreeMap<u64, Answer>,
    /// The table, with the wall clock's time of each row.
    pub(super) table: Vec<(Row, i64)>,
    tokens: Vec<Token>,
    /// Inserts that their sender knows the outcome of.
    pub(super) acknowledged: Vec<u64>,
    next_query: u64,
}

impl Server {
    pub(super) fn new(partitions: usize) -> Self {
        Self {
            up: true,
            life: 0,
            skew_ms: 0,
            claims: vec![Vec::new(); partitions],
            late_claims: Vec::new(),
            queries: Vec::new(),
            answers: BTreeMap::new(),
            table: Vec::new(),
            tokens: Vec::new(),
            acknowledged: Vec::new(),
            next_query: 0,
        }
    }

    /// The server's wall clock.
    pub(super) fn wall(&self, now: Millis) -> i64 {
        (1 << 40) + now as i64 + self.skew_ms
    }

    /// The epoch after the greatest there is: the reading half of a claim.
    pub(super) fn next_epoch(&self, partition: i32) -> u64 {
        self.claims[partition as usize].iter().map(|(epoch, _)| *epoch).max().unwrap_or(0) + 1
    }

    pub(super) fn holder(&self, partition: i32) -> Option<Claim> {
        self.claims[partition as usize].iter().copied().max()
    }

    pub(super) fn send(&mut self, query: Query) -> u64 {
        self.next_query += 1;
        self.queries.push(Query { id: self.next_query, ..query });
        self.next_query
    }

    /// Running inserts that hold one of the partitions.
    pub(super) fn running(&mut self, partitions: &[i32]) -> impl Iterator<Item = &mut Query> {
        self.queries.iter_mut().filter(|query| {
            query.stage != Stage::Travelling && query.progress.iter().any(|one| partitions.contains(&one.partition))
        })
    }
}

impl World {
    /// The writing half of a claim.
    pub(super) fn write_claims(&mut self, shard: usize, owner: Owner, claims: &[(i32, u64)]) {
        self.say(|| format!("claims {claims:?} of {owner:x} are written"));
        for (partition, epoch) in claims {
            self.servers[shard].claims[*partition as usize].push((*epoch, owner));
            self.oracle.claimed(*partition, (*epoch, owner));
        }
    }

    /// The next thing that happens to a request. `sender` says whether the process that sent it waits for its answer,
    /// awake.
    pub(super) fn advance(&mut self, shard: usize, at: usize, sender: bool) {
        let (now, faulty) = (self.now, self.faulty);
        let server = &mut self.servers[shard];
        let query = &mut server.queries[at];
        let age = now - query.since;
        match query.stage {
            Stage::Travelling => {
                let too_late = age > LONGEST_RUN_MS && !self.protocol.lease;
                if !server.up || too_late || faulty && self.random.one_in(15) {
                    return self.finish(shard, at, Answer::Failed, "never arrives");
                }
                (query.stage, query.since) = (Stage::Registered, now);
            }
            Stage::Registered => {
                let stands = |one: &Progress| {
                    server.claims[one.partition as usize].iter().max() == Some(&(one.epoch, query.owner))
                };
                let in_time = query.life == server.life && now <= query.first_sent + LEASED_FOR_MS;
                let refused = self.protocol.fence && !query.progress.iter().all(stands);
                if refused || self.protocol.lease && !in_time {
                    return self.finish(
                        shard,
                        at,
                        Answer::Refused,
                        if refused { "is refused" } else { "comes too late" },
                    );
                }
                query.claimed = !self.protocol.fence
                    || query.progress.iter().all(|one| self.oracle.stands(one.partition, (one.epoch, query.owner)));
                query.stage = Stage::LetIn;
                if faulty && self.random.one_in(4) {
                    query.slow_until = now + self.random.between(1_000, LONGEST_RUN_MS);
                }
            }
            Stage::LetIn if query.killed && self.random.one_in(2) => {
                self.finish(shard, at, Answer::Failed, "is killed")
            }
            Stage::LetIn if !query.whole => {
                if sender && faulty && self.random.one_in(8) {
                    self.faults.count(Fault::BodyCut);
                    self.finish(shard, at, Answer::Failed, "is cut in its body");
                } else if sender {
                    query.whole = true;
                } else if age > RECEIVE_TIMEOUT_MS {
                    self.finish(shard, at, Answer::Failed, "waited too long for its body");
                }
            }
            Stage::LetIn if now < query.slow_until => {}
            Stage::LetIn if age > LONGEST_RUN_MS => self.finish(shard, at, Answer::Failed, "ran too long"),
            Stage::LetIn if faulty && self.random.one_in(20) => {
                self.faults.count(Fault::ErrorWithStatus200);
                self.finish(shard, at, Answer::Failed, "fails with status 200");
            }
            Stage::LetIn => {
                query.begun = true;
                let month = query.months.pop();
                month.into_iter().for_each(|month| self.land(shard, at, month));
                if self.servers[shard].queries[at].months.is_empty() {
                    self.finish(shard, at, Answer::Done, "is done");
                }
            }
        }
    }

    /// One month of an insert is committed, unless its token is remembered.
    fn land(&mut self, shard: usize, at: usize, month: usize) {
        let Query { id, token, .. } = self.servers[shard].queries[at];
        if self.protocol.token && self.servers[shard].tokens.iter().any(|one| one.token == token && one.month == month)
        {
            return self.say(|| format!("insert {id}: month {month} is remembered by token {token}"));
        }
        self.write_rows(shard, at, month);
        self.servers[shard].tokens.push(Token { token, month, written_at: self.now });
    }

    fn write_rows(&mut self, shard: usize, at: usize, wanted: usize) {
        let wall = self.servers[shard].wall(self.now);
        let others_are_up = self.servers.iter().all(|server| server.up);
        let Query { id, ref rows, claimed, .. } = self.servers[shard].queries[at];
        for row in Rc::clone(rows).iter().filter(|row| month(row.event) == wanted) {
            self.servers[shard].table.push((*row, wall));
            self.oracle.landed(*row, claimed, shard == shard_of(row.partition, self.servers.len()));
            if !others_are_up {
                self.faults.count(Fault::OtherShardAway);
            }
            self.say(|| format!("insert {id}: event {} lands, of {} at {}", row.event, row.partition, row.offset));
        }
    }

    fn finish(&mut self, shard: usize, at: usize, answer: Answer, what: &str) {
        let query = self.servers[shard].queries.swap_remove(at);
        self.say(|| format!("insert {} under token {} {what}", query.id, query.token));
        if query.begun && !query.months.is_empty() {
            self.faults.count(Fault::SomeMonthsOnly);
        }
        let lost = answer == Answer::Done && self.faulty && self.random.one_in(6);
        if lost {
            self.happened(Fault::AnswerLost, || format!("the answer of insert {} is lost", query.id));
            if self.random.one_in(2) {
                return;
            }
        }
        self.servers[shard].answers.insert(query.id, if lost { Answer::Failed } else { answer });
    }

    /// SIGKILL. What has landed stays, and so do tokens. Between the two the server may have been torn: it writes the
    /// token of a month before its rows or, in other versions, after them.
    pub(super) fn kill_server(&mut self, shard: usize) {
        let runs = self.servers[shard].queries.iter().any(|query| query.stage != Stage::Travelling);
        if runs {
            self.faults.count(Fault::ServerKilled);
        }
        self.say(|| format!("shard {shard} of ClickHouse is killed"));
        while let Some(at) = self.servers[shard].queries.iter().position(|query| query.stage != Stage::Travelling) {
            let query = &self.servers[shard].queries[at];
            let torn = query.stage == Stage::LetIn && query.whole && self.torn_commits && self.random.one_in(2);
            if let Some(month) = query.months.last().copied().filter(|_| torn) {
                let token = query.token;
                if self.random.one_in(2) {
                    self.say(|| format!("token {token} is written for month {month}, and no rows"));
                    self.servers[shard].tokens.push(Token { token, month, written_at: self.now });
                } else if !self.servers[shard].tokens.iter().any(|one| one.token == token && one.month == month) {
                    self.say(|| format!("rows of month {month} are written, and no token {token}"));
                    self.write_rows(shard, at, month);
                }
            }
            self.finish(shard, at, Answer::Failed, "dies with the server");
        }
        let server = &mut self.servers[shard];
        server.late_claims.clear();
        server.life += 1;
        server.up = false;
    }

    /// Inserts of others overrun the memory of tokens.
    pub(super) fn overrun_tokens(&mut self, shard: usize) {
        let memory = if self.short_memory { SHORT_MEMORY_MS } else { LONG_MEMORY_MS };
        let now = self.now;
        let mut unknown = 0;
        let Server { tokens, acknowledged, .. } = &mut self.servers[shard];
        tokens.retain(|one| {
            let keep = now - one.written_at <= memory;
            unknown += u32::from(!keep && !acknowledged.contains(&one.token));
            keep
        });
        if unknown > 0 {
            self.happened(Fault::TokensForgotten, || format!("{unknown} tokens of unknown inserts are forgotten"));
        }
    }
}
