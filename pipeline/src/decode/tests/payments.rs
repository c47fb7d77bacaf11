//! The golden payments: a map, and a union of several records.

use arrow_array::{MapArray, types::Decimal128Type};
use millrace_schemas::{Instrument, PAYMENT_V1};

use super::*;
use crate::field::Extract;

fn payments() -> Decoder {
    let mut decoder = Decoder::new(PAYMENT_V1, DecodeLimits::default()).unwrap();
    decoder.learn(golden::SCHEMA_ID, PAYMENT_V1);
    decoder
}

#[test]
fn every_bad_golden_payment_is_rejected_with_its_reason() {
    let mut decoder = payments();
    for bad in golden::bad_payments() {
        let decoded = decoder.decode(&[record(0, &bad.bytes)]);
        let reasons: Vec<&str> = decoded.rejected.iter().map(|(_, rejection)| rejection.reason.code()).collect();
        assert_eq!((decoded.rows.num_rows(), reasons), (0, vec![bad.reason]), "{}", bad.name);
    }
}

#[test]
fn good_golden_payments_among_bad_ones_become_columns_of_which_one_branch_is_set() {
    let (good, bad) = (golden::good_payments(), golden::bad_payments());
    let mixed: Vec<&[u8]> =
        bad.iter().zip(good.iter().cycle()).flat_map(|(bad, good)| [&good.bytes[..], &bad.bytes[..]]).collect();
    let records: Vec<Record<'_>> = (0..).zip(&mixed).map(|(at, value)| record(at, value)).collect();
    let rows = payments().decode(&records).rows;
    assert_eq!(rows.num_rows(), bad.len());
    let column = |path: &str| Extract::resolve(&path.parse().unwrap(), rows.schema_ref()).unwrap().from(&rows).unwrap();
    let texts = |path: &str| -> Vec<Option<String>> {
        column(path).as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect()
    };
    let branches = ["card.network", "bank_transfer.bank", "wallet.provider", "wallet.account"]
        .map(|branch| texts(&format!("instrument.{branch}")));
    let amounts = column("amount");
    let attributes = column("attributes");
    let attributes: &MapArray = attributes.as_map();
    for (row, good) in good.iter().cycle().take(rows.num_rows()).enumerate() {
        let mut expected = [const { None }; 4];
        match good.event.instrument.clone() {
            None => {}
            Some(Instrument::Card { network, .. }) => expected[0] = Some(network),
            Some(Instrument::BankTransfer { bank, .. }) => expected[1] = Some(bank),
            Some(Instrument::Wallet { provider, account }) => (expected[2], expected[3]) = (Some(provider), account),
        }
        assert_eq!([0, 1, 2, 3].map(|branch: usize| branches[branch][row].clone()), expected, "{}", good.name);
        assert_eq!(amounts.as_primitive::<Decimal128Type>().value(row), i128::from(good.event.amount.0));
        let entries = attributes.value(row);
        let (keys, values) = (entries.column(0).as_string::<i32>(), entries.column(1).as_string::<i32>());
        let entries: Vec<(&str, &str)> = (0..entries.len()).map(|at| (keys.value(at), values.value(at))).collect();
        let expected: Vec<(&str, &str)> = good.event.attributes.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(entries, expected, "{}", good.name);
    }
}
