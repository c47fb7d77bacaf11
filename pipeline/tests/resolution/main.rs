//! Avro schema resolution, against apache-avro: pairs of a writer's and a reader's schema are made at random, values of the
//! writer's are written by apache-avro, and read by it and by [`Decoder`]. Both have to come to the same value, or both
//! to refuse. A pair that was broken on purpose may be refused by ours where apache-avro, which goes by each value,
//! finds one that would do; never the other way round.
//!
//! `MILLRACE_CASES=100000 cargo test --release -p millrace-pipeline --test resolution` tries that many pairs, of
//! [`VALUES`] values each, instead of [`CASES`]; `MILLRACE_SEED=<n>` replays one.
//!
//! Where the two differ it is a decision, and has a test of its own in `decisions.rs`:
//!
//! | what | Millrace | apache-avro | why |
//! | --- | --- | --- | --- |
//! | a pair that cannot be resolved, such as `long` to `int`, `double` to `float`, `fixed` to `string` | every value refused | a value that would do is taken | the specification; what fits today breaks tomorrow |
//! | a field renamed, with an alias | read | not found | the specification |
//! | a union's record of another name, with the same fields | refused if another branch has the name | taken | two kinds of event may have the same fields |
//! | `date` and other logical types as what they are written as | read | refused | the specification: one who does not know a logical type reads the type under it |
//! | one logical type as another | refused | refused, too | a time in microseconds is none in milliseconds |
//! | a decimal in fewer bytes than its precision could need | read | refused | the specification lets each value have as few bytes as do |
//! | a decimal beyond its precision | refused | taken | its column cannot hold it |
//! | decimals of different scales | refused | digits taken as they are | 1.00 would become 10.0 |
//! | dates and timestamps before 1900 or after 2299 | refused | taken | ClickHouse's calendar would clip them in silence |
//! | a time before midnight, or after the day's end | refused | taken | its column would hold what is no time of a day |
//! | a UUID in text without hyphens | refused | taken | RFC 9562 has one form |
//! | a UUID from text into a fixed | read | sixteen characters taken as bytes | that is what the text means |
//! | the default of `bytes` and `fixed` | characters 0 to 255 are bytes | UTF-8 | the specification |
//! | the default of a union | the first branch that takes it | the first branch | the specification since 1.12 |

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod compare;
mod decisions;
mod evolve;
mod random;
mod schema;
mod value;

use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};

use apache_avro::{
    Schema as AvroSchema, reader::datum::GenericDatumReader, types::Value, writer::datum::GenericDatumWriter,
};
use arrow_array::{ArrayRef, StructArray};
use millrace_pipeline::{
    decode::{DecodeLimits, Decoded, Decoder},
    record::Record,
};

use self::{
    evolve::{Changes, Evolution},
    random::Random,
    schema::{Schema, Type},
};

/// Pairs of schemas in each run of the tests.
const CASES: u64 = 5_000;
/// Values of each pair.
const VALUES: usize = 4;
/// What has to have happened in a run, or it proves little.
const EXPECTED: [&str; 18] = [
    "a branch added",
    "a branch removed",
    "a field added with a default",
    "a field added without a default",
    "a field removed",
    "a field renamed",
    "a named type renamed",
    "a nullable type made one that is never null",
    "a symbol added",
    "a symbol unknown",
    "a symbol unknown, with a default",
    "a type become one of several",
    "a type made nullable",
    "a type narrowed",
    "a type promoted",
    "a type replaced",
    "branches reordered",
    "fields reordered",
];

/// What ours and apache-avro's reader make of datums.
struct Both {
    ours: Decoded,
    theirs: Vec<Result<Value, String>>,
}

/// Reads datums of `writer` by `reader`; apache-avro, which knows no aliases, takes the writer's schema as `aliased`.
fn read(writer: &str, aliased: &str, reader: &str, datums: &[Vec<u8>]) -> Both {
    let mut decoder = Decoder::new(reader, DecodeLimits::default()).unwrap();
    decoder.learn(1, writer);
    let values: Vec<Vec<u8>> = datums.iter().map(|datum| [&[0, 0, 0, 0, 1], &datum[..]].concat()).collect();
    let records: Vec<Record<'_>> =
        values.iter().map(|value| Record { partition: 0, offset: 0, timestamp_ms: 0, value: Some(value) }).collect();
    let ours = decoder.decode(&records);
    let [aliased, reader] = [aliased, reader].map(|schema| AvroSchema::parse_str(schema).unwrap());
    let resolving = GenericDatumReader::builder(&aliased).reader_schema(&reader).build().unwrap();
    let theirs = datums.iter().map(|datum| resolving.read_value(&mut &datum[..]).map_err(|error| error.to_string()));
    Both { theirs: theirs.collect(), ours }
}

