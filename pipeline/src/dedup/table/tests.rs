use super::*;

const IDS: usize = 400_000;
const BATCH: usize = 1000;
/// Groups that overflow into each other are copied together.
const LONGEST_RUN: usize = 200;

/// Groups copied in a call that did not end a copy.
fn copied(before: Option<usize>, table: &Table) -> usize {
    table.original.as_ref().map_or(0, |original| original.front.saturating_sub(before.unwrap_or(0)))
}

fn front(table: &Table) -> Option<usize> {
    table.original.as_ref().map(|original| original.front)
}

fn fill(table: &mut Table, ids: std::ops::Range<usize>, tag: u8) {
    let ids: Vec<u128> = ids.map(|n| n as u128).collect();
    table.batch(
        &ids,
        |id| id,
        |table, _, value| {
            if let Some(vacancy) = table.vacancy(value) {
                table.fill(vacancy, value, tag);
            }
        },
    );
}

#[test]
fn a_call_copies_and_allocates_no_more_because_the_table_is_large() {
    let mut table = Table::new();
    let (old, new) = (table.new_tag().unwrap(), table.new_tag().unwrap());
    let (mut growing, mut largest) = (0, 0);
    for from in (0..IDS).step_by(BATCH) {
        let before = front(&table);
        fill(&mut table, from..from + BATCH, if from % 2000 == 0 { old } else { new });
        let copied = copied(before, &table);
        assert!(copied <= GROUPS_PER_ID * BATCH + LONGEST_RUN, "{copied} groups were copied for {BATCH} ids");
        growing += usize::from(copied > 0);
        largest = largest.max(table.groups.largest_allocation_bytes());
    }
    assert!(growing > 20, "it was looked at {growing} times only while it grew");
    assert!(largest <= table.groups.allocated_bytes() / 100, "{largest} bytes were allocated at once");

    assert_eq!(table.bury(old), IDS / 2);
    let (mut calls, mut before) = (0, table.allocated_bytes());
    while table.ids > table.live || table.original.is_some() {
        let at = front(&table);
        table.sweep(500);
        assert!(copied(at, &table) <= 500 + LONGEST_RUN);
        assert!(before < table.allocated_bytes() + (2 << 20), "much was freed at once");
        before = table.allocated_bytes();
        calls += 1;
    }
    assert!(calls > 40, "all was swept out in {calls} calls");
    assert!(table.allocated_bytes() <= 24 * IDS / 2);
    assert_eq!(table.new_tag(), Some(old), "a tag is used again once its ids are swept out");
    fill(&mut table, 0..IDS, old);
    assert_eq!((table.len(), table.tagged(old), table.tagged(new)), (IDS, IDS / 2, IDS / 2));
}

#[test]
fn an_id_that_is_forgotten_but_not_swept_out_is_new_again() {
    let mut table = Table::new();
    let old = table.new_tag().unwrap();
    fill(&mut table, 0..BATCH, old);
    table.bury(old);
    let new = table.new_tag().unwrap();
    assert_ne!(old, new, "a tag is not used again before its ids are swept out");
    assert!((0..BATCH).all(|n| !table.contains(n as u128)));
    fill(&mut table, 0..BATCH, new);
    assert_eq!((table.len(), table.ids, table.tagged(old), table.tagged(new)), (BATCH, BATCH, 0, BATCH));
}
