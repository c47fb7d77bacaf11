//! The pieces of an Avro datum, and how they are shown. After an error the place is where the pipeline's decoder tells that
//! the datum breaks.

use millrace_pipeline::reason::Reason;
use serde_json::{Value, json};

/// Longest string or bytes that are taken for cut off rather than for a nonsense length, as in the pipeline.
const PLAUSIBLE_LEN: u64 = 1 << 20;
/// Characters of a text that are shown.
const TEXT_SHOWN: usize = 200;
/// Bytes that are shown of those that are no text.
const BYTES_SHOWN: usize = 64;

/// A place in a datum.
pub(super) struct Bytes<'a> {
    pub(super) datum: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Bytes<'a> {
    pub(super) fn left(&self) -> u64 {
        self.rest().len() as u64
    }

    fn rest(&self) -> &'a [u8] {
        &self.datum[self.at..]
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], Reason> {
        let taken = self.rest().get(..len).ok_or(Reason::Truncated)?;
        self.at += len;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Reason> {
        let (taken, _) = self.rest().split_first_chunk().ok_or(Reason::Truncated)?;
        self.at += N;
        Ok(*taken)
    }

    pub(super) fn long(&mut self) -> Result<i64, Reason> {
        let rest = self.rest();
        let mut raw = 0u64;
        for (at, byte) in rest.iter().enumerate().take(10) {
            let bits = u64::from(byte & 0x7f);
            if at == 9 && bits > 1 {
                break;
            }
            raw |= bits << (7 * at);
            if byte & 0x80 == 0 {
                self.at += at + 1;
                return Ok((raw >> 1) as i64 ^ -((raw & 1) as i64));
            }
        }
        Err(if rest.len() < 10 { Reason::Truncated } else { Reason::BadVarint })
    }

    pub(super) fn int(&mut self) -> Result<i32, Reason> {
        let before = self.at;
        let value = self.long()?;
        i32::try_from(value).map_err(|_| {
            self.at = before;
            Reason::BadVarint
        })
    }

    /// An index below `count`.
    pub(super) fn index(&mut self, count: usize, otherwise: Reason) -> Result<usize, Reason> {
        let index = self.long()?;
        usize::try_from(index).ok().filter(|index| *index < count).ok_or(otherwise)
    }

    /// The same, of type int.
    pub(super) fn index_int(&mut self, count: usize, otherwise: Reason) -> Result<usize, Reason> {
        let index = self.int()?;
        usize::try_from(index).ok().filter(|index| *index < count).ok_or(otherwise)
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Reason> {
        let before = self.at;
        let len = self.long()?;
        match u64::try_from(len) {
            Ok(len) if len <= self.left() => self.take(len as usize),
            Ok(len) if len <= PLAUSIBLE_LEN => Err(Reason::Truncated),
            _ => {
                self.at = before;
                Err(Reason::BadLength)
            }
        }
    }

    pub(super) fn string(&mut self) -> Result<&'a str, Reason> {
        let before = self.at;
        std::str::from_utf8(self.bytes()?).map_err(|_| {
            self.at = before;
            Reason::BadUtf8
        })
    }

    pub(super) fn boolean(&mut self) -> Result<bool, Reason> {
        match self.take(1)? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(Reason::BadBoolean),
        }
    }

    /// The 36 characters of a hyphenated UUID.
    pub(super) fn uuid_text(&mut self) -> Result<&'a str, Reason> {
        let text = std::str::from_utf8(self.bytes()?).map_err(|_| Reason::BadUuid)?;
        let is_uuid = text.len() == 36 && uuid::Uuid::try_parse(text).is_ok();
        if is_uuid { Ok(text) } else { Err(Reason::BadUuid) }
    }
}

/// A text, cut if it is long.
pub(super) fn shown_text(text: &str) -> Value {
    match text.char_indices().nth(TEXT_SHOWN) {
        None => json!(text),
        Some((cut, _)) => json!(format!("{}… ({} bytes)", &text[..cut], text.len())),
    }
}

/// Bytes in hexadecimal, cut if they are many.
pub(super) fn shown_bytes(bytes: &[u8]) -> Value {
    let shown: String = bytes.iter().take(BYTES_SHOWN).map(|byte| format!("{byte:02x}")).collect();
    let more = if bytes.len() > BYTES_SHOWN { format!("… ({} bytes)", bytes.len()) } else { String::new() };
    json!(format!("0x{shown}{more}"))
}

/// A big-endian two's-complement number with so many digits behind the point; `None` without bytes, or with more than a
/// column has room for.
pub(super) fn decimal_text(unscaled: &[u8], scale: usize) -> Option<String> {
    let sign = if unscaled.first()? & 0x80 == 0 { 0 } else { 0xff };
    let mut wide = [sign; 16];
    wide.get_mut(16usize.checked_sub(unscaled.len())?..)?.copy_from_slice(unscaled);
    let number = i128::from_be_bytes(wide);
    let digits = number.unsigned_abs().to_string();
    let sign = if number < 0 { "-" } else { "" };
    if scale == 0 || scale > 1_000 {
        return Some(format!("{sign}{digits}"));
    }
    let digits = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    Some(format!("{sign}{whole}.{fraction}"))
}
