//! Decodes a datum as far as it goes, field by field, and tells the byte where it breaks. Slow and for people: what lands is
//! decided by the pipeline's own decoder, whose rules for what breaks where these are. Pure, and bounded whatever the bytes
//! or the schema claim.

mod bytes;

use std::collections::HashMap;

use apache_avro::{
    Schema,
    schema::{InnerDecimalSchema, Name, UuidSchema},
};
use millrace_pipeline::{decode::named_types, reason::Reason};
use serde_json::{Value, json};

use self::bytes::{Bytes, decimal_text, shown_bytes, shown_text};
use crate::time::{format_date, format_time};

/// Fields that are shown; what follows is left out.
const MAX_FIELDS: usize = 10_000;
/// Values that are looked at, shown or not: an item may have no bytes and no fields.
const MAX_VALUES: usize = 100_000;
/// Types that are looked at for the fewest bytes of a value.
const MAX_LOOKS: usize = 1_000;
/// Deeper values are left out.
const MAX_DEPTH: usize = 64;

/// What a datum holds.
#[derive(Debug)]
pub struct Walk {
    /// In the order of the datum.
    pub fields: Vec<Field>,
    /// How it ends.
    pub end: End,
}

/// A value that is no record, array or map, or one of these without anything in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// `data.items[0].sku`.
    pub path: String,
    /// Byte of the datum at which it begins.
    pub at: usize,
    /// As near to JSON as it comes; long texts and bytes are cut.
    pub value: Value,
}

/// How a datum ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// With its last byte.
    Whole,
    /// Before its last byte.
    TrailingBytes {
        /// Byte of the datum at which the first of them lies.
        at: usize,
    },
    /// In the middle.
    Broken {
        /// Byte of the datum at which the value begins that breaks.
        from: usize,
        /// Byte of the datum at which it breaks, as the pipeline tells it: some things are wrong only once they are read.
        at: usize,
        /// Path of the value that breaks.
        path: String,
        /// Why.
        reason: Reason,
    },
    /// It goes on, but more of it is not shown.
    Shortened {
        /// Byte of the datum from which on nothing is shown.
        at: usize,
    },
}

/// Walks a datum by the schema that it was written with.
pub fn walk(schema: &Schema, datum: &[u8]) -> Walk {
    let mut walker = Walker {
        bytes: Bytes { datum, at: 0 },
        names: named_types(schema),
        fields: Vec::new(),
        path: String::new(),
        from: 0,
        values_left: MAX_VALUES,
    };
    let end = match walker.value(schema, 0) {
        Ok(()) if walker.bytes.at == datum.len() => End::Whole,
        Ok(()) => End::TrailingBytes { at: walker.bytes.at },
        Err(Stop::Broken(reason)) => End::Broken { from: walker.from, at: walker.bytes.at, path: walker.path, reason },
        Err(Stop::Enough) => End::Shortened { at: walker.bytes.at },
    };
    Walk { fields: walker.fields, end }
}

/// Why the walk does not go on.
enum Stop {
    Broken(Reason),
    Enough,
}

impl From<Reason> for Stop {
    fn from(reason: Reason) -> Self {
        Self::Broken(reason)
    }
}

struct Walker<'a> {
    bytes: Bytes<'a>,
    names: HashMap<&'a Name, &'a Schema>,
    fields: Vec<Field>,
    /// Of the value that is being read; after an error, of the value at fault.
    path: String,
    /// Where that value begins.
    from: usize,
    values_left: usize,
}

impl<'a> Walker<'a> {
    fn value(&mut self, schema: &'a Schema, depth: usize) -> Result<(), Stop> {
        self.values_left = self.values_left.checked_sub(1).filter(|_| depth < MAX_DEPTH).ok_or(Stop::Enough)?;
        let at = self.bytes.at;
        self.from = at;
        let value = match self.named(schema)? {
            Schema::Record(record) if !record.fields.is_empty() => {
                for field in &record.fields {
                    let dot = if self.path.is_empty() { "" } else { "." };
                    self.inside(&format!("{dot}{}", field.name), &field.schema, depth)?;
                }
                return Ok(());
            }
            Schema::Record(_) => json!({}),
            Schema::Array(array) => {
                let item_min = self.min_len(&array.items);
                let items =
                    self.blocks(item_min, |walker, item| walker.inside(&format!("[{item}]"), &array.items, depth))?;
                if items > 0 {
                    return Ok(());
                }
                json!([])
            }
            Schema::Map(map) => {
                let entry_min = self.min_len(&map.types).saturating_add(1);
                let entries = self.blocks(entry_min, |walker, _| {
                    let key = shown_text(walker.bytes.string()?).to_string();
                    walker.inside(&format!("[{key}]"), &map.types, depth)
                })?;
                if entries > 0 {
                    return Ok(());
                }
                json!({})
            }
            Schema::Union(union) => {
                let branch = self.bytes.index(union.variants().len(), Reason::BadUnionIndex)?;
                return self.value(&union.variants()[branch], depth + 1);
            }
            scalar => self.scalar(scalar)?,
        };
        if self.fields.len() == MAX_FIELDS {
            self.bytes.at = at;
            return Err(Stop::Enough);
        }
        self.fields.push(Field { path: self.path.clone(), at, value });
        Ok(())
    }

    /// A value inside this one; the path is left as it is if it breaks.
    fn inside(&mut self, step: &str, schema: &'a Schema, depth: usize) -> Result<(), Stop> {
        let len = self.path.len();
        self.path.push_str(step);
        self.value(schema, depth + 1)?;
        self.path.truncate(len);
        Ok(())
    }

