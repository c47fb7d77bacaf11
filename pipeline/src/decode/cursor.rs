//! Reads the pieces of an Avro datum, and checks each as it is read. It allocates nothing, whatever lengths the datum
//! claims; after an error it stands where the piece at fault begins, as near as that can be told.

use super::{DecodeLimits, skip::Node};
use crate::reason::Reason;

/// Why a datum is refused that has no room left.
pub(super) const TOO_MUCH_GROWTH: &str = "in columns it would take more memory than topics.limits.max_growth allows";

/// Longest string or bytes value that is taken for a cut-off one rather than for a nonsense length, in bytes.
const PLAUSIBLE_LEN: u64 = 1 << 20;

/// 1900-01-01 and 2300-01-01 in days since 1970: the range of ClickHouse's `Date32` and `DateTime64`.
const DAYS: std::ops::Range<i64> = -25_567..120_530;
pub(super) const DAY_MS: i64 = 86_400_000;

/// What a step of the walk comes to.
pub(super) type Step<T = ()> = Result<T, Reason>;

/// A place in a datum.
pub(super) struct Cursor<'a> {
    pub(super) rest: &'a [u8],
    /// Items and entries that it may still have.
    items_left: u64,
    /// Bytes that may still be taken in columns besides those that are copied from the datum.
    room: u64,
    max_text_bytes: usize,
    /// Whether strings that go to a column are left to be checked when the column is closed, all at once.
    pub(super) trusts_text: bool,
    /// What is wrong, when the reason that a step ends in does not say it all.
    pub(super) detail: Option<Box<str>>,
}

impl<'a> Cursor<'a> {
    /// A cursor at the beginning of a datum that may take `room` bytes in columns besides its own.
    pub(super) fn new(datum: &'a [u8], limits: &DecodeLimits, room: u64, trusts_text: bool) -> Self {
        let (items_left, max_text_bytes) = (limits.max_items as u64, limits.max_text_bytes);
        Self { rest: datum, items_left, room, max_text_bytes, trusts_text, detail: None }
    }

    /// Reads the default of a field, which takes of the room that this datum has.
    pub(super) fn default<'d>(&mut self, datum: &'d [u8], read: impl FnOnce(&mut Cursor<'d>) -> Step) -> Step {
        self.take_room(datum.len() as u64)?;
        let (items_left, max_text_bytes) = (u64::MAX, usize::MAX);
        let mut default =
            Cursor { rest: datum, items_left, room: self.room, max_text_bytes, trusts_text: true, detail: None };
        let step = read(&mut default);
        (self.room, self.detail) = (default.room, default.detail);
        step
    }

    /// Blocks of items, each with a count; a negative count is followed by the block's size in bytes. Each item has at
    /// least `item_min` bytes, and takes `width` bytes in columns besides those that are copied from the datum.
    pub(super) fn blocks(&mut self, item_min: usize, width: usize, mut item: impl FnMut(&mut Self) -> Step) -> Step {
        loop {
            let before = self.rest;
            let count = self.long()?;
            if count == 0 {
                return Ok(());
            }
            let size = if count < 0 { Some(self.long()?) } else { None };
            let count = count.unsigned_abs();
            let bytes_needed = count.saturating_mul(item_min as u64);
            if bytes_needed > self.rest.len() as u64 {
                self.rest = before;
                return Err(Reason::BadLength);
            }
            let start = self.rest.len();
            if let Err(reason) = self.admit(count, width) {
                self.rest = before;
                return Err(reason);
            }
            for _ in 0..count {
                item(self)?;
            }
            let read = (start - self.rest.len()) as i64;
            if size.is_some_and(|size| size != read) {
                return Err(Reason::BadLength);
            }
        }
    }

    fn admit(&mut self, items: u64, width: usize) -> Step {
        let Some(items_left) = self.items_left.checked_sub(items) else {
            return self.too_large("it has more array items and map entries than topics.limits.max_items");
        };
        self.items_left = items_left;
        self.take_room(items.saturating_mul(width as u64))
    }

