use millrace_pipeline::spec::Others;
use millrace_schemas::{ORDER_EVENT_V1, golden};

use super::*;

const PAGE: &str = include_str!("../../../../docs/dead-letters.md");

fn shown(value: Option<&[u8]>, answer: Answer) -> Shown {
    let letter = Letter {
        source: Some(Place { topic: "orders".into(), partition: 3, offset: 1234 }),
        reason: "truncated".into(),
        error: "the datum breaks".into(),
        key: Some(b"key".to_vec()),
        value: value.map(<[u8]>::to_vec),
        headers: vec![("trace".into(), Some(vec![0xff])), ("empty".into(), None)],
        ..Letter::default()
    };
    let writer = wire::split(value).ok().map(|(id, _)| (id, answer));
    judge(
        Ok((ORDER_EVENT_V1.to_owned(), writer)),
        None,
        DecodeLimits::default(),
        Place { topic: "orders.dead".into(), partition: 0, offset: 15 },
        letter,
    )
}

fn orders(value: &[u8]) -> Shown {
    shown(Some(value), Answer::Schema(ORDER_EVENT_V1.to_owned()))
}

fn bad(name: &str) -> Vec<u8> {
    golden::bad().into_iter().find(|bad| bad.name == name).unwrap().bytes
}

#[test]
fn every_bad_golden_value_is_shown_with_its_reason_and_is_not_readable() {
    for bad in golden::bad() {
        let answer = match bad.reason {
            "unknown_schema_id" => Answer::Absent,
            _ => Answer::Schema(ORDER_EVENT_V1.to_owned()),
        };
        let shown = shown(Some(&bad.bytes), answer);
        let now = shown.now.as_ref().unwrap_err();
        assert!(now.starts_with(bad.reason), "{}: {now}", bad.name);
        let (text, json) = (shown.to_string(), shown.to_json());
        assert!(text.contains("orders[3]@1234") && text.contains(bad.reason), "{}: {text}", bad.name);
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["readable_now"], false, "{}", bad.name);
    }
}

#[test]
fn a_broken_value_is_shown_up_to_the_break_with_the_byte_in_brackets() {
    let value = bad("enum_index_too_large");
    let shown = orders(&value);
    let text = shown.to_string();
    let Some(Walk { end: End::Broken { from, at, path, .. }, .. }) = &shown.walk else { panic!("{text}") };
    for words in [
        "orders.dead[0]@15\n",
        "reason     truncated: the datum breaks\n",
        "schema     1: com.millrace.orders.OrderEvent\n",
        "key        \"key\"\n",
        "header     trace = 0xff\n",
        "header     empty = null\n",
        "event_id",
        &format!("✗ {from:>6}  {path}  breaks at byte {at}: bad_enum_index"),
        &format!("Byte {at} of the datum is byte {} of the value", at + 5),
        &format!("[{:02x}]", value[at + 5]),
    ] {
        assert!(text.contains(words), "{words:?} in {text}");
    }
    let json: Value = serde_json::from_str(&shown.to_json()).unwrap();
    assert_eq!((&json["broken_at"], &json["broken_path"]), (&json!(at), &json!(path)));
    assert_eq!(
        json["fields"][0],
        json!({ "path": "event_id", "at": 0, "value": "0b9d6a1e-5c1f-4f3a-9a57-3f6d2c8e7b10" })
    );
}

#[test]
fn a_value_that_can_be_read_by_now_says_so() {
    let good = golden::good().into_iter().find(|good| good.name == "typical").unwrap();
    let shown = orders(&good.bytes);
    assert_eq!(shown.now, Ok(()));
    assert!(shown.to_string().contains("it can be read: replayed"), "{shown}");
    assert!(shown.to_string().ends_with("The datum is whole.\n"), "{shown}");
}

#[test]
fn a_letter_of_a_type_that_another_section_is_for_is_no_business_of_this_one() {
    let good = golden::good().into_iter().find(|good| good.name == "typical").unwrap();
    let now = |record: &str, elsewhere: &str| {
        let route =
            RouteSpec { record: record.to_owned(), elsewhere: vec![elsewhere.to_owned()], others: Others::DeadLetter };
        let letter = Letter { value: Some(good.bytes.clone()), ..Letter::default() };
        let writer = Some((golden::SCHEMA_ID, Answer::Schema(ORDER_EVENT_V1.to_owned())));
        let place = Place { topic: "orders.dead".into(), partition: 0, offset: 15 };
        judge(Ok((ORDER_EVENT_V1.to_owned(), writer)), Some(route), DecodeLimits::default(), place, letter).now
    };
    let (order, refund) = ("com.millrace.orders.OrderEvent", "com.millrace.orders.Refund");
    assert_eq!(now(order, refund), Ok(()));
    let why = now(refund, order).unwrap_err();
    assert!(why.starts_with(&format!("passed over: this section is for `{refund}`; another section")), "{why}");
    assert!(now(refund, "Voucher").unwrap_err().starts_with("unexpected_record: "));
}

#[test]
fn text_and_tombstones_are_shown_as_what_they_are() {
    let text = orders(&bad("json_text")).to_string();
    assert!(text.contains("It is text: \"{\\\"event_id\\\""), "{text}");
    assert!(text.contains(" 7b 22 65 76"), "{text}");
    let tombstone = shown(None, Answer::Absent).to_string();
    assert!(tombstone.ends_with("none: a tombstone\n"), "{tombstone}");
}

#[test]
fn the_dump_shows_the_lines_around_a_byte() {
    let value: Vec<u8> = (0..=255).collect();
    let dump = super::dump(&value, Some(0x81));
    assert_eq!(dump.lines().count(), 9);
    assert!(dump.starts_with("  000040 "), "{dump}");
    assert!(dump.contains("  000080  80[81]82 83 84"), "{dump}");
    assert!(super::dump(b"0123456789abcdef!", Some(16)).contains("  000010 [21]"));
    assert!(super::dump(b"ab", Some(2)).ends_with("the value ends before that byte\n"));
    assert!(super::dump(b"ab", None).contains(" 61 62 "));
}

#[test]
fn the_page_shows_what_is_printed() {
    let value = bad("enum_index_too_large");
    let answer = Answer::Schema(ORDER_EVENT_V1.to_owned());
    let (_, why) = shown(Some(&value), answer.clone())
        .now
        .unwrap_err()
        .split_once(": ")
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    let letter = Letter {
        written_ms: 1_795_414_604_123,
        source: Some(Place { topic: "orders".into(), partition: 3, offset: 1234 }),
        source_timestamp_ms: Some(1_795_414_604_000),
        reason: "bad_enum_index".into(),
        error: why,
        version: "0.1.0".into(),
        key: Some(b"0b9d6a1e-5c1f-4f3a-9a57-3f6d2c8e7b10".to_vec()),
        value: Some(value),
        ..Letter::default()
    };
    let schemas = (ORDER_EVENT_V1.to_owned(), Some((golden::SCHEMA_ID, answer)));
    let place = Place { topic: "orders.dead".into(), partition: 0, offset: 15 };
    let printed = judge(Ok(schemas), None, DecodeLimits::default(), place, letter).to_string();
    assert!(PAGE.contains(&format!("```text\n{printed}```")), "{printed}");
}
