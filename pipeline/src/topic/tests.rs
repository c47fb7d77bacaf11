mod sim;
mod world;

use arrow_array::{StringArray, cast::AsArray, types::Int32Type};
use millrace_schemas::golden;

use self::world::*;
use super::*;
use crate::{
    batch::{Batch, Trigger},
    spec::{MissPolicy, Others},
};

fn close(pipeline: &mut TopicPipeline) -> Batch {
    pipeline.close(0, Trigger::Drain).unwrap().unwrap()
}

fn committable(progress: Vec<Progress>) -> Vec<(i32, i64)> {
    progress.into_iter().map(|one| (one.partition, one.next_offset)).collect()
}

#[test]
fn a_duplicate_is_dropped_within_a_chunk_and_across_chunks_and_batches() {
    let mut pipeline = running(MissPolicy::Null, &[0]);
    let (a, b) = (order(1, "c", &[]), order(2, "c", &[]));
    let processed = feed(&mut pipeline, &[(0, 0, &a), (0, 1, &b), (0, 2, &a)], 0);
    assert_eq!((processed.rows, processed.duplicates), (2, 1));
    let processed = feed(&mut pipeline, &[(0, 3, &b)], 1);
    assert_eq!((processed.rows, processed.duplicates), (0, 1));
    let batch = close(&mut pipeline);
    assert_eq!(landed(&batch.rows), [(1, 0, 0), (2, 0, 1)]);
    assert_eq!(batch.published_ms, [0, 1]);
    assert_eq!(feed(&mut pipeline, &[(0, 4, &a)], 2).duplicates, 1);
    let batch = close(&mut pipeline);
    assert_eq!(batch.rows.num_rows(), 0);
    assert_eq!(batch.progress, [Progress { partition: 0, epoch: 1, next_offset: 5 }], "the offset moves all the same");
    assert_eq!(pipeline.dedup_ids(), 2);
}

#[test]
fn equal_ids_in_two_partitions_are_two_rows_because_ids_meet_in_one_partition() {
    let mut pipeline = running(MissPolicy::Null, &[0, 1]);
    let a = order(1, "c", &[]);
    assert_eq!(feed(&mut pipeline, &[(0, 0, &a), (1, 0, &a)], 0).rows, 2);
}

#[test]
fn rows_of_several_partitions_keep_the_order_of_their_chunk() {
    let mut pipeline = running(MissPolicy::Null, &[0, 1]);
    let (a, b, c) = (order(1, "c", &[]), order(2, "c", &[]), order(3, "c", &[]));
    let records: [(i32, i64, &[u8]); 6] = [(1, 0, &a), (0, 0, &b), (1, 1, &c), (0, 1, &b), (1, 2, &a), (0, 2, &a)];
    let processed = feed(&mut pipeline, &records, 0);
    assert_eq!((processed.rows, processed.duplicates), (4, 2));
    assert_eq!(landed(&close(&mut pipeline).rows), [(1, 1, 0), (2, 0, 0), (3, 1, 1), (1, 0, 2)]);
}

#[test]
fn poison_in_the_middle_becomes_dead_letters_and_leaves_the_rows_around_it_whole() {
    let mut pipeline = running(MissPolicy::Null, &[0]);
    let (bad, a, b) = (golden::bad(), order(1, "c", &["s"]), order(2, "c", &[]));
    let mut records: Vec<(i32, i64, &[u8])> = vec![(0, 0, &a)];
    records.extend((1..).zip(&bad).map(|(offset, bad)| (0, offset, &bad.bytes[..])));
    let last = records.len() as i64;
    records.push((0, last, &b));
    let processed = feed(&mut pipeline, &records, 0);
    assert_eq!((processed.rows, processed.rejected.values().sum::<u64>()), (2, bad.len() as u64));
    let batch = close(&mut pipeline);
    assert_eq!(landed(&batch.rows), [(1, 0, 0), (2, 0, last)]);
    let mut reasons: Vec<_> =
        batch.dead_letters.iter().map(|letter| (letter.offset, letter.rejection.reason.code())).collect();
    reasons.sort_unstable();
    assert_eq!(reasons, (1..).zip(&bad).map(|(offset, bad)| (offset, bad.reason)).collect::<Vec<_>>());
    assert_eq!(batch.progress[0].next_offset, last + 1);
}

