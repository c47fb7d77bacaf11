//! Golden examples of Kafka values of the topics `orders` and `payments`: good ones with what they read as, and bad ones
//! with the reason code that their dead letter must carry. They live as commented hex in `golden/`, those of payments in
//! `golden/payments/`; tests of every part use them.
//!
//! Where a bad value could be called by more than one name, these rules decide. A length or count that is negative
//! where it may not be, or a count of items larger than the bytes that remain (every item of ours takes at least one),
//! or the size of a block larger than the bytes that remain, is `bad_length`. A string or bytes longer than what remains is `truncated` up to a length of 1 MiB
//! and `bad_length` beyond. Running out of bytes inside a number is `truncated`.

use serde::de::DeserializeOwned;

use crate::{OrderEvent, OrderEventV2, Payment};

/// Schema id in the header of the examples. [`with_schema_id`] puts another in its place.
pub const SCHEMA_ID: u32 = 1;

/// Every reason code that a dead letter can carry.
pub const REASONS: &[&str] = &[
    "empty_value",
    "bad_magic",
    "truncated_header",
    "unknown_schema_id",
    "truncated",
    "trailing_bytes",
    "bad_length",
    "bad_utf8",
    "bad_enum_index",
    "bad_union_index",
    "bad_uuid",
    "bad_boolean",
    "bad_varint",
    "out_of_range",
    "too_large",
    "unreadable",
    "lookup_missed",
    "unexpected_record",
];

/// A value that must be read, and what it reads as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Good<E = OrderEvent> {
    /// Name of the files in `golden/good/`, `golden/v2/` or `golden/payments/good/`.
    pub name: &'static str,
    /// The Kafka value: header with [`SCHEMA_ID`], then the datum.
    pub bytes: Vec<u8>,
    /// What it reads as.
    pub event: E,
}

/// A value that must be refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad {
    /// Name of the file in `golden/bad/`.
    pub name: &'static str,
    /// The Kafka value; where it has a whole header, the schema id is [`SCHEMA_ID`] unless the id is what is wrong.
    pub bytes: Vec<u8>,
    /// Reason code of the dead letter, one of [`REASONS`].
    pub reason: &'static str,
}

macro_rules! files {
    ($folder:literal, $extension:literal, [$($name:literal),* $(,)?]) => {
        &[$(($name, include_str!(concat!("../golden/", $folder, "/", $name, ".", $extension)))),*]
    };
}

const GOOD_HEX: &[(&str, &str)] =
    files!("good", "hex", ["typical", "minimal", "wide", "negative_block_count", "several_blocks", "padded_decimal",]);
const GOOD_JSON: &[(&str, &str)] =
    files!("good", "json", ["typical", "minimal", "wide", "negative_block_count", "several_blocks", "padded_decimal",]);
const V2_HEX: &[(&str, &str)] = files!("v2", "hex", ["returned", "no_source"]);
const V2_JSON: &[(&str, &str)] = files!("v2", "json", ["returned", "no_source"]);
const BAD_HEX: &[(&str, &str)] = files!(
    "bad",
    "hex",
    [
        "empty_value",
        "one_byte",
        "half_schema_id",
        "header_only",
        "wrong_magic",
        "json_text",
        "unknown_schema_id",
        "truncated_in_event_id",
        "truncated_in_varint",
        "truncated_before_items",
        "truncated_in_item",
        "truncated_by_one",
        "string_longer_than_value",
        "trailing_byte",
        "two_events",
        "huge_string_length",
        "negative_string_length",
        "huge_decimal_length",
        "array_bomb",
        "array_bomb_negative",
        "array_count_minimum",
        "block_size_lies",
        "block_size_negative",
        "bad_utf8",
        "utf8_surrogate",
        "enum_index_too_large",
        "enum_index_negative",
        "union_index_too_large",
        "union_index_negative",
        "uuid_not_hex",
        "uuid_too_short",
        "uuid_empty",
        "varint_too_long",
        "int_out_of_range",
    ]
);

const GOOD_PAYMENTS_HEX: &[(&str, &str)] = files!(
    "payments/good",
    "hex",
    ["card", "bank_transfer", "wallet", "wallet_with_account", "cash", "several_blocks"]
);
const GOOD_PAYMENTS_JSON: &[(&str, &str)] = files!(
    "payments/good",
    "json",
    ["card", "bank_transfer", "wallet", "wallet_with_account", "cash", "several_blocks"]
);
const BAD_PAYMENTS_HEX: &[(&str, &str)] = files!(
    "payments/bad",
    "hex",
    [
        "amount_too_large",
        "branch_bad_utf8",
        "enum_index_too_large",
        "inner_union_index_too_large",
        "map_bomb",
        "map_key_bad_utf8",
        "map_key_longer_than_value",
        "map_key_negative_length",
        "map_value_bad_utf8",
        "occurred_in_the_year_3000",
        "payment_id_is_no_uuid",
        "trailing_byte",
        "truncated_before_map",
        "truncated_by_one",
        "truncated_in_branch",
        "union_index_negative",
        "union_index_too_large",
    ]
);

/// Values of version 1 that must be read.
pub fn good() -> Vec<Good> {
    read_good(GOOD_HEX, GOOD_JSON)
}

/// Values of version 2 that must be read.
pub fn good_v2() -> Vec<Good<OrderEventV2>> {
    read_good(V2_HEX, V2_JSON)
}

/// Values that must be refused.
pub fn bad() -> Vec<Bad> {
    read_bad(BAD_HEX)
}

