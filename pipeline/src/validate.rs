//! Walks an Avro datum by its writer's schema before anything is built from it.
//!
//! The columnar decoder appends as it reads: a datum that breaks half-way leaves half a row behind, and some faults
//! (an enum index out of range, bad UTF-8) only show when the columns are closed. So every datum is walked first:
//! what passes is decoded, what fails is a dead letter with the byte at which it broke, and a batch costs the same
//! whatever share of it is poison. It allocates nothing on the way, whatever lengths the datum claims.

mod plan;

use plan::Node;
pub use plan::{Plan, PlanError};

use crate::reason::{Reason, Rejection};

/// Longest string or bytes value that is taken for a cut-off one rather than for a nonsense length, in bytes.
const PLAUSIBLE_LEN: u64 = 1 << 20;

/// 1900-01-01 and 2300-01-01 in days since 1970: the range of ClickHouse's `Date32` and `DateTime64`.
const DAYS: std::ops::Range<i64> = -25_567..120_530;
const DAY_MS: i64 = 86_400_000;

impl Plan {
    /// Checks that `datum` is exactly one value of the schema.
    ///
    /// # Errors
    /// What is wrong, and at which byte of the datum.
    pub fn validate(&self, datum: &[u8]) -> Result<(), Rejection> {
        let mut walk = Walk { rest: datum, items_left: self.max_items };
        let found = walk.value(&self.root);
        let at = datum.len() - walk.rest.len();
        match found {
            Ok(()) if walk.rest.is_empty() => Ok(()),
            Ok(()) => Err(Rejection::new(
                Reason::TrailingBytes,
                format!("{} bytes are left after the datum, which ends at byte {at}", walk.rest.len()),
            )),
            Err(reason) => Err(Rejection::new(
                reason,
                format!("the datum of {} bytes breaks at byte {at}: {}", datum.len(), explain(reason)),
            )),
        }
    }
}

fn explain(reason: Reason) -> &'static str {
    match reason {
        Reason::Truncated => "it ends in the middle of a value",
        Reason::BadLength => "a length or count is negative or larger than what is left",
        Reason::BadUtf8 => "a string is not UTF-8",
        Reason::BadEnumIndex => "the enum index names no symbol of the writer's schema",
        Reason::BadUnionIndex => "the union index names no branch of the writer's schema",
        Reason::BadUuid => "expected a UUID",
        Reason::BadBoolean => "expected 0 or 1 for a boolean",
        Reason::BadVarint => "a variable-length integer does not fit its type",
        Reason::OutOfRange => "a decimal, date or timestamp is beyond its precision or beyond the years 1900 to 2299",
        _ => "it does not follow the writer's schema",
    }
}

type Step<T = ()> = Result<T, Reason>;

struct Walk<'a> {
    rest: &'a [u8],
    /// Zero-sized items cost no bytes, so their number needs a bound of its own.
    items_left: u64,
}

impl<'a> Walk<'a> {
    fn value(&mut self, node: &Node) -> Step {
        match node {
            Node::Null => Ok(()),
            Node::Boolean => match self.take(1)? {
                [0 | 1] => Ok(()),
                _ => Err(Reason::BadBoolean),
            },
            Node::Int => self.int().map(drop),
            Node::Long => self.long().map(drop),
            Node::Date => in_range(i64::from(self.int()?), 1),
            Node::Timestamp { per_day } => {
                let value = self.long()?;
                in_range(value, *per_day)
            }
            Node::Skip(len) => self.take(*len).map(drop),
            Node::Bytes => self.bytes().map(drop),
            Node::String => self.string().map(drop),
            Node::UuidString => {
                let text = self.bytes()?;
                if is_uuid(text) { Ok(()) } else { Err(Reason::BadUuid) }
            }
            Node::UuidBytes => {
                if self.bytes()?.len() == 16 {
                    Ok(())
                } else {
                    Err(Reason::BadUuid)
                }
            }
            Node::DecimalBytes { limit } => {
                let unscaled = self.bytes()?;
                decimal_fits(unscaled, *limit)
            }
            Node::DecimalFixed { len, limit } => {
                let unscaled = self.take(*len)?;
                decimal_fits(unscaled, *limit)
            }
            Node::Enum(symbols) => {
                let index = self.int()?;
                if (0..*symbols).contains(&index) { Ok(()) } else { Err(Reason::BadEnumIndex) }
            }
            Node::Union(branches) => {
                let index = self.long()?;
                let branch = usize::try_from(index).ok().and_then(|index| branches.get(index));
                self.value(branch.ok_or(Reason::BadUnionIndex)?)
            }
            Node::Record(fields) => fields.iter().try_for_each(|field| self.value(field)),
            Node::Array { item, item_min } => self.blocks(*item_min, |walk| walk.value(item)),
            Node::Map { value, value_min } => self.blocks(1 + *value_min, |walk| {
                walk.string()?;
                walk.value(value)
            }),
        }
    }

