//! The Confluent wire format: one zero byte, a big-endian schema id, an Avro datum.

use crate::reason::{Reason, Rejection};

/// Length of the header in bytes.
pub const HEADER_LEN: usize = 5;

/// Splits a record's value into the writer's schema id and the Avro datum.
///
/// # Errors
/// [`Reason::EmptyValue`], [`Reason::BadMagic`] or [`Reason::TruncatedHeader`].
pub fn split(value: Option<&[u8]>) -> Result<(u32, &[u8]), Rejection> {
    let value = value.unwrap_or_default();
    match value {
        [] => {
            Err(Rejection::new(Reason::EmptyValue, "the record has no value; expected a Confluent-framed Avro datum"))
        }
        [0, a, b, c, d, datum @ ..] => Ok((u32::from_be_bytes([*a, *b, *c, *d]), datum)),
        [0, ..] => Err(Rejection::new(
            Reason::TruncatedHeader,
            format!("the value has {} bytes; the header alone has {HEADER_LEN}", value.len()),
        )),
        [magic, ..] => Err(Rejection::new(
            Reason::BadMagic,
            format!("the value starts with byte {magic:#04x}; expected 0x00, the Confluent magic"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_framed_datum_splits_into_id_and_body() {
        assert_eq!(split(Some(&[0, 0, 0, 1, 2, 9, 8])), Ok((258, &[9u8, 8][..])));
        assert_eq!(split(Some(&[0, 0, 0, 0, 7])), Ok((7, &[][..])));
    }

    #[test]
    fn each_way_of_not_being_framed_has_its_reason() {
        for (value, reason) in [
            (None, Reason::EmptyValue),
            (Some(&[][..]), Reason::EmptyValue),
            (Some(&[1, 0, 0, 0, 1][..]), Reason::BadMagic),
            (Some(&[0][..]), Reason::TruncatedHeader),
            (Some(&[0, 0, 0, 1][..]), Reason::TruncatedHeader),
        ] {
            assert_eq!(split(value).map_err(|r| r.reason), Err(reason), "{value:?}");
        }
    }
}
