//! The model: states, the steps that can be taken in them, and what must hold.

mod steps;

use stateright::{Model, Property};

use self::steps::{commit, unsettled};

pub(crate) const DOUBLED: &str = "no event is there twice";
pub(crate) const LOST: &str = "what is committed is there";
pub(crate) const DONE: &str = "everything is there and committed";

const CONSUMERS: usize = 2;
const PARTITIONS: usize = 2;

/// How much may happen in a run. Together the scopes bound the states; each is searched whole.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope {
    /// Partitions that there are: 1 or 2.
    pub(crate) partitions: usize,
    /// Claims of one partition: where the model ends.
    pub(crate) epochs: u8,
    /// How often Kafka moves a partition.
    pub(crate) moves: u8,
    pub(crate) crashes: u8,
    /// How often an insert is sent again under its token.
    pub(crate) retries: u8,
    /// Requests under way at once.
    pub(crate) queries: usize,
}

/// What holds; each negative control leaves one thing out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Protocol {
    pub(crate) fence: bool,
    pub(crate) quiet: bool,
    pub(crate) load: bool,
    pub(crate) token: bool,
    pub(crate) commit_after_rows: bool,
    pub(crate) scope: Scope,
}

impl Protocol {
    pub(crate) const fn whole(scope: Scope) -> Self {
        Self { fence: true, quiet: true, load: true, token: true, commit_after_rows: true, scope }
    }
}

/// Epoch and owner; the greatest holds.
type Claim = (u8, u8);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct State {
    /// To whom Kafka gives each partition.
    given_to: [u8; PARTITIONS],
    committed: [bool; PARTITIONS],
    holder: [Claim; PARTITIONS],
    consumers: [Consumer; CONSUMERS],
    queries: [Option<Query>; 3],
    /// Rows of each partition's event.
    rows: [u8; PARTITIONS],
    /// Tokens that are remembered, by month: as bits.
    tokens: [u16; PARTITIONS],
    next_token: u8,
    moves: u8,
    crashes: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Consumer {
    /// Changes with a crash.
    owner: u8,
    partitions: [Step; PARTITIONS],
    insert: Option<Insert>,
}

impl State {
    /// Gives states that differ in names only the same: tokens are numbered anew, and those that nobody will send again
    /// are forgotten, since they can meet no insert.
    fn normalize(&mut self) {
        self.queries.sort_by_key(|query| {
            query.map_or((true, 0, 0, [None; 2], [false; 2]), |query| {
                (false, query.owner, query.stage as u8, query.progress, query.rows)
            })
        });
        let (mut live, remembered) = (Vec::new(), std::mem::take(&mut self.tokens));
        let inserts = self.consumers.iter_mut().filter_map(|consumer| consumer.insert.as_mut());
        let inserts = inserts.map(|insert| &mut insert.token);
        for token in inserts.chain(self.queries.iter_mut().flatten().map(|query| &mut query.token)) {
            let number = live.iter().position(|other| other == token).unwrap_or(live.len());
            if number == live.len() {
                live.push(*token);
                for (month, remembered) in remembered.iter().enumerate() {
                    self.tokens[month] |= (remembered >> *token & 1) << number;
                }
            }
            *token = number as u8;
        }
        self.next_token = live.len() as u8;
    }
}

/// How far a consumer is with a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Step {
    #[default]
    NotHeld,
    Assigned,
    /// The greatest epoch is read; the claim is not written.
    Claiming(u8),
    /// The claim is written; who holds the partition is not known.
    Claimed,
    Held(u8),
    Quiet(u8),
    /// Where reading starts is known, the ids are not: whether the event is still to be read.
    Positioned(u8, bool),
    /// Runs: whether the event is still to be read, and whether its id is known.
    Running {
        epoch: u8,
        unread: bool,
        known: bool,
    },
}

