//! Messages of a size, good ones of a schema and damaged ones, all from a seed.

use apache_avro::{
    Schema,
    schema::{InnerDecimalSchema, UuidSchema},
};

/// Good messages that the others are made of.
const GOOD: usize = 4;
/// Where most damage is done: lengths and counts of everything stand near the beginning.
const BEGINNING: usize = 400;

/// SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.bits() % limit.max(1) as u64) as usize
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| self.bits().to_le_bytes()).collect();
        bytes.truncate(len);
        bytes
    }
}

/// Messages of one schema.
pub(crate) struct Messages {
    size: usize,
    good: Vec<Vec<u8>>,
}

impl Messages {
    /// Messages of `schema` with up to `size` bytes, the good ones nearly as many.
    pub(crate) fn new(schema: &str, size: usize, random: &mut Random) -> Self {
        let schema = Schema::parse_str(schema).unwrap();
        let good = (0..GOOD).map(|_| {
            let mut message = vec![0, 0, 0, 0, 1];
            // An item more than is asked for may be begun at the end.
            write(&schema, size - (size >> 4), random, &mut message);
            assert!((size >> 1..=size).contains(&message.len()), "a message of {} bytes", message.len());
            message
        });
        Self { size, good: good.collect() }
    }

    /// One of the good ones.
    pub(crate) fn good(&self, at: usize) -> &[u8] {
        &self.good[at % GOOD]
    }

    /// The next: mostly a good one with damage, of every seventh nothing but the header is as it should be.
    pub(crate) fn make(&self, at: usize, random: &mut Random) -> Vec<u8> {
        let mut message = match at % 7 {
            0 => [&[0, 0, 0, 0, 1][..], &random.bytes(self.size - 5)].concat(),
            // Nothing but counts, or lengths, of one.
            1 => [&[0, 0, 0, 0, 1][..], &vec![random.below(5) as u8; self.size - 5]].concat(),
            _ => self.good(random.below(GOOD)).to_vec(),
        };
        for _ in 0..=random.below(4) {
            damage(&mut message, random);
        }
        message.truncate(self.size);
        message
    }
}

fn damage(message: &mut Vec<u8>, random: &mut Random) {
    const CLAIMS: [i64; 12] =
        [-1, 1, i64::MAX, i64::MIN, 1 << 20, 1 << 24, 1 << 31, (1 << 31) - 1, 1 << 32, 1 << 40, -(1 << 20), 1_000_000];
    let body = message.len().saturating_sub(5);
    let reach = if random.below(4) == 0 { body } else { body.min(BEGINNING) };
    let at = 5 + random.below(reach);
    let len = random.below(64).min(message.len().saturating_sub(at));
    let claim = long(CLAIMS[random.below(CLAIMS.len())]);
    match random.below(8) {
        _ if at >= message.len() => message.extend(claim),
        0 => message[at] ^= 1 << random.below(8),
        1 => message[at] = random.bits() as u8,
        2 => message.truncate(5 + random.below(body)),
        3 => message.extend(random.bytes(len)),
        4 => message.splice(at..at, claim).for_each(drop),
        5 => message.splice(at..(at + claim.len()).min(message.len()), claim).for_each(drop),
        6 => message[at..at + len].fill(0),
        _ => {
            let from = 5 + random.below(body - len);
            message.copy_within(from..from + len, at);
        }
    }
}

