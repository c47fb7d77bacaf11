//! Several sections for one topic.

use millrace_pipeline::spec::{Others, RouteSpec};

use super::{MINIMAL, accepted, complaints};

/// [`MINIMAL`] with a section for each table, each with these lines.
fn sections(tables: &[(&str, &str)]) -> String {
    let (head, section) = MINIMAL.split_once("[[topics]]").unwrap();
    let section = |(table, lines): &(&str, &str)| {
        format!("[[topics]]\n{lines}{}", section.replace("table = \"orders\"", &format!("table = \"{table}\"")))
    };
    head.to_owned() + &tables.iter().map(section).collect::<String>()
}

#[test]
fn sections_that_share_a_topic_know_each_others_records_and_read_as_groups_of_their_own() {
    let config = accepted(&sections(&[
        ("orders", "record = \"com.example.Order\"\nother_records = \"ignore\""),
        ("refunds", "record = \"Refund\""),
    ]));
    let [orders, refunds] = config.topics.as_slice() else { panic!("{config:?}") };
    let route = |record: &str, elsewhere: &str, others| {
        Some(RouteSpec { record: record.to_owned(), elsewhere: vec![elsewhere.to_owned()], others })
    };
    assert_eq!(orders.spec.route, route("com.example.Order", "Refund", Others::Ignore));
    assert_eq!(refunds.spec.route, route("Refund", "com.example.Order", Others::Elsewhere));
    let named = |topic: &super::super::Topic| (topic.label(), topic.kafka(&config.kafka).group_id);
    assert_eq!(named(orders), ("orders/orders".to_owned(), "millrace.orders".to_owned()));
    assert_eq!(named(refunds), ("orders/refunds".to_owned(), "millrace.refunds".to_owned()));
    let [plain] = accepted(MINIMAL).topics.try_into().unwrap();
    assert_eq!(named(&plain), ("orders".to_owned(), "millrace".to_owned()));
}

#[test]
fn what_no_section_is_for_is_seen_to_by_exactly_one() {
    let (order, refund) = ("record = \"Order\"\n", "record = \"Refund\"\n");
    let others = "other_records = \"dead_letter\"\n";
    let both = (&*format!("{order}{others}"), &*format!("{refund}{others}"));
    for (first, second, expected) in [
        (order, refund, "0 of the 2 sections of topic \"orders\" have `other_records`; expected exactly one"),
        (both.0, both.1, "2 of the 2 sections"),
        (both.0, order, "records named \"Order\" of topic \"orders\" have a section above"),
        (both.0, "", "`record` in each section of a topic that carries several types of event"),
        (both.0, "record = \"no record\"\n", "expected the full name of an Avro record"),
        ("", others, "not used without `record`"),
    ] {
        let said = complaints(&sections(&[("orders", first), ("refunds", second)]));
        assert!(said.iter().any(|line| line.contains(expected)), "{expected} in {said:#?}");
    }
}
