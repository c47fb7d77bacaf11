//! Random values of a schema, as apache-avro writes them; of days and times those that ClickHouse's calendar has.

use apache_avro::{Days, Duration, Millis, Months, types::Value};

use crate::{
    random::Random,
    schema::{Digits, FixedLogical, Kind, Schema, Type},
};

const DAY_MS: i64 = 86_400_000;

pub(crate) fn of(schema: &Schema, type_: &Type, random: &mut Random) -> Value {
    let instant =
        |random: &mut Random, per_day: i64| i64::from(random.day()) * per_day + random.below(per_day as usize) as i64;
    match type_ {
        Type::Primitive("null") => Value::Null,
        Type::Primitive("boolean") => Value::Boolean(random.one_in(2)),
        Type::Primitive("int") => Value::Int(random.next() as i32 >> random.below(32)),
        Type::Primitive("long") => Value::Long(random.next() as i64 >> random.below(64)),
        Type::Primitive("float") => Value::Float(f32::from_bits(random.next() as u32)),
        Type::Primitive("double") => Value::Double(f64::from_bits(random.next())),
        Type::Primitive("string") => Value::String(text(random)),
        Type::Primitive("bytes") if random.one_in(2) => Value::Bytes(text(random).into_bytes()),
        Type::Primitive("bytes") => Value::Bytes(bytes(random)),
        Type::Logical(_, "uuid") => Value::Uuid(random.uuid()),
        Type::Logical(_, "date") => Value::Date(random.day()),
        Type::Logical(_, "time-millis") => Value::TimeMillis(random.below(DAY_MS as usize) as i32),
        Type::Logical(_, "time-micros") => Value::TimeMicros(random.below(DAY_MS as usize * 1000) as i64),
        Type::Logical(_, "timestamp-millis") => Value::TimestampMillis(instant(random, DAY_MS)),
        Type::Logical(_, "timestamp-micros") => Value::TimestampMicros(instant(random, DAY_MS * 1000)),
        Type::Logical(_, "timestamp-nanos") => Value::TimestampNanos(nanos(random)),
        Type::Logical(_, "local-timestamp-millis") => Value::LocalTimestampMillis(instant(random, DAY_MS)),
        Type::Logical(_, "local-timestamp-micros") => Value::LocalTimestampMicros(instant(random, DAY_MS * 1000)),
        Type::Logical(_, "local-timestamp-nanos") => Value::LocalTimestampNanos(nanos(random)),
        Type::Primitive(other) | Type::Logical(_, other) => unreachable!("{other}"),
        Type::Decimal(digits) => decimal(*digits, random),
        Type::Array(items) => Value::Array((0..random.below(4)).map(|_| of(schema, items, random)).collect()),
        Type::Map(values) => {
            Value::Map((0..random.below(4)).map(|at| (format!("k{at}"), of(schema, values, random))).collect())
        }
        Type::Union(branches) => {
            let at = random.below(branches.len());
            Value::Union(at as u32, Box::new(of(schema, &branches[at], random)))
        }
        Type::Named(at) => match &schema.named[*at].kind {
            Kind::Record(fields) => Value::Record(
                fields.iter().map(|field| (field.name.clone(), of(schema, &field.type_, random))).collect(),
            ),
            Kind::Enum { symbols, .. } => {
                let at = random.below(symbols.len());
                Value::Enum(at as u32, symbols[at].clone())
            }
            Kind::Fixed { logical: Some(FixedLogical::Uuid), .. } => Value::Uuid(random.uuid()),
            Kind::Fixed { logical: Some(FixedLogical::Decimal(digits)), .. } => decimal(*digits, random),
            Kind::Fixed { logical: Some(FixedLogical::Duration), .. } => {
                let [months, days, millis] = [(); 3].map(|()| random.next() as u32);
                Value::Duration(Duration::new(Months::new(months), Days::new(days), Millis::new(millis)))
            }
            Kind::Fixed { size, logical: None } => {
                Value::Fixed(*size, (0..*size).map(|_| random.next() as u8).collect())
            }
        },
    }
}

fn text(random: &mut Random) -> String {
    let long = "x".repeat(70);
    random.pick(&["", "a", "1.5", "naïve", "東京", &long]).to_string()
}

/// Seldom text.
fn bytes(random: &mut Random) -> Vec<u8> {
    (0..random.below(9)).map(|_| random.next() as u8).collect()
}

/// Those that 64 bits hold end in 2262.
fn nanos(random: &mut Random) -> i64 {
    i64::from(random.day() % 90_000) * DAY_MS * 1_000_000 + random.below(86_400_000_000_000) as i64
}

/// In all the bytes that its precision asks for.
fn decimal(digits: Digits, random: &mut Random) -> Value {
    let limit = 10i128.pow(digits.precision);
    let wide = i128::from(random.next() as i64) << 64 | i128::from(random.next());
    let unscaled = (wide % limit) >> random.below(40);
    Value::Decimal(unscaled.to_be_bytes()[16 - digits.bytes()..].into())
}