/// Appends a value of about `bytes` bytes, if it can have so many.
fn write(schema: &Schema, bytes: usize, random: &mut Random, out: &mut Vec<u8>) {
    match schema {
        Schema::Null => {}
        Schema::Boolean => out.push(random.below(2) as u8),
        Schema::Int => out.extend(long(i64::from(random.bits() as i32))),
        Schema::Long | Schema::TimeMicros => out.extend(long(random.bits() as i64 >> random.below(64))),
        Schema::Date | Schema::TimeMillis => out.extend(long(random.below(100_000) as i64)),
        Schema::TimestampMillis | Schema::TimestampMicros | Schema::LocalTimestampMillis => {
            out.extend(long((random.bits() >> 22) as i64));
        }
        Schema::Float => out.extend(random.bytes(4)),
        Schema::Double => out.extend(random.bytes(8)),
        // Bytes may be read as text.
        Schema::Bytes | Schema::String => text(&vec![b'a' + random.below(26) as u8; bytes], out),
        Schema::Uuid(UuidSchema::String) => text(b"00112233-4455-6677-8899-AAbbccddeeff", out),
        Schema::Fixed(fixed) => out.extend(random.bytes(fixed.size)),
        Schema::Decimal(decimal) => match &decimal.inner {
            InnerDecimalSchema::Bytes => text(&[&[0], &random.bytes(2)[..]].concat(), out),
            InnerDecimalSchema::Fixed(fixed) => {
                out.extend(vec![0; fixed.size - 2]);
                out.extend(random.bytes(2));
            }
        },
        Schema::Enum(symbols) => out.extend(long(random.below(symbols.symbols.len()) as i64)),
        Schema::Union(union) => {
            let branches = union.variants();
            let elastic = branches.iter().position(is_elastic).filter(|_| bytes > 64);
            let branch = elastic.unwrap_or_else(|| random.below(branches.len()));
            out.extend(long(branch as i64));
            write(&branches[branch], bytes, random, out);
        }
        Schema::Record(record) => {
            let elastic: Vec<usize> =
                (0..record.fields.len()).filter(|at| is_elastic(&record.fields[*at].schema)).collect();
            // One field has what there is to have.
            let grown = elastic.get(random.below(elastic.len())).copied();
            for (at, field) in record.fields.iter().enumerate() {
                let few = random.below(12).min(bytes);
                write(&field.schema, if Some(at) == grown { bytes } else { few }, random, out);
            }
        }
        Schema::Array(array) => {
            blocks(bytes, random, out, |random, out| write(&array.items, random.below(90), random, out))
        }
        Schema::Map(map) => blocks(bytes, random, out, |random, out| {
            text(format!("k{}", random.below(1000)).as_bytes(), out);
            write(&map.types, random.below(90), random, out);
        }),
        other => panic!("no value of {other:?}"),
    }
}

/// Items until there are about so many bytes, in blocks of up to 100, or a hundred items of nothing.
fn blocks(bytes: usize, random: &mut Random, out: &mut Vec<u8>, mut item: impl FnMut(&mut Random, &mut Vec<u8>)) {
    let end = out.len() + bytes;
    let mut block = Vec::new();
    while out.len() < end {
        block.clear();
        let mut items = 0;
        while items < 100 && out.len() + block.len() < end {
            item(random, &mut block);
            items += 1;
        }
        if random.below(2) == 0 {
            out.extend(long(-items));
            out.extend(long(block.len() as i64));
        } else {
            out.extend(long(items));
        }
        out.extend_from_slice(&block);
        if block.is_empty() {
            break;
        }
    }
    out.push(0);
}

/// Whether values of it can have as many bytes as one likes.
fn is_elastic(schema: &Schema) -> bool {
    match schema {
        Schema::Bytes | Schema::String | Schema::Map(_) => true,
        Schema::Array(array) => !matches!(&*array.items, Schema::Record(record) if record.fields.is_empty()),
        Schema::Record(record) => record.fields.iter().any(|field| is_elastic(&field.schema)),
        Schema::Union(union) => union.variants().iter().any(is_elastic),
        _ => false,
    }
}

fn text(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend(long(bytes.len() as i64));
    out.extend_from_slice(bytes);
}

/// A zigzag variable-length integer.
pub(crate) fn long(number: i64) -> Vec<u8> {
    let mut raw = (number << 1 ^ number >> 63) as u64;
    let mut bytes = Vec::new();
    while raw >= 0x80 {
        bytes.push(raw as u8 | 0x80);
        raw >>= 7;
    }
    bytes.push(raw as u8);
    bytes
}

/// The integer at the beginning of `bytes`, and what follows it.
pub(crate) fn read_long(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let end = bytes.iter().take(10).position(|byte| byte & 0x80 == 0)?;
    let raw = (0..=end).fold(0u64, |raw, at| raw | u64::from(bytes[at] & 0x7f) << (7 * at));
    Some(((raw >> 1) as i64 ^ -((raw & 1) as i64), &bytes[end + 1..]))
}
