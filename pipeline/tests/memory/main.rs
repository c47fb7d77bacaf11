//! What decoding takes of memory, whatever the bytes: live bytes at their peak, counted by the allocator, over thousands of
//! seeded messages of 1 MiB, good ones and hostile ones.
//!
//! The bound follows from [`DecodeLimits`]. The columns of a record of `n` bytes hold at most
//! `c = n + 64 KiB + max_growth · n`: what is copied from it, and the room that it is given. A vector that is pushed to
//! holds at most twice its bytes, three times while it moves; on closing there are, besides, room for as many again and
//! the offsets that are made of ends: 4 · c, and the decoder itself.

#![allow(unsafe_code, reason = "an allocator is unsafe to implement; this one asks the system's and counts")]
#![allow(clippy::unwrap_used, reason = "a test")]

mod counting;
mod messages;

use millrace_pipeline::{
    decode::{DecodeLimits, Decoded, Decoder},
    reason::Reason,
    record::Record,
};
use millrace_schemas::{ORDER_EVENT_V1, golden};

use self::{
    counting::peak,
    messages::{Messages, Random, long},
};

const MESSAGE: usize = 1 << 20;
/// Messages of each case.
const MESSAGES: usize = 400;
/// As many messages come behind a good one in the same decoder, which keeps room from one for the next.
const BEHIND: usize = 4;
/// Schemas, plans, and vectors in which hardly anything is.
const DECODER: usize = 1 << 20;

struct Case {
    what: &'static str,
    writer: &'static str,
    reader: &'static str,
    /// The least with which every good message is read.
    max_growth: usize,
}

const CASES: [Case; 6] = [
    // An item has four bytes or more, and takes 24.
    Case { what: "orders", writer: ORDER_EVENT_V1, reader: ORDER_EVENT_V1, max_growth: 6 },
    Case {
        what: "every type",
        writer: include_str!("everything.avsc"),
        reader: include_str!("everything.avsc"),
        max_growth: 32,
    },
    Case {
        what: "texts in maps in lists",
        writer: r#"{"type":"record","name":"E","fields":[{"name":"x","type":{"type":"array","items":{"type":"map","values":"bytes"}}}]}"#,
        reader: r#"{"type":"record","name":"E","fields":[{"name":"x","type":{"type":"array","items":{"type":"map","values":"string"}}}]}"#,
        max_growth: 4,
    },
    // A byte takes 144: all but small arrays of nulls are refused.
    Case { what: "wide records that are null", writer: AMPLIFIER, reader: AMPLIFIER, max_growth: 32 },
    Case {
        what: "defaults for records of nothing",
        writer: r#"{"type":"record","name":"E","fields":[{"name":"x","type":{"type":"array","items":{"type":"record","name":"R","fields":[]}}},{"name":"pad","type":"bytes"}]}"#,
        reader: r#"{"type":"record","name":"E","fields":[{"name":"x","type":{"type":"array","items":{"type":"record","name":"R","fields":[{"name":"d","type":"string","default":"as long as this"},{"name":"l","type":{"type":"array","items":"long"},"default":[1,2,3]}]}}}]}"#,
        max_growth: 32,
    },
    Case {
        what: "fields that are passed over",
        writer: include_str!("everything.avsc"),
        reader: r#"{"type":"record","name":"E","fields":[{"name":"int","type":"double"}]}"#,
        max_growth: 1,
    },
];

const AMPLIFIER: &str = r#"{"type":"record","name":"E","fields":[{"name":"x","type":{"type":"array","items":["null",
    {"type":"record","name":"R","fields":[
        {"name":"fixed","type":{"type":"fixed","name":"F","size":64}},
        {"name":"a","type":{"type":"bytes","logicalType":"decimal","precision":38,"scale":2}},
        {"name":"b","type":["null","double"]},{"name":"c","type":["null","double"]},{"name":"d","type":"long"},
        {"name":"e","type":"long"},{"name":"f","type":"long"},{"name":"g","type":"long"},{"name":"h","type":"long"},
        {"name":"s","type":["null","string"]}]}]}}]}"#;

impl Case {
    fn decoder(&self) -> Decoder {
        let limits = DecodeLimits { max_growth: self.max_growth, ..DecodeLimits::default() };
        let mut decoder = Decoder::new(self.reader, limits).unwrap();
        decoder.learn(golden::SCHEMA_ID, self.writer);
        decoder
    }

    fn bound(&self) -> usize {
        let columns = MESSAGE + (64 << 10) + self.max_growth * MESSAGE;
        4 * columns + DECODER
    }
}

fn decode(decoder: &mut Decoder, value: &[u8]) -> Decoded {
    decoder.decode(&[Record { partition: 0, offset: 0, timestamp_ms: 0, value: Some(value) }])
}