#[test]
fn of_several_types_of_event_those_of_one_become_rows_and_the_others_only_progress() {
    let (first, second, foreign, nobodys) =
        (order(1, "c", &["s"]), order(2, "c", &[]), [0, 0, 0, 0, 2], [0, 0, 0, 0, 3]);
    let records: [(i32, i64, &[u8]); 6] =
        [(0, 0, &foreign), (0, 1, &first), (0, 2, &nobodys), (0, 3, b"{}"), (0, 4, &second), (0, 5, &foreign)];
    for (others, passed_over, letters) in [
        (Others::DeadLetter, 2, &[(2, Reason::UnexpectedRecord), (3, Reason::BadMagic)][..]),
        (Others::Ignore, 3, &[(3, Reason::BadMagic)]),
        (Others::Elsewhere, 4, &[]),
    ] {
        let mut pipeline = routed(others);
        assert!([1, 2, 3].iter().all(|id| pipeline.knows(*id)));
        let processed = feed(&mut pipeline, &records, 0);
        assert_eq!((processed.rows, processed.passed_over), (2, passed_over));
        let batch = close(&mut pipeline);
        assert_eq!(landed(&batch.rows), [(1, 0, 1), (2, 0, 4)]);
        let reasons = batch.dead_letters.iter().map(|letter| (letter.offset, letter.rejection.reason));
        assert_eq!(reasons.collect::<Vec<_>>(), letters);
        assert_eq!(batch.progress[0].next_offset, 6, "what is passed over is never read again");
    }
}

#[test]
fn rows_carry_what_the_reference_topics_say_per_event_and_per_item() {
    let mut pipeline = running(MissPolicy::Null, &[0]);
    pipeline.reference(CUSTOMER).upsert(&customer("ann", "old")).unwrap();
    pipeline.reference(CUSTOMER).upsert(&customer("ann", "gold")).unwrap();
    pipeline.reference(PRODUCT).upsert(&product("s1", "books")).unwrap();
    let (a, b) = (order(1, "ann", &["s1", "s2"]), order(2, "bob", &[]));
    let processed = feed(&mut pipeline, &[(0, 0, &a), (0, 1, &b)], 0);
    assert_eq!(processed.misses, [1, 1]);
    let batch = close(&mut pipeline);
    assert_eq!(segments(&batch), [Some("gold".to_owned()), None]);
    let categories = batch.rows.column_by_name("items.category").unwrap().as_list::<i32>();
    assert_eq!(categories.value_offsets(), [0, 2, 2]);
    let categories = categories.values().as_dictionary::<Int32Type>();
    let categories: Vec<_> = categories.downcast_dict::<StringArray>().unwrap().into_iter().collect();
    assert_eq!(categories, [Some("books"), None]);
    let names: Vec<&str> = batch.rows.schema_ref().fields().iter().map(|field| field.name().as_str()).collect();
    let expected =
        ["event_id", "customer_id", "items.sku", "customer_segment", "items.category", "customer_signup_date"];
    assert_eq!(names, [&expected[..], &["_partition", "_offset"]].concat());
    assert_eq!(batch.rows.schema_ref(), pipeline.row_schema());
}

#[test]
fn with_policy_wait_events_stand_until_the_reference_record_comes() {
    let mut pipeline = running(WAIT, &[0]);
    let bad = golden::bad().remove(0);
    let processed = feed(&mut pipeline, &[(0, 0, &order(1, "ann", &[])), (0, 1, &bad.bytes)], 0);
    assert!(processed.waiting && pipeline.is_waiting() && processed.misses.is_empty());
    assert!(pipeline.close(0, Trigger::Drain).unwrap().is_none(), "the dead letter goes with the rows of its chunk");
    let mut misses = Vec::new();
    assert!(!pipeline.retry_waiting(WAIT_MS - 1, &mut misses).unwrap());
    pipeline.reference(CUSTOMER).upsert(&customer("ann", "gold")).unwrap();
    assert!(pipeline.retry_waiting(WAIT_MS - 1, &mut misses).unwrap());
    assert_eq!(misses, [0, 0]);
    let batch = close(&mut pipeline);
    assert_eq!(segments(&batch), [Some("gold".to_owned())]);
    assert_eq!((batch.dead_letters.len(), batch.progress[0].next_offset), (1, 2));
}