/// A batch on its way: the epoch of each of its partitions, and those with a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Insert {
    token: u8,
    progress: [Option<u8>; PARTITIONS],
    rows: [bool; PARTITIONS],
    retries: u8,
    answer: Answer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Answer {
    Awaited,
    Done,
    Refused,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Query {
    owner: u8,
    token: u8,
    progress: [Option<u8>; PARTITIONS],
    /// Months that have not landed.
    rows: [bool; PARTITIONS],
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    Travelling,
    Registered,
    LetIn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// Kafka gives a partition to the other consumer.
    Move(usize),
    /// A consumer hears that a partition is not its own any more.
    Hear(usize, usize),
    /// The next step of a take-over.
    TakeOver(usize, usize),
    /// A batch of these partitions is closed and sent.
    Send(usize, [bool; PARTITIONS]),
    /// The answer does not come in time, and the batch is sent again.
    SendAgain(usize),
    /// The outcome will not be known.
    GiveUp(usize),
    /// The answer is acted upon, and the offset committed or not: a commit may be lost.
    Answered(usize, bool),
    Crash(usize),
    /// A request's next step on the server: registered, let in or refused, done.
    Serve(usize),
    Land(usize, usize),
    /// A request is killed, cut, or lost on its way; or done, and its answer lost.
    Break(usize),
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut state = State::default();
        for (owner, consumer) in (0..).zip(&mut state.consumers) {
            consumer.owner = owner;
        }
        state.consumers[0].partitions[..self.scope.partitions].fill(Step::Assigned);
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.moves < self.scope.moves {
            actions.extend((0..self.scope.partitions).map(Action::Move));
        }
        for (at, consumer) in state.consumers.iter().enumerate() {
            for partition in 0..PARTITIONS {
                match consumer.partitions[partition] {
                    Step::NotHeld => continue,
                    Step::Running { .. } => {}
                    _ => actions.push(Action::TakeOver(at, partition)),
                }
                if usize::from(state.given_to[partition]) != at {
                    actions.push(Action::Hear(at, partition));
                }
            }
            match consumer.insert {
                None => {
                    let unread =
                        |partition: usize| matches!(consumer.partitions[partition], Step::Running { unread: true, .. });
                    let batches = [[true, false], [false, true], [true, true]];
                    let ready =
                        |batch: &[bool; 2]| (0..PARTITIONS).all(|partition| !batch[partition] || unread(partition));
                    actions.extend(batches.into_iter().filter(ready).map(|batch| Action::Send(at, batch)));
                }
                Some(insert) if insert.answer == Answer::Awaited => {
                    if insert.retries < self.scope.retries {
                        actions.push(Action::SendAgain(at));
                    }
                    actions.push(Action::GiveUp(at));
                }
                Some(insert) => {
                    actions.push(Action::Answered(at, false));
                    if insert.answer == Answer::Done {
                        actions.push(Action::Answered(at, true));
                    }
                }
            }
            if state.crashes < self.scope.crashes {
                actions.push(Action::Crash(at));
            }
        }
        for (at, query) in state.queries.iter().enumerate() {
            let Some(query) = query else { continue };
            actions.push(Action::Break(at));
            if query.stage == Stage::LetIn {
                let months = (0..PARTITIONS).filter(|month| query.rows[*month]);
                actions.extend(months.map(|month| Action::Land(at, month)));
            }
            if query.stage != Stage::LetIn || query.rows == [false; PARTITIONS] {
                actions.push(Action::Serve(at));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = *last;
        match action {
            Action::Move(partition) => {
                state.moves += 1;
                let new = 1 - state.given_to[partition];
                state.given_to[partition] = new;
                // Whoever is given a partition that it has not heard of losing begins anew.
                state.consumers[usize::from(new)].partitions[partition] = Step::Assigned;
            }
            Action::Hear(at, partition) => state.consumers[at].partitions[partition] = Step::NotHeld,
            Action::TakeOver(at, partition) => self.take_over(&mut state, at, partition)?,
            Action::Send(at, batch) => self.send(&mut state, at, batch)?,
            Action::SendAgain(at) => {
                let insert = state.consumers[at].insert.as_mut()?;
                insert.retries += 1;
                let insert = *insert;
                self.request(&mut state, at, insert)?;
            }
            Action::GiveUp(at) => unsettled(&mut state, at),
            Action::Answered(at, committed) => {
                let insert = state.consumers[at].insert?;
                if insert.answer == Answer::Refused {
                    unsettled(&mut state, at);
                } else {
                    if committed {
                        commit(&mut state, at, insert);
                    }
                    state.consumers[at].insert = None;
                }
            }
            Action::Crash(at) => {
                state.crashes += 1;
                let owner = state.consumers[at].owner + CONSUMERS as u8;
                let held = |partition: usize| {
                    partition < self.scope.partitions && usize::from(state.given_to[partition]) == at
                };
                let partitions = [0, 1].map(|partition| if held(partition) { Step::Assigned } else { Step::NotHeld });
                state.consumers[at] = Consumer { owner, partitions, insert: None };
            }
            Action::Serve(at) => self.serve(&mut state, at)?,
            Action::Land(at, month) => {
                let query = state.queries[at].as_mut()?;
                query.rows[month] = false;
                let bit = 1 << query.token;
                if !self.token || state.tokens[month] & bit == 0 {
                    state.tokens[month] |= bit;
                    state.rows[month] += 1;
                }
            }
            Action::Break(at) => state.queries[at] = None,
        }
        state.normalize();
        Some(state)
    }

    fn within_boundary(&self, state: &State) -> bool {
        state.holder.iter().all(|(epoch, _)| *epoch <= self.scope.epochs)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(DOUBLED, |_, state: &State| state.rows.iter().all(|rows| *rows < 2)),
            Property::always(LOST, |_, state: &State| {
                state.committed.iter().zip(state.rows).all(|(committed, rows)| !committed || rows > 0)
            }),
            Property::sometimes(DONE, |protocol: &Self, state: &State| {
                let Scope { partitions, moves, crashes, .. } = protocol.scope;
                state.committed[..partitions].iter().all(|committed| *committed)
                    && state.moves == moves
                    && state.crashes == crashes
            }),
        ]
    }
}
