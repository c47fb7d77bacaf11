//! The decoder: the first byte chooses a pair of schemas, the others are a datum between two that are good.

use std::cell::RefCell;

use arrow_array::RecordBatch;
use millrace_pipeline::{
    decode::{DecodeLimits, Decoded, Decoder},
    record::Record,
};
use millrace_schemas::{ORDER_EVENT_V1, golden};

const ID: u32 = 1;
/// Limits low enough to be met by inputs of a few kilobytes.
const LIMITS: DecodeLimits = DecodeLimits {
    max_message_bytes: 1 << 16,
    max_text_bytes: 1 << 12,
    max_items: 1 << 17,
    max_depth: 32,
    max_growth: 8,
};

/// A writer's schema, a reader's, and a datum of the writer's.
struct Pair {
    writer: &'static str,
    reader: &'static str,
    good: Vec<u8>,
}

const EVERYTHING: &str = include_str!("../../../pipeline/tests/memory/everything.avsc");
const NUMBERS: &str = r#"{"type":"record","name":"E","fields":[{"name":"a","type":"int"},{"name":"b","type":"long"},
    {"name":"c","type":"float"},{"name":"d","type":["int","null","long"]}]}"#;
const DOUBLES: &str = r#"{"type":"record","name":"E","fields":[{"name":"d","type":["null","double"]},{"name":"c","type":"double"},
    {"name":"b","type":"float"},{"name":"a","type":"long"},{"name":"e","type":"string","default":"none"}]}"#;
const NOTHING: &str = r#"{"type":"record","name":"E","fields":[{"name":"x","type":{"type":"array","items":
    {"type":"record","name":"R","fields":[]}}},{"name":"y","type":{"type":"array","items":"null"}}]}"#;
const SOMETHING: &str = r#"{"type":"record","name":"E","fields":[{"name":"x","type":{"type":"array","items":
    {"type":"record","name":"R","fields":[{"name":"d","type":"string","default":"as long as this"},
    {"name":"l","type":{"type":"array","items":"long"},"default":[1,2,3]}]}}}]}"#;
const WIDE: &str = r#"{"type":"record","name":"E","fields":[{"name":"x","type":{"type":"array","items":["null",
    {"type":"record","name":"R","fields":[{"name":"f","type":{"type":"fixed","name":"F","size":40}},
    {"name":"s","type":["null","string"]},{"name":"m","type":{"type":"map","values":{"type":"map","values":"bytes"}}}]}]}}]}"#;
const TEXTS: &str = r#"{"type":"record","name":"E","fields":[{"name":"x","type":{"type":"array","items":{"type":"map","values":"bytes"}}},
    {"name":"e","type":{"type":"enum","name":"N","symbols":["a","b","c"]}},{"name":"u","type":["null","string","int"]}]}"#;
const READ_TEXTS: &str = r#"{"type":"record","name":"E","fields":[{"name":"x","type":{"type":"array","items":{"type":"map","values":"string"}}},
    {"name":"e","type":{"type":"enum","name":"N","symbols":["c","a"],"default":"a"}},{"name":"u","type":["null","string"]}]}"#;

fn pairs() -> Vec<Pair> {
    let uuid = b"\x4800112233-4455-6677-8899-aabbccddeeff";
    let everything = [&[0; 17][..], uuid, &[0; 6], &[2, 0], &[0; 8], &[0; 5], &[0; 4], &[2, 0]].concat();
    let pair = |writer, reader, good: &[u8]| Pair { writer, reader, good: good.to_vec() };
    vec![
        pair(ORDER_EVENT_V1, ORDER_EVENT_V1, &golden::good()[0].bytes[5..]),
        pair(EVERYTHING, EVERYTHING, &everything),
        pair(NUMBERS, DOUBLES, &[2, 4, 0, 0, 0, 0, 2]),
        pair(NOTHING, SOMETHING, &[4, 0, 6, 0]),
        pair(NOTHING, NOTHING, &[0, 6, 0]),
        pair(WIDE, WIDE, &[2, 0, 0]),
        pair(TEXTS, READ_TEXTS, &[2, 2, 2, b'k', 2, b'v', 0, 0, 2, 0]),
        pair(EVERYTHING, r#"{"type":"record","name":"E","fields":[{"name":"int","type":"double"}]}"#, &everything),
    ]
}

/// A pair and its decoder, which is empty between two inputs.
struct Reader {
    decoder: Decoder,
    good: Vec<u8>,
    /// What the good one reads as.
    alone: RecordBatch,
}

impl Reader {
    fn new(pair: Pair) -> Self {
        let mut decoder = Decoder::new(pair.reader, LIMITS).unwrap();
        decoder.learn(ID, pair.writer);
        let good = framed(&pair.good);
        let decoded = decode_all(&mut decoder, &[&good]);
        assert_eq!(decoded.rejected, [], "{}", pair.writer);
        Self { decoder, good, alone: decoded.rows }
    }
}

thread_local! {
    static READERS: RefCell<Vec<Reader>> = RefCell::new(pairs().into_iter().map(Reader::new).collect());
}

/// A record becomes a row or a rejection that says why, its neighbours are untouched, and both times it is the same.
pub fn decode(data: &[u8]) {
    let Some((choice, datum)) = data.split_first() else { return };
    READERS.with_borrow_mut(|readers| {
        let at = usize::from(*choice) % readers.len();
        let Reader { decoder, good, alone } = &mut readers[at];
        let value = framed(datum);
        let decoded = decode_all(decoder, &[good, &value, good]);
        check(&decoded, 3);
        let last = decoded.rows.num_rows() - 1;
        assert_eq!((decoded.origin[0], decoded.origin[last]), (0, 2));
        assert_eq!(&decoded.rows.slice(0, 1), alone);
        assert_eq!(&decoded.rows.slice(last, 1), alone);
        let again = decode_all(decoder, &[good, &value, good]);
        assert_eq!((again.origin, again.rejected), (decoded.origin, decoded.rejected));
    });
}

/// What holds for any chunk.
pub(crate) fn check(decoded: &Decoded, records: usize) {
    assert_eq!(decoded.rows.num_rows(), decoded.origin.len());
    assert_eq!(decoded.origin.len() + decoded.rejected.len(), records);
    for (_, rejection) in &decoded.rejected {
        assert!(!rejection.detail.is_empty() && rejection.detail.len() < 1100, "{rejection}");
    }
}

pub(crate) fn decode_all(decoder: &mut Decoder, values: &[&[u8]]) -> Decoded {
    let record = |value| Record { partition: 0, offset: 0, timestamp_ms: 0, value: Some(value) };
    let records: Vec<Record<'_>> = values.iter().copied().map(record).collect();
    decoder.decode(&records)
}

fn framed(datum: &[u8]) -> Vec<u8> {
    [&[0][..], &ID.to_be_bytes(), datum].concat()
}
