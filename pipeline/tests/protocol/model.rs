//! The model: states, the steps that can be taken in them, and what must hold.

use stateright::{Model, Property};

pub const DOUBLED: &str = "no event is there twice";
pub const LOST: &str = "what is committed is there";
pub const DONE: &str = "everything is there and committed";

const CONSUMERS: usize = 2;
const PARTITIONS: usize = 2;
/// How often Kafka moves a partition, in a run.
const MOVES: u8 = 2;
const CRASHES: u8 = 1;
/// How often an insert is sent again under its token.
const RETRIES: u8 = 1;
/// Claims of one partition: where the model ends.
const EPOCHS: u8 = 3;

/// What holds; each negative control leaves one thing out.
#[derive(Clone, Copy, Debug)]
pub struct Protocol {
    pub fence: bool,
    pub quiet: bool,
    pub load: bool,
    pub token: bool,
    pub commit_after_rows: bool,
}

impl Protocol {
    pub const WHOLE: Self = Self { fence: true, quiet: true, load: true, token: true, commit_after_rows: true };
}

/// Epoch and owner; the greatest holds.
type Claim = (u8, u8);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct State {
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
pub enum Action {
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
    /// The answer is acted upon; the commit may be lost.
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
        state.consumers[0].partitions = [Step::Assigned; PARTITIONS];
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.moves < MOVES {
            actions.extend((0..PARTITIONS).map(Action::Move));
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
                    if insert.retries < RETRIES {
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
            if state.crashes < CRASHES {
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
                request(&mut state, at, insert)?;
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
                let held = |partition: usize| usize::from(state.given_to[partition]) == at;
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
        state.queries.sort_by_key(|query| query.map_or((2, 0, 0), |query| (1, query.token, query.stage as u8)));
        Some(state)
    }

    fn within_boundary(&self, state: &State) -> bool {
        state.holder.iter().all(|(epoch, _)| *epoch <= EPOCHS)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(DOUBLED, |_, state: &State| state.rows.iter().all(|rows| *rows < 2)),
            Property::always(LOST, |_, state: &State| {
                state.committed.iter().zip(state.rows).all(|(committed, rows)| !committed || rows > 0)
            }),
            Property::sometimes(DONE, |_, state: &State| {
                state.committed == [true; PARTITIONS] && state.moves == MOVES && state.crashes == CRASHES
            }),
        ]
    }
}

impl Protocol {
    fn take_over(&self, state: &mut State, at: usize, partition: usize) -> Option<()> {
        let owner = state.consumers[at].owner;
        let step = &mut state.consumers[at].partitions[partition];
        let holder = &mut state.holder[partition];
        *step = match *step {
            Step::Assigned => Step::Claiming(holder.0 + 1),
            Step::Claiming(epoch) => {
                *holder = (*holder).max((epoch, owner));
                Step::Claimed
            }
            Step::Claimed if holder.1 == owner => Step::Held(holder.0),
            Step::Claimed => Step::Assigned,
            Step::Held(epoch) => {
                let mut running = state.queries.iter().flatten().filter(|query| query.stage != Stage::Travelling);
                if self.quiet && running.any(|query| query.progress[partition].is_some()) {
                    return None;
                }
                Step::Quiet(epoch)
            }
            Step::Quiet(epoch) => Step::Positioned(epoch, !state.committed[partition]),
            Step::Positioned(epoch, unread) => {
                Step::Running { epoch, unread, known: self.load && state.rows[partition] > 0 }
            }
            Step::NotHeld | Step::Running { .. } => return None,
        };
        Some(())
    }

    fn send(&self, state: &mut State, at: usize, batch: [bool; PARTITIONS]) -> Option<()> {
        let mut insert = Insert {
            token: state.next_token,
            progress: [None; PARTITIONS],
            rows: [false; PARTITIONS],
            retries: 0,
            answer: Answer::Awaited,
        };
        for partition in (0..PARTITIONS).filter(|partition| batch[*partition]) {
            let step = &mut state.consumers[at].partitions[partition];
            let Step::Running { epoch, known, .. } = *step else { return None };
            insert.progress[partition] = Some(epoch);
            insert.rows[partition] = !known;
            *step = Step::Running { epoch, unread: false, known: true };
        }
        if insert.rows == [false; PARTITIONS] {
            insert.answer = Answer::Done;
        } else {
            state.next_token += 1;
            request(state, at, insert)?;
        }
        state.consumers[at].insert = Some(insert);
        if !self.commit_after_rows {
            commit(state, at, insert);
        }
        Some(())
    }

    fn serve(&self, state: &mut State, at: usize) -> Option<()> {
        let query = state.queries[at].as_mut()?;
        match query.stage {
            Stage::Travelling => query.stage = Stage::Registered,
            Stage::Registered => {
                let mut claims = query.progress.iter().zip(&state.holder);
                if self.fence
                    && !claims.all(|(epoch, holder)| epoch.is_none_or(|epoch| (epoch, query.owner) == *holder))
                {
                    let query = *query;
                    answer(state, at, query, Answer::Refused);
                } else {
                    query.stage = Stage::LetIn;
                }
            }
            Stage::LetIn => {
                let query = *query;
                answer(state, at, query, Answer::Done);
            }
        }
        Some(())
    }
}

/// Puts a request on its way; there are only so many at once.
fn request(state: &mut State, at: usize, insert: Insert) -> Option<()> {
    let owner = state.consumers[at].owner;
    let free = state.queries.iter_mut().find(|query| query.is_none())?;
    let Insert { token, progress, rows, .. } = insert;
    *free = Some(Query { owner, token, progress, rows, stage: Stage::Travelling });
    Some(())
}

/// A request is over, and whoever still waits for it hears how.
fn answer(state: &mut State, at: usize, query: Query, answer: Answer) {
    state.queries[at] = None;
    let waiting = state.consumers.iter_mut().filter(|consumer| consumer.owner == query.owner);
    for insert in waiting.filter_map(|consumer| consumer.insert.as_mut()) {
        if insert.token == query.token && insert.answer == Answer::Awaited {
            insert.answer = answer;
        }
    }
}

/// Kafka takes a commit from whom it has given the partition to.
fn commit(state: &mut State, at: usize, insert: Insert) {
    for partition in 0..PARTITIONS {
        let Step::Running { epoch, .. } = state.consumers[at].partitions[partition] else { continue };
        if insert.progress[partition] == Some(epoch) && usize::from(state.given_to[partition]) == at {
            state.committed[partition] = true;
        }
    }
}

/// What became of a batch is not known: its partitions are taken over again, if they still run under its claims.
fn unsettled(state: &mut State, at: usize) {
    let consumer = &mut state.consumers[at];
    let Some(insert) = consumer.insert.take() else { return };
    for (step, epoch) in consumer.partitions.iter_mut().zip(insert.progress) {
        if matches!((*step, epoch), (Step::Running { epoch: runs, .. }, Some(epoch)) if runs == epoch) {
            *step = Step::Assigned;
        }
    }
}