#[test]
fn with_policy_wait_the_columns_are_null_when_the_time_is_over() {
    let mut pipeline = running(WAIT, &[0]);
    assert!(feed(&mut pipeline, &[(0, 0, &order(1, "ann", &[]))], 7).waiting);
    let mut misses = Vec::new();
    assert!(!pipeline.retry_waiting(6 + WAIT_MS, &mut misses).unwrap());
    assert!(pipeline.retry_waiting(7 + WAIT_MS, &mut misses).unwrap());
    assert_eq!(misses, [1, 0]);
    assert_eq!(segments(&close(&mut pipeline)), [None]);
}

#[test]
fn with_policy_dead_letter_a_missed_event_is_no_row_and_is_not_remembered_as_one() {
    let mut pipeline = running(MissPolicy::DeadLetter, &[0]);
    let a = order(1, "ann", &[]);
    let processed = feed(&mut pipeline, &[(0, 0, &a), (0, 1, &a)], 0);
    assert_eq!((processed.rows, processed.rejected[&Reason::LookupMissed], pipeline.dedup_ids()), (0, 2, 0));
    pipeline.reference(CUSTOMER).upsert(&customer("ann", "gold")).unwrap();
    assert_eq!(feed(&mut pipeline, &[(0, 2, &a)], 0).rows, 1, "sent again, it is welcome");
    pipeline.reference(CUSTOMER).delete("ann");
    let processed = feed(&mut pipeline, &[(0, 3, &a)], 0);
    assert_eq!((processed.duplicates, processed.rejected.len()), (1, 0), "a duplicate of a row is no dead letter");
    let batch = close(&mut pipeline);
    assert_eq!((ids(&batch), batch.dead_letters.len()), (vec![1], 2));
}

#[test]
fn with_policy_dead_letter_the_first_event_of_an_id_that_is_not_refused_is_the_row() {
    let mut pipeline = running(MissPolicy::DeadLetter, &[0]);
    pipeline.reference(CUSTOMER).upsert(&customer("bob", "gold")).unwrap();
    let (refused, welcome) = (order(1, "ann", &[]), order(1, "bob", &[]));
    let processed = feed(&mut pipeline, &[(0, 0, &refused), (0, 1, &welcome), (0, 2, &refused), (0, 3, &welcome)], 0);
    assert_eq!((processed.rows, processed.rejected[&Reason::LookupMissed], processed.duplicates), (1, 1, 2));
    assert_eq!(landed(&close(&mut pipeline).rows), [(1, 0, 1)]);
}

#[test]
fn rows_of_an_abandoned_batch_come_again_and_are_no_duplicates() {
    let mut pipeline = running(MissPolicy::Null, &[0, 1]);
    let records = [order(1, "c", &[]), order(2, "c", &[])];
    let records: [(i32, i64, &[u8]); 2] = [(0, 0, &records[0]), (1, 0, &records[1])];
    feed(&mut pipeline, &records, 0);
    let again = pipeline.restart(&[0]);
    assert_eq!(take_over(&mut pipeline, again, 2), [0, 1], "1 shared the batch with 0");
    assert!(pipeline.close(0, Trigger::Drain).unwrap().is_none());
    assert_eq!(feed(&mut pipeline, &records, 0).rows, 2);
    assert!(close(&mut pipeline).progress.iter().all(|one| one.epoch == 2));
}

#[test]
fn events_that_waited_come_again_after_a_restart() {
    let mut pipeline = running(WAIT, &[0, 1]);
    let a = order(1, "ann", &[]);
    assert!(feed(&mut pipeline, &[(0, 0, &a)], 0).waiting);
    let again = pipeline.restart(&[1]);
    assert!(!pipeline.is_waiting());
    assert_eq!(take_over(&mut pipeline, again, 2), [0, 1]);
    pipeline.reference(CUSTOMER).upsert(&customer("ann", "gold")).unwrap();
    assert_eq!(feed(&mut pipeline, &[(0, 0, &a)], 0).rows, 1);
}