    /// Blocks of items, each with a count; a negative count is followed by the block's size in bytes.
    fn blocks(&mut self, item_min: usize, mut item: impl FnMut(&mut Self) -> Step) -> Step {
        loop {
            let before = self.rest;
            let count = self.long()?;
            if count == 0 {
                return Ok(());
            }
            let size = if count < 0 { Some(self.long()?) } else { None };
            let count = count.unsigned_abs();
            let bytes_needed = count.saturating_mul(item_min as u64);
            if bytes_needed > self.rest.len() as u64 || count > self.items_left {
                self.rest = before;
                return Err(Reason::BadLength);
            }
            self.items_left -= count;
            let start = self.rest.len();
            for _ in 0..count {
                item(self)?;
            }
            let read = (start - self.rest.len()) as i64;
            if size.is_some_and(|size| size != read) {
                return Err(Reason::BadLength);
            }
        }
    }

    fn string(&mut self) -> Step<&'a [u8]> {
        let before = self.rest;
        let text = self.bytes()?;
        if std::str::from_utf8(text).is_err() {
            self.rest = before;
            return Err(Reason::BadUtf8);
        }
        Ok(text)
    }

    fn bytes(&mut self) -> Step<&'a [u8]> {
        let before = self.rest;
        let len = self.long()?;
        match usize::try_from(len) {
            Ok(len) if len <= self.rest.len() => self.take(len),
            Ok(len) if len as u64 <= PLAUSIBLE_LEN => Err(Reason::Truncated),
            _ => {
                self.rest = before;
                Err(Reason::BadLength)
            }
        }
    }

    fn take(&mut self, len: usize) -> Step<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Reason::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn int(&mut self) -> Step<i32> {
        let before = self.rest;
        let value = self.long()?;
        i32::try_from(value).map_err(|_| {
            self.rest = before;
            Reason::BadVarint
        })
    }

    #[inline]
    fn long(&mut self) -> Step<i64> {
        if let [byte @ 0..0x80, rest @ ..] = self.rest {
            self.rest = rest;
            let raw = u64::from(*byte);
            return Ok(unzigzag(raw));
        }
        let mut raw = 0u64;
        for (at, byte) in self.rest.iter().enumerate().take(10) {
            let bits = u64::from(byte & 0x7f);
            if at == 9 && bits > 1 {
                break;
            }
            raw |= bits << (7 * at);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[at + 1..];
                return Ok(unzigzag(raw));
            }
        }
        Err(if self.rest.len() < 10 { Reason::Truncated } else { Reason::BadVarint })
    }
}

fn unzigzag(raw: u64) -> i64 {
    (raw >> 1) as i64 ^ -((raw & 1) as i64)
}

fn in_range(value: i64, per_day: i64) -> Step {
    // DateTime64 with nanoseconds ends in 2262, where i64 does: saturation keeps the comparison right.
    let range = DAYS.start.saturating_mul(per_day)..DAYS.end.saturating_mul(per_day);
    if range.contains(&value) { Ok(()) } else { Err(Reason::OutOfRange) }
}

/// Whether a big-endian two's-complement number is within ±`limit` (exclusive).
fn decimal_fits(unscaled: &[u8], limit: u128) -> Step {
    if unscaled.is_empty() || unscaled.len() > 16 {
        return Err(Reason::BadLength);
    }
    let sign = if unscaled[0] & 0x80 == 0 { 0 } else { 0xff };
    let mut wide = [sign; 16];
    wide[16 - unscaled.len()..].copy_from_slice(unscaled);
    if i128::from_be_bytes(wide).unsigned_abs() < limit { Ok(()) } else { Err(Reason::OutOfRange) }
}

/// Whether these are the 36 characters of a hyphenated UUID, in either case.
fn is_uuid(text: &[u8]) -> bool {
    text.len() == 36
        && text.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

#[cfg(test)]
mod tests;
