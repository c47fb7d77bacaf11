//! Record batches (Kafka's message format v2) as they lie in the log, and the few fields that sending one again changes.
//! It never looks into the records, which may be compressed.
//!
//! Layout: <https://kafka.apache.org/documentation/#recordbatch>.

use anyhow::{Context, Result, ensure};

const BASE_OFFSET: usize = 0;
const LENGTH: usize = 8;
/// What `LENGTH` does not count: base offset and length.
const BEFORE_LENGTH_COUNTS: usize = 12;
const MAGIC: usize = 16;
const CRC: usize = 17;
const ATTRIBUTES: usize = 21;
const LAST_OFFSET_DELTA: usize = 23;
const BASE_TIMESTAMP: usize = 27;
const MAX_TIMESTAMP: usize = 35;
const PRODUCER_ID: usize = 43;
const PRODUCER_END: usize = 57;
const COUNT: usize = 57;
const HEADER: usize = 61;
/// Transactional, or a control batch.
const NOT_PLAIN: i16 = 0b11_0000;

/// One batch of a fetch response or produce request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Batch(Vec<u8>);

impl Batch {
    /// Takes the whole batches from the records of a fetch response; the last one may be cut off and is left out.
    pub(super) fn split(mut records: &[u8]) -> Result<Vec<Self>> {
        let mut batches = Vec::new();
        while records.len() >= HEADER {
            let length = usize::try_from(i32_at(records, LENGTH)).context("a batch with a negative length")?;
            let Some((batch, rest)) = records.split_at_checked(length + BEFORE_LENGTH_COUNTS) else { break };
            let batch = Self(batch.to_vec());
            ensure!(batch.0.len() >= HEADER && batch.0[MAGIC] == 2, "a batch of an old format");
            ensure!(i16_at(&batch.0, ATTRIBUTES) & NOT_PLAIN == 0, "a batch of a transaction");
            ensure!(
                i32_at(&batch.0, LAST_OFFSET_DELTA) + 1 == i32_at(&batch.0, COUNT),
                "a batch with gaps, as compaction leaves them"
            );
            batches.push(batch);
            records = rest;
        }
        Ok(batches)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn base_offset(&self) -> i64 {
        i64_at(&self.0, BASE_OFFSET)
    }

    /// Records.
    pub(super) fn count(&self) -> i32 {
        i32_at(&self.0, COUNT)
    }

    /// Time of the first record, milliseconds since 1970 UTC.
    pub(super) fn first_timestamp(&self) -> i64 {
        i64_at(&self.0, BASE_TIMESTAMP)
    }

    /// Makes it a batch of no idempotent session whose latest record is of `now_ms`; the records keep their distance.
    pub(super) fn send_again_at(&mut self, now_ms: i64) {
        let mut changed = [0; PRODUCER_END - BASE_TIMESTAMP];
        changed.copy_from_slice(&self.0[BASE_TIMESTAMP..PRODUCER_END]);
        let span = i64_at(&self.0, MAX_TIMESTAMP) - self.first_timestamp();
        self.0[BASE_OFFSET..LENGTH].fill(0);
        self.0[BASE_TIMESTAMP..MAX_TIMESTAMP].copy_from_slice(&(now_ms - span).to_be_bytes());
        self.0[MAX_TIMESTAMP..PRODUCER_ID].copy_from_slice(&now_ms.to_be_bytes());
        // Producer id, epoch and sequence: -1.
        self.0[PRODUCER_ID..PRODUCER_END].fill(0xff);
        for (changed, now) in changed.iter_mut().zip(&self.0[BASE_TIMESTAMP..PRODUCER_END]) {
            *changed ^= now;
        }
        let crc = u32_at(&self.0, CRC) ^ crc_of_change(&changed, self.0.len() - PRODUCER_END);
        self.0[CRC..ATTRIBUTES].copy_from_slice(&crc.to_be_bytes());
    }
}

fn i16_at(bytes: &[u8], at: usize) -> i16 {
    i16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn i32_at(bytes: &[u8], at: usize) -> i32 {
    u32_at(bytes, at).cast_signed()
}

fn i64_at(bytes: &[u8], at: usize) -> i64 {
    i64::from(i32_at(bytes, at)) << 32 | i64::from(u32_at(bytes, at + 4))
}

/// CRC-32C, bits reversed.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// What a CRC-32C changes by when `change` is XORed to the message `zeros` bytes before its end. (The CRC is linear
/// in the message but for a constant, so the bytes that stay the same need not be read.)
fn crc_of_change(change: &[u8], zeros: usize) -> u32 {
    let register = change
        .iter()
        .fold(0, |register: u32, &byte| (0..8).fold(register ^ u32::from(byte), |register, _| times_x(register)));
    // Times x^(8 * zeros), by squaring. 1 is the highest bit here, x the one below.
    let (mut power, mut product, mut exponent) = (1 << 30, register, 8 * zeros);
    while exponent > 0 {
        if exponent & 1 == 1 {
            product = multiply(product, power);
        }
        power = multiply(power, power);
        exponent >>= 1;
    }
    product
}

fn times_x(a: u32) -> u32 {
    (a >> 1) ^ (POLYNOMIAL * (a & 1))
}

/// Product of two polynomials modulo the CRC's.
fn multiply(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    for power in (0..32).rev() {
        product ^= b * (a >> power & 1);
        b = times_x(b);
    }
    product
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// Bit by bit, as the definition says.
    fn crc32c(bytes: &[u8]) -> u32 {
        !bytes
            .iter()
            .fold(!0, |register: u32, &byte| (0..8).fold(register ^ u32::from(byte), |register, _| times_x(register)))
    }

    fn batch(random: &mut Random, length: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..HEADER + length).map(|_| random.bits() as u8).collect();
        bytes[LENGTH..BEFORE_LENGTH_COUNTS]
            .copy_from_slice(&((HEADER - BEFORE_LENGTH_COUNTS + length) as i32).to_be_bytes());
        bytes[MAGIC] = 2;
        bytes[ATTRIBUTES..LAST_OFFSET_DELTA].copy_from_slice(&1_i16.to_be_bytes());
        bytes[LAST_OFFSET_DELTA..BASE_TIMESTAMP].copy_from_slice(&6_i32.to_be_bytes());
        bytes[COUNT..HEADER].copy_from_slice(&7_i32.to_be_bytes());
        bytes[BASE_TIMESTAMP..MAX_TIMESTAMP].copy_from_slice(&1_000_i64.to_be_bytes());
        bytes[MAX_TIMESTAMP..PRODUCER_ID].copy_from_slice(&1_030_i64.to_be_bytes());
        let crc = crc32c(&bytes[ATTRIBUTES..]);
        bytes[CRC..ATTRIBUTES].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    #[test]
    fn the_crc_is_the_published_one() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn a_batch_sent_again_has_new_times_no_session_a_right_crc_and_the_same_records() {
        let random = &mut Random::new(3, 0);
        for length in [0, 1, 7, 1000, 65_537] {
            let original = batch(random, length);
            let mut again = Batch::split(&original).unwrap().remove(0);
            again.send_again_at(5_000);
            assert_eq!((again.base_offset(), again.count(), again.first_timestamp()), (0, 7, 4_970));
            assert_eq!(i64_at(again.bytes(), MAX_TIMESTAMP), 5_000);
            assert!(again.bytes()[PRODUCER_ID..PRODUCER_END].iter().all(|&byte| byte == 0xff));
            assert_eq!(u32_at(again.bytes(), CRC), crc32c(&again.bytes()[ATTRIBUTES..]), "{length}");
            assert_eq!(again.bytes()[COUNT..], original[COUNT..]);
        }
    }

    #[test]
    fn a_batch_that_is_cut_off_is_left_out_and_one_with_gaps_or_of_a_transaction_is_refused() {
        let random = &mut Random::new(4, 0);
        let (first, second) = (batch(random, 100), batch(random, 50));
        let both = [first.clone(), second].concat();
        assert_eq!(Batch::split(&both).unwrap().len(), 2);
        assert_eq!(Batch::split(&both[..both.len() - 1]).unwrap(), [Batch(first.clone())]);
        for (at, value) in [(COUNT + 3, 6), (ATTRIBUTES + 1, 0x10), (MAGIC, 1)] {
            let mut other = first.clone();
            other[at] = value;
            assert!(Batch::split(&other).is_err());
        }
    }
}