#[derive(Default)]
struct Tally {
    changes: Changes,
    read: usize,
    refused: usize,
    refused_by_ours: usize,
}

impl Tally {
    fn add(&mut self, other: Self) {
        for (change, times) in other.changes {
            *self.changes.entry(change).or_default() += times;
        }
        self.read += other.read;
        self.refused += other.refused;
        self.refused_by_ours += other.refused_by_ours;
    }
}

/// One pair; what differs, if anything does.
fn case(seed: u64) -> Result<Tally, String> {
    let mut random = Random::new(seed);
    let writer = Schema::random(&mut random);
    let evolution = Evolution::of(&writer, &mut random);
    let Evolution { reader, broken, changes } = &evolution;
    let (written, aliased, wanted) = (writer.json(), evolution.writer_by_alias(&writer).json(), reader.json());
    let parsed = AvroSchema::parse_str(&written).map_err(|error| format!("{error}: {written}"))?;
    let to_bytes = GenericDatumWriter::builder(&parsed).build().map_err(|error| format!("{error}: {written}"))?;
    let datums: Result<Vec<Vec<u8>>, String> = (0..VALUES)
        .map(|_| {
            let value = value::of(&writer, &Type::Named(writer.root), &mut random);
            to_bytes.write_value_to_vec(value).map_err(|error| format!("{error}: {written}"))
        })
        .collect();
    let Both { ours, theirs } = read(&written, &aliased, &wanted, &datums?);
    let rows: ArrayRef = std::sync::Arc::new(StructArray::from(ours.rows));
    let mut tally = Tally { changes: changes.clone(), ..Tally::default() };
    for (at, value) in (0u32..).zip(theirs) {
        let rejected = ours.rejected.iter().find(|(rejected, _)| *rejected == at).map(|(_, why)| why.to_string());
        let row = ours.origin.iter().position(|origin| *origin == at);
        let found = match (row, value) {
            (Some(row), Ok(value)) => {
                tally.read += 1;
                compare::same(reader, &Type::Named(reader.root), &rows, row, &value)
            }
            (None, Err(_)) => {
                tally.refused += 1;
                Ok(())
            }
            (None, Ok(_)) if *broken => {
                tally.refused_by_ours += 1;
                Ok(())
            }
            (None, Ok(value)) => {
                Err(format!("refused: {}, but apache-avro reads {value:?}", rejected.unwrap_or_default()))
            }
            (Some(_), Err(error)) => Err(format!("read, but apache-avro refuses: {error}")),
        };
        found.map_err(|error| format!("{error}\nwriter {written}\nreader {wanted}\nchanges {changes:?}"))?;
    }
    Ok(tally)
}

#[expect(clippy::disallowed_methods, reason = "how many cases to run is the developer's choice")]
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}: {text} is no number")))
}

#[test]
#[expect(clippy::print_stdout, reason = "how often each change happened is the worth of the test")]
#[expect(clippy::disallowed_methods, reason = "seeds are independent: each core takes the next")]
fn random_pairs_of_schemas_are_resolved_as_apache_avro_resolves_them() {
    if let Some(seed) = number("MILLRACE_SEED") {
        case(seed).unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
        return;
    }
    let cases = number("MILLRACE_CASES").unwrap_or(CASES);
    let (next, all) = (AtomicU64::new(0), Mutex::new((Tally::default(), None::<(u64, String)>)));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                let mut tally = Tally::default();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= cases {
                        break;
                    }
                    match case(seed) {
                        Ok(one) => tally.add(one),
                        Err(wrong) => {
                            let first = &mut all.lock().unwrap().1;
                            if first.as_ref().is_none_or(|(other, _)| seed < *other) {
                                *first = Some((seed, wrong));
                            }
                            next.fetch_max(cases, Ordering::Relaxed);
                        }
                    }
                }
                all.lock().unwrap().0.add(tally);
            });
        }
    });
    let (tally, found) = all.into_inner().unwrap();
    if let Some((seed, wrong)) = found {
        panic!(
            "{wrong}\nreplay: MILLRACE_SEED={seed} cargo test --release -p millrace-pipeline --test resolution random"
        );
    }
    let Tally { changes, read, refused, refused_by_ours } = tally;
    println!(
        "{cases} pairs of schemas: {read} values read alike, {refused} refused by both, {refused_by_ours} by ours only"
    );
    changes.iter().for_each(|(change, times)| println!("{times:>8} times {change}"));
    for change in EXPECTED {
        assert!(changes.contains_key(change), "{change} never happened, which proves nothing");
    }
    assert!(read > refused && refused > 0, "both have to happen, and most pairs are sound");
}
