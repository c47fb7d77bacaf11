use super::*;

const EXTENT: Extent = Extent { oldest: 10, committed: Some(50), next: 100 };

fn place(offset: i64) -> Place {
    Place { partition: 3, offset }
}

fn row(partition: i32, offset: i64) -> Row {
    Row { place: Place { partition, offset }, ingested_at_ms: 0 }
}

fn known(offset: i64, record: Option<Result<u128, Unread>>) -> Known {
    let record = record.map(|id| Record { id, timestamp_ms: None, schema_id: None, traceparent: None });
    Known { place: Some(place(offset)), partition: Some(EXTENT), record, ..Known::default() }
}

fn is(known: &Known, verdict: Verdict, words: &str) {
    let (found, text) = known.verdict();
    assert!(found == verdict && text.contains(words), "{found:?}: {text}");
}

#[test]
fn a_row_of_the_same_coordinates_is_the_event_and_of_others_its_original() {
    let event = known(20, Some(Ok(7)));
    is(&Known { rows: vec![row(3, 20)], ..event.clone() }, Verdict::Landed, "partition 3, offset 20");
    is(&Known { rows: vec![row(3, 12)], ..event.clone() }, Verdict::Duplicate, "read at partition 3, offset 12.");
    is(&Known { rows: vec![row(1, 12)], ..event.clone() }, Verdict::Duplicate, "function of the event");
    is(&Known { rows: vec![row(3, 12), row(3, 20)], ..event }, Verdict::Doubled, "2 rows");
    // Not committed yet, but read: the table is the truth.
    is(&Known { rows: vec![row(3, 60)], ..known(60, Some(Ok(7))) }, Verdict::Landed, "offset 60");
    is(&Known { rows: vec![row(3, 12)], ..known(60, Some(Ok(7))) }, Verdict::Duplicate, "not committed yet");
    // Retention has deleted the record; its row is there.
    is(&Known { rows: vec![row(3, 5)], ..known(5, None) }, Verdict::Landed, "offset 5");
}

#[test]
fn a_dead_letter_says_why() {
    let letter = Letter { reason: "truncated".into(), error: "breaks\nat byte 3".into(), ..Letter::default() };
    let dead = Known { letters: vec![letter], ..known(20, Some(Err(Unread::Rejected("truncated".into())))) };
    is(&dead, Verdict::DeadLetter, "truncated, breaks at byte 3.");
    is(&Known { rows: vec![row(3, 70)], ..dead }, Verdict::DeadLetter, "replayed");
}

#[test]
fn what_is_not_committed_is_pending_and_what_is_must_be_somewhere() {
    for id in [Ok(7), Err(Unread::Rejected("truncated".into())), Err(Unread::PassedOver)] {
        is(&known(50, Some(id.clone())), Verdict::Pending, "committed offset 50, 0 before it");
        let uncommitted = Some(Extent { committed: None, ..EXTENT });
        is(&Known { partition: uncommitted, ..known(20, Some(id)) }, Verdict::Pending, "no offset");
    }
    is(&known(49, Some(Ok(7))), Verdict::Lost, "neither in the table nor dead-lettered");
    is(&known(49, Some(Err(Unread::Rejected("truncated".into())))), Verdict::Lost, "(truncated)");
    is(&known(49, Some(Err(Unread::PassedOver))), Verdict::PassedOver, "another section");
}

#[test]
fn where_there_is_no_record_the_reason_is_told() {
    is(&known(100, None), Verdict::NotThere, "gets offset 100");
    is(&known(9, None), Verdict::NotThere, "retention");
    is(&known(20, None), Verdict::NotThere, "aborted transaction");
    is(&Known::default(), Verdict::NotThere, "Neither the table nor the topic");
}
