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
    fn first_byte(self) -> usize {
        // A leading byte may go while the sign bit of the rest still says the same.
        let sign_bits = if self.0 < 0 {
            self.0.leading_ones()
        } else {
            self.0.leading_zeros()
        };
        (sign_bits as usize - 1) / 8
    }

    /// Reads the Avro form; `None` when it is empty or does not fit 64 bits.
    pub fn from_avro_bytes(bytes: &[u8]) -> Option<Self> {
        let (first, rest) = bytes.split_first()?;
        let fill = if *first >= 0x80 { 0xff } else { 0 };
        let extra = bytes.len().saturating_sub(8);
        let kept = &bytes[extra..];
        // A writer may pad: longer is fine as long as what is cut off is only sign.
        if bytes[..extra].iter().any(|&b| b != fill)
            || (extra > 0 && (kept[0] >= 0x80) != (fill == 0xff))
        {
            return None;
        }
        let mut value = if fill == 0xff { -1_i64 } else { 0 };
        let kept = if extra > 0 { kept } else { std::slice::from_ref(first) };
        for &byte in kept.iter().chain(if extra > 0 { &[] } else { rest }) {
            value = (value << 8) | i64::from(byte);
        }
        Some(Self(value))
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
        let value = whole
            .checked_mul(100)
            .and_then(|v| v.checked_add(cents))
            .ok_or(NotMoney)?;
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
        Decimal2::from_avro_bytes(bytes)
            .ok_or_else(|| E::custom("decimal is empty or does not fit 64 bits"))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Decimal2, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, whole: i64) -> Result<Decimal2, E> {
        whole
            .checked_mul(100)
            .map(Decimal2)
            .ok_or_else(|| E::custom(NotMoney))
    }

    fn visit_u64<E: de::Error>(self, whole: u64) -> Result<Decimal2, E> {
        i64::try_from(whole)
            .map_err(E::custom)
            .and_then(|whole| self.visit_i64(whole))
    }
}