    fn take_room(&mut self, bytes: u64) -> Step {
        match self.room.checked_sub(bytes) {
            Some(room) => self.room = room,
            None => return self.too_large(TOO_MUCH_GROWTH),
        }
        Ok(())
    }

    #[cold]
    fn too_large(&mut self, why: &str) -> Step {
        self.detail = Some(why.into());
        Err(Reason::TooLarge)
    }

    /// Bytes that are text, whether it is checked here or when its column is closed.
    #[inline]
    pub(super) fn text(&mut self) -> Step<&'a [u8]> {
        if self.trusts_text { self.bytes() } else { self.string() }
    }

    pub(super) fn string(&mut self) -> Step<&'a [u8]> {
        let before = self.rest;
        let text = self.bytes()?;
        if std::str::from_utf8(text).is_err() {
            self.rest = before;
            return Err(Reason::BadUtf8);
        }
        Ok(text)
    }

    pub(super) fn bytes(&mut self) -> Step<&'a [u8]> {
        let before = self.rest;
        let len = self.long()?;
        match usize::try_from(len) {
            Ok(len) if len <= self.rest.len() => {
                if len > self.max_text_bytes {
                    self.rest = before;
                    self.too_large("a text or bytes value is longer than topics.limits.max_text_bytes")?;
                }
                self.take(len)
            }
            Ok(len) if len as u64 <= PLAUSIBLE_LEN => Err(Reason::Truncated),
            _ => {
                self.rest = before;
                Err(Reason::BadLength)
            }
        }
    }

    pub(super) fn take(&mut self, len: usize) -> Step<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Reason::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn int(&mut self) -> Step<i32> {
        let before = self.rest;
        let value = self.long()?;
        i32::try_from(value).map_err(|_| {
            self.rest = before;
            Reason::BadVarint
        })
    }

    #[inline]
    pub(super) fn long(&mut self) -> Step<i64> {
        if let [byte @ 0..0x80, rest @ ..] = self.rest {
            self.rest = rest;
            let raw = u64::from(*byte);
            return Ok(unzigzag(raw));
        }
        self.long_varint()
    }

    fn long_varint(&mut self) -> Step<i64> {
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

    /// Checks a value and leaves it out.
    pub(super) fn skip(&mut self, node: &Node) -> Step {
        match node {
            Node::Null => Ok(()),
            Node::Boolean => self.boolean().map(drop),
            Node::Int => self.int().map(drop),
            Node::Long => self.long().map(drop),
            Node::Date => self.date().map(drop),
            Node::Timestamp { per_day } => self.timestamp(*per_day).map(drop),
            Node::Time { per_day } => self.time(*per_day).map(drop),
            Node::Skip(len) => self.take(*len).map(drop),
            Node::Bytes => self.bytes().map(drop),
            Node::String => self.string().map(drop),
            Node::UuidString => self.uuid_text().map(drop),
            Node::UuidBytes => self.uuid_bytes().map(drop),
            Node::DecimalBytes { limit } => decimal(self.bytes()?, *limit).map(drop),
            Node::DecimalFixed { len, limit } => decimal(self.take(*len)?, *limit).map(drop),
            Node::Enum(symbols) => self.symbol(*symbols).map(drop),
            Node::Union(branches) => {
                let branch = self.branch(branches)?;
                self.skip(branch)
            }
            Node::Record(fields) => fields.iter().try_for_each(|field| self.skip(field)),
            // Items that have no bytes still take time.
            Node::Array { item, item_min } => {
                self.blocks(*item_min, usize::from(*item_min == 0), |cursor| cursor.skip(item))
            }
            Node::Map { value, value_min } => self.blocks(value_min.saturating_add(1), 0, |cursor| {
                cursor.string()?;
                cursor.skip(value)
            }),
        }
    }

    pub(super) fn boolean(&mut self) -> Step<bool> {
        match self.take(1)? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(Reason::BadBoolean),
        }
    }

    pub(super) fn date(&mut self) -> Step<i32> {
        let days = self.int()?;
        in_range(i64::from(days), 1)?;
        Ok(days)
    }

    #[inline]
    pub(super) fn timestamp(&mut self, per_day: i64) -> Step<i64> {
        let value = self.long()?;
        in_range(value, per_day)?;
        Ok(value)
    }

    /// A time of a day; ClickHouse would take any number for one.
    pub(super) fn time(&mut self, per_day: i64) -> Step<i64> {
        let value = self.long()?;
        if (0..per_day).contains(&value) { Ok(value) } else { Err(Reason::OutOfRange) }
    }

    pub(super) fn float(&mut self) -> Step<f32> {
        self.array().map(f32::from_le_bytes)
    }

    pub(super) fn double(&mut self) -> Step<f64> {
        self.array().map(f64::from_le_bytes)
    }

    fn array<const N: usize>(&mut self) -> Step<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Reason::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    #[inline]
    pub(super) fn symbol(&mut self, symbols: i32) -> Step<usize> {
        let index = self.int()?;
        if (0..symbols).contains(&index) { Ok(index as usize) } else { Err(Reason::BadEnumIndex) }
    }

    #[inline]
    pub(super) fn branch<'b, T>(&mut self, branches: &'b [T]) -> Step<&'b T> {
        let index = self.long()?;
        usize::try_from(index).ok().and_then(|index| branches.get(index)).ok_or(Reason::BadUnionIndex)
    }

    pub(super) fn uuid_text(&mut self) -> Step<[u8; 16]> {
        parse_uuid(self.bytes()?).ok_or(Reason::BadUuid)
    }

    pub(super) fn uuid_bytes(&mut self) -> Step<[u8; 16]> {
        self.bytes()?.try_into().map_err(|_| Reason::BadUuid)
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

/// A big-endian two's-complement number, if it is within ±`limit` (exclusive).
#[inline]
pub(super) fn decimal(unscaled: &[u8], limit: u128) -> Step<i128> {
    if unscaled.is_empty() || unscaled.len() > 16 {
        return Err(Reason::BadLength);
    }
    let sign = if unscaled[0] & 0x80 == 0 { 0 } else { 0xff };
    let mut wide = [sign; 16];
    wide[16 - unscaled.len()..].copy_from_slice(unscaled);
    let number = i128::from_be_bytes(wide);
    if number.unsigned_abs() < limit { Ok(number) } else { Err(Reason::OutOfRange) }
}

/// Value of a hexadecimal digit in either case; what is none has a bit above the lowest four.
const HEX: [u8; 256] = {
    let mut table = [0xff; 256];
    let mut at = 0;
    while at < 256 {
        table[at] = match at as u8 {
            digit @ b'0'..=b'9' => digit - b'0',
            digit @ b'a'..=b'f' => digit - b'a' + 10,
            digit @ b'A'..=b'F' => digit - b'A' + 10,
            _ => 0xff,
        };
        at += 1;
    }
    table
};

/// The 36 characters of a hyphenated UUID, in either case.
fn parse_uuid(text: &[u8]) -> Option<[u8; 16]> {
    /// Where each byte's two digits begin.
    const PLACES: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
    let text: &[u8; 36] = text.try_into().ok()?;
    let (mut uuid, mut all) = ([0; 16], 0);
    for (byte, place) in uuid.iter_mut().zip(PLACES) {
        let (high, low) = (HEX[usize::from(text[place])], HEX[usize::from(text[place + 1])]);
        all |= high | low;
        *byte = high << 4 | low;
    }
    let hyphens = [8, 13, 18, 23].iter().all(|at| text[*at] == b'-');
    (all < 16 && hyphens).then_some(uuid)
}