#[test]
fn revoking_a_partition_restarts_those_that_share_the_open_batch_with_it_and_no_others() {
    let mut pipeline = running(MissPolicy::Null, &[0, 1, 2]);
    let (a, b) = (order(1, "c", &[]), order(2, "c", &[]));
    feed(&mut pipeline, &[(0, 0, &a), (1, 0, &b)], 0);
    assert!(pipeline.revoke(&[2]).is_none());
    let (attempt, partitions) = pipeline.revoke(&[0]).unwrap();
    assert_eq!(partitions, [1]);
    assert!(pipeline.assignment().is_taking_over(attempt, 1));
    assert!(pipeline.close(0, Trigger::Drain).unwrap().is_none());
    assert_eq!(pipeline.dedup_ids(), 0);
}

#[test]
fn offsets_may_be_committed_in_whatever_order_batches_become_durable() {
    for order_of_answers in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut pipeline = running(MissPolicy::Null, &[0, 1]);
        for n in 0..3 {
            feed(&mut pipeline, &[((n % 2) as i32, n, &order(n as u128, "c", &[]))], 0);
            assert_eq!(close(&mut pipeline).seq, n as u64);
        }
        let mut durable = [false; 3];
        let mut committed = [0, 0];
        for seq in order_of_answers {
            durable[seq as usize] = true;
            for (partition, next_offset) in committable(pipeline.durable(seq)) {
                committed[partition as usize] = next_offset;
            }
            let first = match durable {
                [false, ..] => 0,
                [true, _, false] => 1,
                [true, _, true] => 3,
            };
            let second = if durable[1] { 2 } else { 0 };
            assert_eq!(committed, [first, second], "{order_of_answers:?} up to {seq}");
        }
        assert!(!pipeline.in_flight());
    }
}

#[test]
fn an_unsettled_batch_takes_what_was_sent_after_it_of_its_partitions_with_it() {
    let mut pipeline = running(MissPolicy::Null, &[0, 1]);
    for (n, partition) in [(0, 0), (1, 1), (2, 0)] {
        feed(&mut pipeline, &[(partition, n, &order(n as u128, "c", &[]))], 0);
        close(&mut pipeline);
    }
    let again = pipeline.unsettled(0);
    assert_eq!(take_over(&mut pipeline, again, 2), [0]);
    assert_eq!(committable(pipeline.durable(2)), [], "it was read under the earlier claim, and not in order");
    assert_eq!(committable(pipeline.durable(1)), [(1, 2)]);
    assert!(!pipeline.in_flight());
}

#[test]
fn a_refusal_that_comes_late_does_not_throw_back_what_was_taken_over_since() {
    let mut pipeline = running(MissPolicy::Null, &[0]);
    for n in 0..2 {
        feed(&mut pipeline, &[(0, n, &order(n as u128, "c", &[]))], 0);
        close(&mut pipeline);
    }
    let again = pipeline.unsettled(0);
    assert_eq!(take_over(&mut pipeline, again, 2), [0]);
    feed(&mut pipeline, &[(0, 0, &order(0, "c", &[]))], 0);
    assert!(pipeline.unsettled(1).is_none());
    assert_eq!(ids(&close(&mut pipeline)), [0]);
}

#[test]
fn nothing_is_committed_under_a_claim_that_is_not_held_any_more() {
    let mut pipeline = running(MissPolicy::Null, &[0, 1]);
    feed(&mut pipeline, &[(0, 0, &order(1, "c", &[])), (1, 0, &order(2, "c", &[]))], 0);
    let seq = close(&mut pipeline).seq;
    assert!(pipeline.revoke(&[0]).is_none());
    let attempt = pipeline.assign(&[0]);
    assert_eq!(take_over(&mut pipeline, Some((attempt, vec![0])), 3), [0]);
    assert_eq!(committable(pipeline.durable(seq)), [(1, 1)]);
}

