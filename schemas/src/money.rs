//! Money with two decimal places, as exact cents. It never passes through floating point.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An amount in hundredths: `Decimal2(1999)` is 19.99.
///
/// In Avro it is `bytes` with logical type `decimal(18, 2)`: big-endian two's complement of minimal length.
/// In human-readable formats it is a string such as `"19.99"`; a JSON integer is read as whole units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Decimal2(pub i64);

impl Decimal2 {
    /// Index of the first byte of the big-endian form that is needed to keep the sign.
    pub(crate) fn first_byte(self) -> usize {
        // A leading byte may go while the sign bit of the rest still says the same.
        let sign_bits = if self.0 < 0 { self.0.leading_ones() } else { self.0.leading_zeros() };
        (sign_bits as usize - 1) / 8
    }

    /// Reads the Avro form; `None` when it is empty or does not fit 64 bits.
    pub fn from_avro_bytes(bytes: &[u8]) -> Option<Self> {
        let negative = *bytes.first()? >= 0x80;
        let sign = if negative { 0xff } else { 0 };
        // A writer may pad: longer than 8 bytes is fine as long as the padding is only sign.
        let (padding, digits) = bytes.split_at(bytes.len().saturating_sub(8));
        let start = if negative { -1_i64 } else { 0 };
        let value = digits.iter().fold(start, |value, &byte| (value << 8) | i64::from(byte));
        let fits = padding.iter().all(|&byte| byte == sign) && (value < 0) == negative;
        fits.then_some(Self(value))
    }
}

impl fmt::Display for Decimal2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let cents = self.0.unsigned_abs();
        write!(f, "{sign}{}.{:02}", cents / 100, cents % 100)
    }
}

/// Why a text is not an amount with two decimal places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotMoney;

impl fmt::Display for NotMoney {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected an amount with at most two decimal places, such as \"19.99\"")
    }
}

impl std::error::Error for NotMoney {}

impl FromStr for Decimal2 {
    type Err = NotMoney;

    fn from_str(text: &str) -> Result<Self, NotMoney> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
        let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !all_digits(whole) || !all_digits(fraction) || fraction.len() > 2 {
            return Err(NotMoney);
        }
        let mut cents: i64 = fraction.parse().map_err(|_| NotMoney)?;
        if fraction.len() == 1 {
            cents *= 10;
        }
        let whole: i64 = whole.parse().map_err(|_| NotMoney)?;
        let value = whole.checked_mul(100).and_then(|v| v.checked_add(cents)).ok_or(NotMoney)?;
        Ok(Self(if negative { -value } else { value }))
    }
}

impl Serialize for Decimal2 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serializer.serialize_bytes(&self.0.to_be_bytes()[self.first_byte()..])
        }
    }
}

impl<'de> Deserialize<'de> for Decimal2 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            deserializer.deserialize_any(MoneyVisitor)
        } else {
            deserializer.deserialize_bytes(MoneyVisitor)
        }
    }
}

struct MoneyVisitor;

impl Visitor<'_> for MoneyVisitor {
    type Value = Decimal2;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an amount with two decimal places, such as \"19.99\"")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Decimal2, E> {
        Decimal2::from_avro_bytes(bytes).ok_or_else(|| E::custom("decimal is empty or does not fit 64 bits"))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Decimal2, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, whole: i64) -> Result<Decimal2, E> {
        whole.checked_mul(100).map(Decimal2).ok_or_else(|| E::custom(NotMoney))
    }

    fn visit_u64<E: de::Error>(self, whole: u64) -> Result<Decimal2, E> {
        i64::try_from(whole).map_err(E::custom).and_then(|whole| self.visit_i64(whole))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_the_shortest_twos_complement_and_read_back() {
        for (cents, expected) in [
            (0, vec![0x00]),
            (127, vec![0x7f]),
            (128, vec![0x00, 0x80]),
            (-1, vec![0xff]),
            (-128, vec![0x80]),
            (-129, vec![0xff, 0x7f]),
            (i64::MAX, i64::MAX.to_be_bytes().to_vec()),
            (i64::MIN, i64::MIN.to_be_bytes().to_vec()),
        ] {
            let money = Decimal2(cents);
            assert_eq!(cents.to_be_bytes()[money.first_byte()..], expected, "{cents}");
            assert_eq!(Decimal2::from_avro_bytes(&expected), Some(money));
            let padding = if cents < 0 { 0xff } else { 0x00 };
            let padded = [vec![padding; 9], expected].concat();
            assert_eq!(Decimal2::from_avro_bytes(&padded), Some(money));
        }
    }

    #[test]
    fn bytes_that_do_not_fit_are_refused() {
        let too_large = [[0x01].as_slice(), &[0; 8]].concat();
        let sign_lost = [[0x00].as_slice(), &[0x80; 8]].concat();
        for bytes in [[].as_slice(), &too_large, &sign_lost] {
            assert_eq!(Decimal2::from_avro_bytes(bytes), None);
        }
    }

    #[test]
    fn text_is_exact_in_both_directions() {
        for (text, cents) in [("0.00", 0), ("19.99", 1999), ("-0.01", -1), ("-12.30", -1230)] {
            assert_eq!(text.parse(), Ok(Decimal2(cents)));
            assert_eq!(Decimal2(cents).to_string(), text);
        }
        assert_eq!("7.5".parse(), Ok(Decimal2(750)));
        for text in ["", "-", ".5", "1.", "1.234", "1e3", "+1.00", "1.-5", "99999999999999999999"] {
            assert_eq!(text.parse::<Decimal2>(), Err(NotMoney), "{text}");
        }
    }
}
