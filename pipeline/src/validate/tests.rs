use millrace_schemas::{ORDER_EVENT_V1, golden};
use proptest::prelude::*;

use super::*;
use crate::{decode::Decoder, record::Record, wire};

fn order_plan() -> Plan {
    Plan::compile(ORDER_EVENT_V1, 1 << 20).unwrap()
}

#[test]
fn every_good_golden_datum_passes() {
    let plan = order_plan();
    for good in golden::good() {
        let (_, datum) = wire::split(Some(&good.bytes)).unwrap();
        assert_eq!(plan.validate(datum), Ok(()), "{}", good.name);
    }
}

#[test]
fn a_zero_sized_item_cannot_be_claimed_without_end() {
    let plan = Plan::compile(r#"{"type":"array","items":"null"}"#, 1000).unwrap();
    assert_eq!(plan.validate(&[0xd0, 0x0f, 0]), Ok(()), "1000 nulls");
    assert_eq!(plan.validate(&[0xd2, 0x0f, 0]).map_err(|r| r.reason), Err(Reason::BadLength), "1001 nulls");
}

#[test]
fn a_decimal_beyond_its_precision_and_a_date_beyond_the_calendar_are_out_of_range() {
    let decimal = r#"{"type":"bytes","logicalType":"decimal","precision":4,"scale":2}"#;
    let plan = Plan::compile(decimal, 10).unwrap();
    assert_eq!(plan.validate(&[4, 0x27, 0x0f]), Ok(()), "99.99");
    assert_eq!(plan.validate(&[4, 0xd8, 0xf1]), Ok(()), "-99.99");
    assert_eq!(plan.validate(&[4, 0x27, 0x10]).map_err(|r| r.reason), Err(Reason::OutOfRange), "100.00");
    let plan = Plan::compile(r#"{"type":"long","logicalType":"timestamp-millis"}"#, 10).unwrap();
    assert_eq!(plan.validate(&[0]), Ok(()));
    let far = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    assert_eq!(plan.validate(&far).map_err(|r| r.reason), Err(Reason::OutOfRange));
}

#[test]
fn a_recursive_schema_is_refused() {
    let list = r#"{"type":"record","name":"L","fields":[{"name":"next","type":["null","L"]}]}"#;
    assert!(matches!(Plan::compile(list, 10), Err(PlanError::UnknownName(name)) if name == "L"));
}

#[test]
fn a_rejection_names_the_byte_where_the_datum_broke() {
    let plan = Plan::compile(r#"{"type":"array","items":"string"}"#, 10).unwrap();
    let rejection = plan.validate(&[2, 4, 0xff, 0xfe, 0]).unwrap_err();
    assert_eq!(rejection.reason, Reason::BadUtf8);
    assert!(rejection.detail.contains("byte 1"), "{rejection}");
}

proptest! {
    #[test]
    fn what_passes_the_walk_is_decoded_and_what_fails_is_rejected(
        golden in 0usize..golden::good().len(),
        flips in prop::collection::vec((0usize..400, any::<u8>()), 0..4),
        cut in prop::option::of(0usize..400),
    ) {
        let mut bytes = golden::good()[golden].bytes.clone();
        for (at, byte) in flips {
            if let Some(place) = bytes.get_mut(5 + at) { *place = byte; }
        }
        if let Some(cut) = cut { bytes.truncate(5.max(bytes.len().min(cut))); }
        let valid = order_plan().validate(&bytes[5..]);
        let mut decoder = Decoder::new(ORDER_EVENT_V1, Default::default()).unwrap();
        decoder.learn(1, ORDER_EVENT_V1);
        let record = Record { partition: 0, offset: 0, timestamp_ms: 0, value: Some(&bytes) };
        let decoded = decoder.decode(&[record]);
        prop_assert_eq!(decoded.rows.num_rows(), usize::from(valid.is_ok()));
        prop_assert_eq!(decoded.rejected.first().map(|(_, r)| r.clone()), valid.err());
    }
}
