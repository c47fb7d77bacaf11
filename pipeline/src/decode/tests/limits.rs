//! What a record may be and become: each limit at its edge, and claims that are larger than any.

use super::*;

const TEXT: &str = r#""string""#;
const TEXTS: &str = r#"{"type":"array","items":"string"}"#;
const NULLS: &str = r#"{"type":"array","items":"null"}"#;

fn long(number: i64) -> Vec<u8> {
    let mut raw = (number << 1 ^ number >> 63) as u64;
    let mut bytes = Vec::new();
    while raw >= 0x80 {
        bytes.push(raw as u8 | 0x80);
        raw >>= 7;
    }
    bytes.push(raw as u8);
    bytes
}

fn text(len: usize) -> Vec<u8> {
    [long(len as i64), vec![b'a'; len]].concat()
}

/// What becomes of each datum, as the only field of a record.
fn reasons(limits: DecodeLimits, writer: &str, reader: &str, datums: &[&[u8]]) -> Vec<Reason> {
    column_within(limits, writer, reader, datums).1
}

#[test]
fn a_message_may_be_as_long_as_the_limit() {
    let limits = DecodeLimits { max_message_bytes: 100, ..DecodeLimits::default() };
    // Header and length are the other seven bytes.
    let (texts, reasons) = column_within(limits, TEXT, TEXT, &[&text(93), &text(94)]);
    assert_eq!((texts.len(), reasons), (1, vec![Reason::TooLarge]));
}

#[test]
fn a_text_may_be_as_long_as_the_limit_wherever_it_stands() {
    let limits = DecodeLimits { max_text_bytes: 10, ..DecodeLimits::default() };
    let (allowed, too_long) = (text(10), text(11));
    for kind in [TEXT, r#""bytes""#] {
        assert_eq!(reasons(limits, kind, kind, &[&allowed, &too_long]), [Reason::TooLarge], "{kind}");
    }
    let map = r#"{"type":"map","values":"string"}"#;
    let entry = |key: &[u8], value: &[u8]| [&[2], key, value, &[0]].concat();
    let datums = [entry(&allowed, &allowed), entry(&too_long, &allowed), entry(&allowed, &too_long)];
    let datums = datums.each_ref().map(Vec::as_slice);
    assert_eq!(reasons(limits, map, map, &datums), [Reason::TooLarge; 2]);
    // Longer than what is left is another thing.
    assert_eq!(reasons(limits, TEXT, TEXT, &[&long(11)]), [Reason::Truncated]);
}