#[test]
fn ids_are_let_go_early_only_while_there_are_too_many() {
    let mut pipeline = pipeline_of(MissPolicy::Null, MIN_GENERATION_IDS);
    let attempt = pipeline.assign(&[0]);
    let mut index = pipeline.new_index()();
    index.load(&(0..MIN_GENERATION_IDS as u128).map(|id| (id, 0)).collect::<Vec<_>>(), 0);
    assert!(pipeline.taken_over(attempt, 0, 1, 0, index));
    assert_eq!(pipeline.expire(0), 0);
    feed(&mut pipeline, &[(0, 0, &order(u128::MAX, "c", &[]))], 0);
    assert_eq!(pipeline.expire(0), MIN_GENERATION_IDS);
    assert_eq!(feed(&mut pipeline, &[(0, 1, &order(u128::MAX, "c", &[]))], 0).duplicates, 1);
}

#[test]
fn partitions_of_different_shards_never_share_a_batch() {
    let mut pipeline = world::pipeline_of(MissPolicy::Null, 1 << 30).sharded(2);
    let attempt = pipeline.assign(&[0, 1, 2]);
    assert_eq!(world::take_over(&mut pipeline, Some((attempt, vec![0, 1, 2])), 1), [0, 1, 2]);
    let values: Vec<Vec<u8>> = (0..6).map(|n| world::order(n, "c", &[])).collect();
    let records: Vec<(i32, i64, &[u8])> =
        values.iter().enumerate().map(|(n, value)| (n as i32 % 3, n as i64 / 3, &value[..])).collect();
    let processed = feed(&mut pipeline, &records, 0);
    assert_eq!((processed.rows, pipeline.shards()), (6, 2));
    // A dead letter goes with its own shard, too, and is that of its record.
    let poison = feed(&mut pipeline, &[(0, 2, &values[0]), (1, 2, b"\x00poison")], 0);
    assert_eq!((poison.duplicates, poison.rejected.values().sum::<u64>()), (1, 1));
    let of = |pipeline: &mut TopicPipeline, shard| pipeline.close(shard, Trigger::Drain).unwrap().unwrap();
    let (even, odd) = (of(&mut pipeline, 0), of(&mut pipeline, 1));
    let partitions = |batch: &Batch| batch.progress.iter().map(|one| one.partition).collect::<Vec<i32>>();
    assert_eq!((partitions(&even), world::ids(&even)), (vec![0, 2], vec![0, 2, 3, 5]));
    assert_eq!((partitions(&odd), world::ids(&odd)), (vec![1], vec![1, 4]));
    assert!(even.dead_letters.is_empty());
    assert_eq!(odd.dead_letters.iter().map(|letter| (letter.partition, letter.offset)).collect::<Vec<_>>(), [(1, 2)]);
    assert!(odd.seq > even.seq);
    // The one is durable and committed while nothing is known of the other.
    assert_eq!(pipeline.durable(odd.seq).iter().map(|one| one.partition).collect::<Vec<i32>>(), [1]);
    assert!(pipeline.in_flight());
}

#[test]
fn what_is_given_up_of_one_shard_leaves_the_other_as_it_is() {
    let mut pipeline = world::pipeline_of(MissPolicy::Null, 1 << 30).sharded(2);
    let attempt = pipeline.assign(&[0, 1, 2]);
    world::take_over(&mut pipeline, Some((attempt, vec![0, 1, 2])), 1);
    let values: Vec<Vec<u8>> = (0..3).map(|n| world::order(n, "c", &[])).collect();
    feed(&mut pipeline, &[(0, 0, &values[0]), (1, 0, &values[1]), (2, 0, &values[2])], 0);
    // A partition is revoked: the one that shared its batch is read again, the other shard's is not.
    let (_, again) = pipeline.revoke(&[0]).unwrap();
    assert_eq!(again, [2]);
    assert_eq!((pipeline.deadline(0), pipeline.deadline(1).is_some()), (None, true));
    let batch = pipeline.close(1, Trigger::Drain).unwrap().unwrap();
    let (_, again) = pipeline.unsettled(batch.seq).unwrap();
    assert_eq!(again, [1]);
}