#[test]
#[expect(clippy::print_stdout, reason = "how near the peak comes to the bound is worth knowing")]
fn no_message_of_a_mebibyte_takes_more_than_the_bound() {
    for (number, case) in CASES.iter().enumerate() {
        let mut random = Random(number as u64);
        let messages = Messages::new(case.writer, MESSAGE, &mut random);
        let (mut most, mut rows) = (0, 0);
        for at in 0..MESSAGES {
            let message = messages.make(at, &mut random);
            // Everything counts that lives because of the decoder.
            let (good, taken) = peak(|| {
                let mut decoder = case.decoder();
                let good = (at % BEHIND == 0).then(|| decode(&mut decoder, messages.good(at)).rows.num_rows());
                let decoded = decode(&mut decoder, &message);
                assert_eq!(decoded.origin.len() + decoded.rejected.len(), 1);
                good.unwrap_or_default()
            });
            rows += good;
            most = most.max(taken);
            let (what, bound) = (case.what, case.bound());
            assert!(taken <= bound, "{what}, message {at}: {taken} bytes, the bound is {bound}");
        }
        println!("{}: at most {most} bytes for a message of {MESSAGE}, the bound is {}", case.what, case.bound());
        assert_eq!(rows, MESSAGES / BEHIND, "{}: good messages were refused", case.what);
    }
}

#[test]
fn the_worst_that_is_let_through_is_what_the_limit_says() {
    let case = &CASES[4];
    // Records of nothing become a text of 15 bytes and a list of three numbers: four bytes for the end of each, the
    // defaults as they are written (16 and 5), and 24 for the numbers. The padding only makes the message long.
    const EACH: usize = 4 + 4 + 16 + 5 + 24;
    let message = |items: usize| {
        let head = [&[0, 0, 0, 0, 1][..], &long(items as i64), &[0]].concat();
        let padding = vec![b'x'; MESSAGE - head.len() - 3];
        [head, long(padding.len() as i64), padding].concat()
    };
    let room = (64 << 10) + case.max_growth * MESSAGE;
    let most = (room - 8) / EACH;
    let (worst, beyond) = (message(most), message(most + 1));
    assert_eq!((worst.len(), beyond.len()), (MESSAGE, MESSAGE));
    let (decoded, taken) = peak(|| decode(&mut case.decoder(), &worst));
    assert_eq!(decoded.rejected, []);
    assert!((most * 47..=case.bound()).contains(&taken), "{taken} bytes for {most} records of nothing");
    let (decoded, taken) = peak(|| decode(&mut case.decoder(), &beyond));
    assert_eq!(decoded.rejected[0].1.reason, Reason::TooLarge);
    assert!(taken <= case.bound(), "{taken} bytes");
}

#[test]
fn a_chunk_of_small_bombs_takes_what_their_neighbours_take() {
    const BOMBS: usize = 500;
    let case = &CASES[4];
    let bomb = [&[0, 0, 0, 0, 1][..], &long(3000), &[0, 0]].concat();
    let small = [&[0, 0, 0, 0, 1][..], &long(30), &[0, 0]].concat();
    let record = |at| {
        let value = Some(if at % 2 == 0 { &bomb[..] } else { &small[..] });
        Record { partition: 0, offset: 0, timestamp_ms: 0, value }
    };
    let records: Vec<Record<'_>> = (0..BOMBS).map(record).collect();
    let (decoded, taken) = peak(|| case.decoder().decode(&records));
    assert_eq!((decoded.origin.len(), decoded.rejected.len()), (BOMBS / 2, BOMBS / 2));
    assert!(decoded.rejected.iter().all(|(_, it)| it.reason == Reason::TooLarge), "{:?}", decoded.rejected[0]);
    // A bomb fills its room before it is found out, and is cut off again before the next.
    let (one_bomb, small) = ((64 << 10) + (case.max_growth + 1) * bomb.len(), 30 * 53);
    assert!(taken <= 4 * (one_bomb + BOMBS * small) + DECODER, "{taken} bytes");
}

#[test]
fn a_reader_that_believes_what_a_message_claims_is_found_out() {
    /// As decoders are written in a hurry: room is made for as much as is announced.
    fn naive(datum: &[u8]) -> Vec<Vec<u8>> {
        let mut texts = Vec::new();
        let mut rest = datum;
        while let Some((length, after)) = messages::read_long(rest) {
            let length = usize::try_from(length).unwrap_or(0);
            // The test's own machine is not to suffer for it.
            let mut text = Vec::with_capacity(length.min(1 << 30));
            let Some((bytes, after)) = after.split_at_checked(length) else { break };
            text.extend_from_slice(bytes);
            texts.push(text);
            rest = after;
        }
        texts
    }
    let case = &CASES[2];
    let mut random = Random(7);
    let messages = Messages::new(case.writer, MESSAGE, &mut random);
    let beyond = (0..MESSAGES).filter(|at| {
        let message = messages.make(*at, &mut random);
        let (_, taken) = peak(|| naive(message.get(5..).unwrap_or_default()));
        taken > case.bound()
    });
    assert!(beyond.count() > 10, "the messages claim too little to find anybody out");
}

#[test]
fn every_bad_golden_value_takes_next_to_nothing() {
    let case = &CASES[0];
    for bad in golden::bad() {
        let (decoded, taken) = peak(|| decode(&mut case.decoder(), &bad.bytes));
        assert_eq!(decoded.rejected.len(), 1, "{}", bad.name);
        assert!(taken < DECODER, "{}: {taken} bytes", bad.name);
    }
}