#[test]
fn what_is_passed_over_has_the_same_limits() {
    let limits = DecodeLimits { max_text_bytes: 10, max_items: 3, ..DecodeLimits::default() };
    let reader = r#"{"type":"record","name":"E","fields":[{"name":"x","type":"int","default":0}]}"#;
    let mut decoder = Decoder::new(reader, limits).unwrap();
    decoder.learn(1, &format!(r#"{{"type":"record","name":"E","fields":[{{"name":"gone","type":{TEXTS}}}]}}"#));
    let datum = |items: i64, len: usize| [vec![0, 0, 0, 0, 1], long(items), text(len).repeat(items as usize), vec![0]];
    let values = [datum(3, 10), datum(3, 11), datum(4, 10)].map(|parts| parts.concat());
    let records: Vec<Record<'_>> = values.iter().map(|value| record(0, value)).collect();
    let decoded = decoder.decode(&records);
    assert_eq!(decoded.origin, [0]);
    assert!(decoded.rejected.iter().all(|(_, it)| it.reason == Reason::TooLarge), "{:?}", decoded.rejected);
    assert!(decoded.rejected[0].1.detail.contains("max_text_bytes"), "{:?}", decoded.rejected);
    assert!(decoded.rejected[1].1.detail.contains("max_items"), "{:?}", decoded.rejected);
}

#[test]
fn items_are_counted_over_all_arrays_and_maps_of_a_record() {
    let limits = DecodeLimits { max_items: 6, ..DecodeLimits::default() };
    let list = r#"{"type":"array","items":{"type":"map","values":"int"}}"#;
    let map = |entries: u8| [[2, 2, b'k', 0].repeat(entries.into()), vec![0]].concat();
    let maps = |entries: &[u8]| {
        let maps: Vec<u8> = entries.iter().flat_map(|entries| map(*entries)).collect();
        [vec![2 * entries.len() as u8], maps, vec![0]].concat()
    };
    assert_eq!(reasons(limits, list, list, &[&maps(&[2, 2]), &maps(&[2, 3]), &maps(&[0; 6])]), [Reason::TooLarge]);
    // In two blocks as in one, and by a negative count as by a positive one.
    assert_eq!(reasons(limits, NULLS, NULLS, &[&[12, 0], &[6, 6, 0], &[11, 0, 0]]), []);
    assert_eq!(reasons(limits, NULLS, NULLS, &[&[14, 0], &[6, 8, 0], &[13, 0, 0]]), [Reason::TooLarge; 3]);
}

#[test]
fn a_schema_may_nest_as_deep_as_the_limit() {
    let nested = |depth: usize| {
        let list = (0..depth).fold("\"int\"".to_owned(), |inner, _| format!(r#"{{"type":"array","items":{inner}}}"#));
        format!(r#"{{"type":"record","name":"E","fields":[{{"name":"f","type":{list}}}]}}"#)
    };
    // The record and the number are a level each.
    for max_depth in [4, 64] {
        let limits = DecodeLimits { max_depth, ..DecodeLimits::default() };
        let error = Decoder::new(&nested(max_depth - 1), limits).unwrap_err().to_string();
        assert!(error.contains(&format!("deeper than {max_depth} levels")), "{error}");
        let mut decoder = Decoder::new(&nested(max_depth - 2), limits).unwrap();
        decoder.learn(1, &nested(max_depth - 2));
        decoder.learn(2, &nested(max_depth - 1));
        let value = |id: u8, depth: usize| [&[0, 0, 0, 0, id][..], &vec![2; depth], &[14], &vec![0; depth]].concat();
        let values = [value(1, max_depth - 2), value(2, max_depth - 1)];
        let decoded = decoder.decode(&[record(0, &values[0]), record(1, &values[1])]);
        assert_eq!(decoded.origin, [0]);
        assert_eq!(decoded.rejected[0].1.reason, Reason::Unreadable);
    }
}

#[test]
fn a_record_may_grow_as_much_as_the_limit() {
    const GROWTH: usize = 3;
    let limits = DecodeLimits { max_growth: GROWTH, ..DecodeLimits::default() };
    let wide = r#"{"type":"array","items":["null",{"type":"fixed","name":"F","size":999}]}"#;
    let nulls = |nulls: usize| [long(nulls as i64), vec![0; nulls], vec![0]].concat();
    // Each null takes 999 bytes and the one that says so; the list itself takes four.
    let room = |datum: &[u8]| (64 << 10) + GROWTH * (datum.len() + 5) - 4;
    let most = (0..).find(|items| room(&nulls(*items)) < items * 1000).unwrap() - 1;
    assert!(most > 60, "{most}");
    assert_eq!(reasons(limits, wide, wide, &[&nulls(most), &nulls(most + 1)]), [Reason::TooLarge]);
}

#[test]
fn a_row_may_be_as_wide_as_the_limit_whatever_it_is_written_in() {
    let limits = DecodeLimits { max_growth: 1, ..DecodeLimits::default() };
    let fixed = |size: usize| format!(r#"["null",{{"type":"fixed","name":"F","size":{size}}}]"#);
    // Header and index of the branch are six bytes; a null takes one more.
    let widest = (64 << 10) + 6 - 1;
    assert_eq!(reasons(limits, &fixed(widest), &fixed(widest), &[&[0]]), []);
    assert_eq!(reasons(limits, &fixed(widest + 1), &fixed(widest + 1), &[&[0]]), [Reason::TooLarge]);
}

#[test]
fn defaults_of_the_reader_count_toward_the_growth_of_a_record() {
    let list =
        |fields: &str| format!(r#"{{"type":"array","items":{{"type":"record","name":"R","fields":[{fields}]}}}}"#);
    let text = "d".repeat(1000);
    let texts = format!(r#"["{text}","{text}"]"#);
    for field in [
        format!(r#"{{"name":"a","type":"string","default":"{text}"}}"#),
        format!(r#"{{"name":"a","type":{TEXTS},"default":{texts}}}"#),
    ] {
        let claim = |items: i64| [long(items), vec![0]].concat();
        let (few, many) = (claim(20), claim(100));
        let reasons = reasons(DecodeLimits::default(), &list(""), &list(&field), &[&few, &many]);
        assert_eq!(reasons, [Reason::TooLarge], "{}", &field[..40]);
    }
}

#[test]
fn claims_beyond_all_measure_neither_allocate_nor_loop() {
    let endless = |count: i64| [long(count), vec![0]].concat();
    let sized = |count: i64, size: i64| [long(count), long(size), vec![0]].concat();
    let datums = [
        endless(1 << 60),
        endless(i64::MAX),
        sized(i64::MIN, 0),
        sized(i64::MIN, i64::MAX),
        sized(-(1 << 60), i64::MIN),
        endless(70_000),
    ];
    let datums: Vec<&[u8]> = datums.iter().map(Vec::as_slice).collect();
    assert_eq!(reasons(DecodeLimits::default(), NULLS, NULLS, &datums), [Reason::TooLarge; 6]);
    let numbers = r#"{"type":"array","items":"int"}"#;
    assert_eq!(reasons(DecodeLimits::default(), numbers, numbers, &datums), [Reason::BadLength; 6]);
    for lie in [1, -1, i64::MAX, i64::MIN] {
        let block = [long(-1), long(lie), vec![4, 0, 0]].concat();
        let expected = if lie == 1 { vec![] } else { vec![Reason::BadLength] };
        let block = if lie == 1 { &block[..4] } else { &block };
        assert_eq!(reasons(DecodeLimits::default(), numbers, numbers, &[block]), expected, "a block of {lie} bytes");
    }
    for len in [1 << 20 | 1, 1 << 40, i64::MAX, -1, i64::MIN] {
        assert_eq!(reasons(DecodeLimits::default(), TEXT, TEXT, &[&long(len)]), [Reason::BadLength], "{len}");
    }
}

#[test]
fn a_type_of_any_size_that_a_writer_claims_is_only_a_number() {
    let reader = r#"{"type":"record","name":"E","fields":[{"name":"x","type":"int","default":0}]}"#;
    let fixed = r#"{"type":"fixed","name":"F","size":18446744073709551615}"#;
    for kind in [
        fixed.to_owned(),
        format!(r#"{{"type":"array","items":[{fixed}]}}"#),
        format!(r#"{{"type":"map","values":{fixed}}}"#),
        format!(r#"{{"type":"map","values":["null",{fixed}]}}"#),
    ] {
        let mut decoder = Decoder::new(reader, DecodeLimits::default()).unwrap();
        decoder.learn(1, &format!(r#"{{"type":"record","name":"E","fields":[{{"name":"gone","type":{kind}}}]}}"#));
        let decoded = decoder.decode(&[record(0, &[0, 0, 0, 0, 1, 2, 2, b'k', 2, 0])]);
        assert_eq!(decoded.rejected.len(), 1, "{kind}");
    }
}

#[test]
fn records_of_nothing_are_passed_over_without_a_step_for_each_field() {
    let nothing: Vec<String> = (0..1000).map(|at| format!(r#"{{"name":"n{at}","type":"null"}}"#)).collect();
    let writer = format!(
        r#"{{"type":"record","name":"E","fields":[{{"name":"gone","type":{{"type":"array","items":
           {{"type":"record","name":"N","fields":[{}]}}}}}}]}}"#,
        nothing.join(",")
    );
    let writer = names::parse(&writer).unwrap();
    let node = skip::Node::compile(&writer, &Names::of(&writer, 64), &Path::default()).unwrap();
    assert!(format!("{node:?}").len() < 200, "{node:?}");
}

#[test]
fn an_id_that_no_registry_gives_needs_no_question() {
    let mut decoder = orders();
    assert!(!decoder.knows(i32::MAX as u32) && decoder.knows(1 << 31) && decoder.knows(u32::MAX));
    let decoded = decoder.decode(&[record(0, &[0, 0x80, 0, 0, 0, 2])]);
    let (_, rejection) = &decoded.rejected[0];
    assert_eq!(rejection.reason, Reason::UnknownSchemaId);
    assert!(rejection.detail.contains("2147483648 is larger than any"), "{rejection}");
}

#[test]
fn ids_that_do_not_exist_are_not_remembered_without_end() {
    let mut decoder = orders();
    let mut named = 0;
    while decoder.writers.len() <= MAX_ABSENT {
        named += 1;
        decoder.learn_absent(1000 + named);
    }
    decoder.learn_absent(0);
    assert!(decoder.knows(0) && decoder.knows(golden::SCHEMA_ID), "what is asked for now, and what is there");
    assert_eq!(decoder.writers.len(), 2);
    let decoded = decoder.decode(&[record(0, &[0, 0, 0, 0, 0])]);
    assert_eq!(decoded.rejected[0].1.reason, Reason::UnknownSchemaId);
}