    /// Blocks of items; how many items there were.
    fn blocks(&mut self, item_min: u64, mut item: impl FnMut(&mut Self, u64) -> Result<(), Stop>) -> Result<u64, Stop> {
        let mut items = 0;
        loop {
            let before = self.bytes.at;
            self.from = before;
            let count = self.bytes.long()?;
            if count == 0 {
                return Ok(items);
            }
            let size = if count < 0 { Some(self.bytes.long()?) } else { None };
            let count = count.unsigned_abs();
            if count.saturating_mul(item_min) > self.bytes.left() {
                self.bytes.at = before;
                return Err(Reason::BadLength.into());
            }
            let start = self.bytes.at;
            for _ in 0..count {
                item(self, items)?;
                items += 1;
            }
            let read = (self.bytes.at - start) as i64;
            if size.is_some_and(|size| size != read) {
                return Err(Reason::BadLength.into());
            }
        }
    }

    fn scalar(&mut self, schema: &'a Schema) -> Result<Value, Stop> {
        let bytes = &mut self.bytes;
        Ok(match schema {
            Schema::Null => Value::Null,
            Schema::Boolean => json!(bytes.boolean()?),
            Schema::Int | Schema::TimeMillis => json!(bytes.int()?),
            Schema::Long | Schema::TimeMicros => json!(bytes.long()?),
            Schema::Float => number(f32::from_le_bytes(bytes.array()?).into()),
            Schema::Double => number(f64::from_le_bytes(bytes.array()?)),
            Schema::Bytes | Schema::BigDecimal => shown_bytes(bytes.bytes()?),
            Schema::String => shown_text(bytes.string()?),
            Schema::Enum(symbols) => {
                let symbol = bytes.index_int(symbols.symbols.len(), Reason::BadEnumIndex)?;
                json!(symbols.symbols[symbol])
            }
            Schema::Fixed(fixed) | Schema::Duration(fixed) => shown_bytes(bytes.take(fixed.size)?),
            Schema::Decimal(decimal) => {
                let unscaled = match &decimal.inner {
                    InnerDecimalSchema::Bytes => bytes.bytes()?,
                    InnerDecimalSchema::Fixed(fixed) => bytes.take(fixed.size)?,
                };
                // More bytes than the widest column has are what the pipeline refuses, and so is none.
                json!(decimal_text(unscaled, decimal.scale).ok_or(Reason::BadLength)?)
            }
            Schema::Uuid(UuidSchema::String) => json!(bytes.uuid_text()?),
            Schema::Uuid(UuidSchema::Bytes) => {
                let uuid = uuid::Uuid::from_slice(bytes.bytes()?).map_err(|_| Reason::BadUuid)?;
                json!(uuid.to_string())
            }
            Schema::Uuid(UuidSchema::Fixed(fixed)) => shown_bytes(bytes.take(fixed.size)?),
            Schema::Date => json!(format_date(bytes.int()?.into())),
            Schema::TimestampMillis | Schema::LocalTimestampMillis => json!(format_time(bytes.long()?)),
            Schema::TimestampMicros | Schema::LocalTimestampMicros => {
                json!(format_time(bytes.long()?.div_euclid(1_000)))
            }
            Schema::TimestampNanos | Schema::LocalTimestampNanos => {
                json!(format_time(bytes.long()?.div_euclid(1_000_000)))
            }
            Schema::Array(_) | Schema::Map(_) | Schema::Union(_) | Schema::Record(_) | Schema::Ref { .. } => {
                unreachable!("told apart before")
            }
        })
    }

    /// What a name stands for.
    fn named(&self, schema: &'a Schema) -> Result<&'a Schema, Stop> {
        match schema {
            Schema::Ref { name } => self.names.get(name).copied().ok_or(Stop::Broken(Reason::Unreadable)),
            other => Ok(other),
        }
    }

    /// Fewest bytes that a value of a schema can have, or fewer if that takes long to find out.
    fn min_len(&self, schema: &'a Schema) -> u64 {
        let mut looks_left = MAX_LOOKS;
        self.min_len_within(schema, &mut looks_left)
    }

    fn min_len_within(&self, schema: &'a Schema, looks_left: &mut usize) -> u64 {
        let Some(left) = looks_left.checked_sub(1) else { return 0 };
        *looks_left = left;
        match schema {
            // A type that contains itself does so by name.
            Schema::Ref { name } => match self.names.get(name) {
                Some(schema) => self.min_len_within(schema, looks_left),
                None => 0,
            },
            Schema::Null => 0,
            Schema::Float => 4,
            Schema::Double => 8,
            Schema::Fixed(fixed) | Schema::Duration(fixed) | Schema::Uuid(UuidSchema::Fixed(fixed)) => {
                fixed.size as u64
            }
            Schema::Decimal(decimal) => match &decimal.inner {
                InnerDecimalSchema::Bytes => 2,
                InnerDecimalSchema::Fixed(fixed) => fixed.size as u64,
            },
            Schema::Uuid(UuidSchema::String) => 37,
            Schema::Uuid(UuidSchema::Bytes) => 17,
            Schema::Union(union) => {
                let branches = union.variants().iter().map(|branch| self.min_len_within(branch, looks_left));
                branches.min().unwrap_or(0).saturating_add(1)
            }
            Schema::Record(record) => {
                let fields = record.fields.iter().map(|field| self.min_len_within(&field.schema, looks_left));
                fields.fold(0, u64::saturating_add)
            }
            _ => 1,
        }
    }
}

/// JSON has no infinities.
fn number(number: f64) -> Value {
    if number.is_finite() { json!(number) } else { json!(number.to_string()) }
}

#[cfg(test)]
mod tests;