/// Values of `payments` that must be read.
pub fn good_payments() -> Vec<Good<Payment>> {
    read_good(GOOD_PAYMENTS_HEX, GOOD_PAYMENTS_JSON)
}

/// Values of `payments` that must be refused.
pub fn bad_payments() -> Vec<Bad> {
    read_bad(BAD_PAYMENTS_HEX)
}

#[allow(clippy::expect_used, reason = "the files are part of this crate, and a test reads them all")]
fn read_good<E: DeserializeOwned>(
    hex: &[(&'static str, &'static str)],
    json: &[(&'static str, &'static str)],
) -> Vec<Good<E>> {
    hex.iter()
        .zip(json)
        .map(|(&(name, hex), &(_, json))| Good {
            name,
            bytes: read_hex(hex),
            event: serde_json::from_str(json).expect("golden JSON is an event of its topic"),
        })
        .collect()
}

#[allow(clippy::expect_used, reason = "the files are part of this crate, and a test reads them all")]
fn read_bad(hex: &[(&'static str, &'static str)]) -> Vec<Bad> {
    hex.iter()
        .map(|&(name, text)| Bad {
            name,
            bytes: read_hex(text),
            reason: text
                .lines()
                .find_map(|line| line.strip_prefix("# reason: "))
                .expect("golden file names its reason"),
        })
        .collect()
}

/// The value with another schema id in its header, for a registry that gave the schema another number.
/// Values whose header is cut short, wrong or names another id stay as they are.
pub fn with_schema_id(value: &[u8], schema_id: u32) -> Vec<u8> {
    let mut value = value.to_vec();
    if let [0, id @ ..] = value.as_mut_slice()
        && let Some(id) = id.first_chunk_mut::<4>()
        && *id == SCHEMA_ID.to_be_bytes()
    {
        *id = schema_id.to_be_bytes();
    }
    value
}

#[allow(clippy::expect_used, reason = "the files are part of this crate, and a test reads them all")]
fn read_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .lines()
        .filter_map(|line| line.split('#').next())
        .flat_map(str::chars)
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16).expect("golden file holds hex digits") as u8)
        .collect();
    assert!(digits.len().is_multiple_of(2), "golden file holds whole bytes");
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ORDER_EVENT_V1, ORDER_EVENT_V2};
    use apache_avro::Schema;
    use apache_avro::reader::datum::GenericDatumReader;

    fn read(value: &[u8]) -> Result<(OrderEvent, usize), apache_avro::Error> {
        let schema = Schema::parse_str(ORDER_EVENT_V1).unwrap();
        let mut datum = value.get(5..).unwrap_or_default();
        let event = GenericDatumReader::builder(&schema).build()?.read_deser(&mut datum)?;
        Ok((event, datum.len()))
    }

    #[test]
    fn good_examples_read_as_their_json_says() {
        for (good, (json_name, _)) in good().into_iter().zip(GOOD_JSON) {
            assert_eq!(&good.name, json_name);
            let (event, left) = read(&good.bytes).unwrap_or_else(|e| panic!("{}: {e}", good.name));
            assert_eq!((event, left), (good.event, 0), "{}", good.name);
        }
    }

    #[test]
    fn good_examples_of_version_2_read_as_their_json_says() {
        let schema = Schema::parse_str(ORDER_EVENT_V2).unwrap();
        for good in good_v2() {
            let mut datum = &good.bytes[5..];
            let reader = GenericDatumReader::builder(&schema).build().unwrap();
            let event: OrderEventV2 = reader.read_deser(&mut datum).unwrap();
            assert_eq!((&event, datum), (&good.event, &[][..]), "{}", good.name);
        }
    }

    #[test]
    fn bad_examples_are_wrong_in_the_header_or_cannot_be_read_whole() {
        for bad in bad() {
            let header_ok = bad.bytes.starts_with(&[0, 0, 0, 0, 1]);
            let whole = matches!(read(&bad.bytes), Ok((_, 0)));
            // apache-avro skips the size of a block unread, so it cannot see that it lies.
            let blind = bad.name.starts_with("block_size_");
            assert!(blind || !(header_ok && whole), "{} can be read", bad.name);
        }
        for bad in bad().into_iter().chain(bad_payments()) {
            assert!(REASONS.contains(&bad.reason), "{}: {}", bad.name, bad.reason);
        }
    }

    #[test]
    fn every_file_of_the_golden_folders_is_listed() {
        for (folder, listed) in [
            ("good", GOOD_HEX),
            ("v2", V2_HEX),
            ("bad", BAD_HEX),
            ("payments/good", GOOD_PAYMENTS_HEX),
            ("payments/bad", BAD_PAYMENTS_HEX),
        ] {
            let path = format!("{}/golden/{folder}", env!("CARGO_MANIFEST_DIR"));
            let on_disk = std::fs::read_dir(path)
                .unwrap()
                .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|e| e == "hex"));
            assert_eq!(on_disk.count(), listed.len(), "{folder}");
        }
    }

    #[test]
    fn another_schema_id_replaces_the_placeholder_and_nothing_else() {
        let typical = &good()[0].bytes;
        let moved = with_schema_id(typical, 0x0102_0304);
        assert_eq!(moved[..5], [0, 1, 2, 3, 4]);
        assert_eq!(moved[5..], typical[5..]);
        for bad in bad().iter().filter(|b| !b.bytes.starts_with(&[0, 0, 0, 0, 1])) {
            assert_eq!(with_schema_id(&bad.bytes, 77), bad.bytes, "{}", bad.name);
        }
    }
}
