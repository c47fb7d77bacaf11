//! What the steps of consumers and server do.

use super::{Answer, Insert, PARTITIONS, Protocol, Query, Stage, State, Step};

impl Protocol {
    pub(super) fn take_over(&self, state: &mut State, at: usize, partition: usize) -> Option<()> {
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

    pub(super) fn send(&self, state: &mut State, at: usize, batch: [bool; PARTITIONS]) -> Option<()> {
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
            self.request(state, at, insert)?;
        }
        state.consumers[at].insert = Some(insert);
        if !self.commit_after_rows {
            commit(state, at, insert);
        }
        Some(())
    }

    pub(super) fn serve(&self, state: &mut State, at: usize) -> Option<()> {
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

    /// Puts a request on its way; there are only so many at once.
    pub(super) fn request(&self, state: &mut State, at: usize, insert: Insert) -> Option<()> {
        let owner = state.consumers[at].owner;
        let free = state.queries[..self.scope.queries].iter_mut().find(|query| query.is_none())?;
        let Insert { token, progress, rows, .. } = insert;
        *free = Some(Query { owner, token, progress, rows, stage: Stage::Travelling });
        Some(())
    }
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
pub(super) fn commit(state: &mut State, at: usize, insert: Insert) {
    for partition in 0..PARTITIONS {
        let Step::Running { epoch, .. } = state.consumers[at].partitions[partition] else { continue };
        if insert.progress[partition] == Some(epoch) && usize::from(state.given_to[partition]) == at {
            state.committed[partition] = true;
        }
    }
}

/// What became of a batch is not known: its partitions are taken over again, if they still run under its claims.
pub(super) fn unsettled(state: &mut State, at: usize) {
    let consumer = &mut state.consumers[at];
    let Some(insert) = consumer.insert.take() else { return };
    for (step, epoch) in consumer.partitions.iter_mut().zip(insert.progress) {
        if matches!((*step, epoch), (Step::Running { epoch: runs, .. }, Some(epoch)) if runs == epoch) {
            *step = Step::Assigned;
        }
    }
}
