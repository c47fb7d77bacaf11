//! How values of a writer's schema are read into the columns of the reader's: Avro's schema resolution, done once for
//! each writer's schema and not for each datum.
//!
//! Besides what the specification lets be read: a UUID in any of its three forms, a decimal of the same scale from bytes
//! or a fixed, and named types under other names, which the registry has compared, unless a union has one of the right
//! name. A logical type is read as another one by nobody: a time in microseconds is no time in milliseconds.

use apache_avro::{
    Schema,
    schema::{DecimalSchema, EnumSchema, InnerDecimalSchema, RecordSchema, SchemaKind, UuidSchema},
};
use arrow_schema::{DataType, Field};

use super::{
    column::{Column, Ends},
    columns::only_value,
    cursor::DAY_MS,
    default,
    names::{Names, Path, PlanError},
    skip::{Node, decimal_limit, per_day},
};

/// How to read one value into its column.
#[derive(Debug)]
pub(super) enum Op {
    Null,
    Boolean,
    Int,
    Date,
    /// Into 64 bits, from as many or from 32.
    Long(Number),
    Timestamp {
        per_day: i64,
    },
    /// Of a day, into 32 bits or 64.
    Time {
        per_day: i64,
    },
    Float(Number),
    Double(Number),
    Text,
    Bytes,
    UuidText,
    UuidBytes,
    Fixed(usize),
    DecimalBytes {
        limit: u128,
    },
    DecimalFixed {
        len: usize,
        limit: u128,
    },
    /// For each of the writer's symbols the number of the reader's.
    Symbol {
        numbers: Box<[Option<i32>]>,
        name: Box<str>,
    },
    /// Never null, into a column that could be.
    Present(Box<Op>),
    /// Always null.
    Absent,
    Union {
        branches: Box<[Branch]>,
        nullable: bool,
    },
    /// Into the column of its type, of the columns that a union of several types has.
    Choice {
        column: usize,
        op: Box<Op>,
    },
    /// Of a type of such a union that has no column.
    Passed(Box<Node>),
    /// Months, days and milliseconds, little-endian.
    Duration,
    Record {
        fields: Box<[FieldOp]>,
        defaults: Box<[Default]>,
    },
    /// `width` is what an item takes in columns besides the bytes that are copied from the datum.
    List {
        item: Box<Op>,
        item_min: usize,
        width: usize,
    },
    Map {
        value: Box<Op>,
        value_min: usize,
        width: usize,
    },
}

/// What a number is written as.
#[derive(Clone, Copy, Debug)]
pub(super) enum Number {
    Int,
    Long,
    Float,
    Double,
}

/// A branch of a writer's union.
#[derive(Debug)]
pub(super) enum Branch {
    Null,
    Value(Op),
    /// The reader has no place for it.
    Unresolved(Box<str>),
}

/// A field of a writer's record, in the order in which they are written.
#[derive(Debug)]
pub(super) enum FieldOp {
    Read { column: usize, op: Op },
    Skip(Node),
}

/// A field that the writer does not have.
#[derive(Debug)]
pub(super) struct Default {
    pub(super) column: usize,
    pub(super) op: Op,
    pub(super) datum: Box<[u8]>,
}

/// Resolves a writer's schema to a reader's.
#[derive(Clone, Copy)]
pub(super) struct Resolver<'n, 'w, 'r> {
    pub(super) writer: &'n Names<'w>,
    pub(super) reader: &'n Names<'r>,
}

impl<'w, 'r> Resolver<'_, 'w, 'r> {
    /// How to read values of `writer` into the column of `field`, which is that of `reader`.
    pub(super) fn value(
        &self,
        writer: (&'w Schema, &Path<'_>),
        reader: (&'r Schema, &Path<'_>),
        field: &Field,
    ) -> Result<Op, PlanError> {
        let (w, w_path) = self.writer.enter(writer.0, writer.1)?;
        let (r, r_path) = self.reader.enter(reader.0, reader.1)?;
        let one = match r {
            Schema::Union(union) => only_value(union),
            other => Some(other),
        };
        let Some(one) = one else { return self.one_of((w, &w_path), (r, &r_path), field) };
        let nullable = matches!(r, Schema::Union(_)) && field.is_nullable();
        match w {
            Schema::Union(union) => {
                let plain = |branch: &'w Schema| self.plain((branch, &w_path), (one, &r_path), field);
                self.branches((w, union), nullable, one, plain)
            }
            Schema::Null if nullable => Ok(Op::Absent),
            w if nullable => Ok(Op::Present(Box::new(self.plain((w, &w_path), (one, &r_path), field)?))),
            w => self.plain((w, &w_path), (one, &r_path), field),
        }
    }

    /// As [`Resolver::value`], for a reader's type that is no union and a writer's that is none either, or a branch of one.
    pub(super) fn plain(
        &self,
        (w, w_path): (&'w Schema, &Path<'_>),
        (r, r_path): (&'r Schema, &Path<'_>),
        field: &Field,
    ) -> Result<Op, PlanError> {
        let (w, w_path) = if let Schema::Ref { .. } = w { self.writer.enter(w, w_path)? } else { (w, *w_path) };
        let (r, r_path) = if let Schema::Ref { .. } = r { self.reader.enter(r, r_path)? } else { (r, *r_path) };
        let unlike = || mismatch(w, r);
        if is_logical(w) && is_logical(r) && SchemaKind::from(w) != SchemaKind::from(r) {
            return Err(unlike());
        }
        let per_day = per_day(r);
        Ok(match (base(w), r) {
            (Base::Null, Schema::Null) => Op::Null,
            (Base::Boolean, Schema::Boolean) => Op::Boolean,
            (Base::Number(Number::Int), Schema::Int) => Op::Int,
            (Base::Number(Number::Int), Schema::TimeMillis) => Op::Time { per_day: DAY_MS },
            (Base::Number(Number::Int), Schema::Date) => Op::Date,
            (Base::Number(number @ (Number::Int | Number::Long)), Schema::Long) => Op::Long(number),
            (Base::Number(Number::Int | Number::Long), Schema::TimeMicros) => Op::Time { per_day: DAY_MS * 1000 },
            // An int is written as a long of the same value is.
            (Base::Number(Number::Int | Number::Long), _) if let Some(per_day) = per_day => Op::Timestamp { per_day },
            (Base::Number(number @ (Number::Int | Number::Long | Number::Float)), Schema::Float) => Op::Float(number),
            (Base::Number(number), Schema::Double) => Op::Double(number),
            (Base::Text | Base::Bytes, Schema::String) => Op::Text,
            (Base::Text | Base::Bytes, Schema::Bytes) => Op::Bytes,
            (Base::Text, Schema::Uuid(_)) => Op::UuidText,
            (Base::Bytes, Schema::Uuid(_)) => Op::UuidBytes,
            (Base::Fixed(16), Schema::Uuid(_)) => Op::Fixed(16),
            (Base::Fixed(12), Schema::Duration(_)) => Op::Duration,
            (Base::Fixed(len), Schema::Fixed(fixed)) if len == fixed.size => Op::Fixed(len),
            (Base::Bytes, Schema::Decimal(decimal)) => Op::DecimalBytes { limit: limit(w, decimal)? },
            (Base::Fixed(len), Schema::Decimal(decimal)) => Op::DecimalFixed { len, limit: limit(w, decimal)? },
            (Base::Enum(w), Schema::Enum(r)) => symbols(w, r),
            (Base::Record(w), Schema::Record(r)) => self.record((w, &w_path), (r, &r_path), field)?,
            (Base::Array(items), Schema::Array(array)) => {
                let DataType::List(item) = field.data_type() else { return Err(unlike()) };
                let item_min = Node::compile(items, self.writer, &w_path)?.min_len();
                let width = Column::new(item).width();
                let item = Box::new(self.value((items, &w_path), (&array.items, &r_path), item)?);
                Op::List { item, item_min, width }
            }
            (Base::Map(values), Schema::Map(map)) => {
                let value = match field.data_type() {
                    DataType::Map(entries, _) => match entries.data_type() {
                        DataType::Struct(entries) => &entries[1],
                        _ => return Err(unlike()),
                    },
                    _ => return Err(unlike()),
                };
                let value_min = Node::compile(values, self.writer, &w_path)?.min_len();
                let width = Column::new(value).width().saturating_add(Ends::WIDTH);
                let value = Box::new(self.value((values, &w_path), (&map.types, &r_path), value)?);
                Op::Map { value, value_min, width }
            }
            _ => return Err(unlike()),
        })
    }

    /// Reader's fields are found by name, then by alias; those without a column are passed over.
    pub(super) fn record(
        &self,
        (w, w_path): (&'w RecordSchema, &Path<'_>),
        (r, r_path): (&'r RecordSchema, &Path<'_>),
        field: &Field,
    ) -> Result<Op, PlanError> {
        let DataType::Struct(columns) = field.data_type() else { unreachable!("a record is a struct") };
        let inside = |name: &str, error| match error {
            PlanError::Unresolved(why) => PlanError::Unresolved(format!("{name}: {why}")),
            other => other,
        };
        let mut readers: Vec<Option<usize>> = vec![None; w.fields.len()];
        let mut defaults = Vec::new();
        for (column, inner) in columns.iter().enumerate() {
            let Some(r) = r.fields.iter().find(|r| r.name == *inner.name()) else { continue };
            let by_name = w.fields.iter().position(|w| w.name == r.name);
            let by_alias = || w.fields.iter().position(|w| r.aliases.contains(&w.name));
            if let Some(at) = by_name.or_else(by_alias).filter(|at| readers[*at].is_none()) {
                readers[at] = Some(column);
                continue;
            }
            let default = r.default.as_ref().ok_or_else(|| {
                PlanError::Unresolved(format!("{}: the writer has no such field, and the reader no default", r.name))
            })?;
            let reader = Resolver { writer: self.reader, reader: self.reader };
            let datum = default::datum(default, &r.schema, self.reader, r_path);
            let op = reader.value((&r.schema, r_path), (&r.schema, r_path), inner);
            let (datum, op) = datum.and_then(|datum| Ok((datum, op?))).map_err(|error| inside(&r.name, error))?;
            defaults.push(Default { column, op, datum: datum.into() });
        }
        let fields = w.fields.iter().zip(readers).filter_map(|(w, column)| {
            let Some(column) = column else {
                let node = Node::compile(&w.schema, self.writer, w_path);
                return node.map(|node| node.takes_bytes().then_some(FieldOp::Skip(node))).transpose();
            };
            let inner = &columns[column];
            let r = r.fields.iter().find(|r| r.name == *inner.name());
            let Some(r) = r else { unreachable!("a column is a field of the reader") };
            let op = self.value((&w.schema, w_path), (&r.schema, r_path), inner);
            let read = op.map(|op| FieldOp::Read { column, op });
            Some(read.map_err(|error| inside(&w.name, error)))
        });
        Ok(Op::Record { fields: fields.collect::<Result<_, _>>()?, defaults: defaults.into() })
    }
}

/// What a value is written as, whatever it means.
pub(super) enum Base<'w> {
    Null,
    Boolean,
    Number(Number),
    Text,
    Bytes,
    Fixed(usize),
    Enum(&'w EnumSchema),
    Record(&'w RecordSchema),
    Array(&'w Schema),
    Map(&'w Schema),
    Other,
}

/// What a value of `schema` is written as.
pub(super) fn base(schema: &Schema) -> Base<'_> {
    match schema {
        Schema::Null => Base::Null,
        Schema::Boolean => Base::Boolean,
        Schema::Int | Schema::Date | Schema::TimeMillis => Base::Number(Number::Int),
        Schema::Long
        | Schema::TimeMicros
        | Schema::TimestampMillis
        | Schema::TimestampMicros
        | Schema::TimestampNanos
        | Schema::LocalTimestampMillis
        | Schema::LocalTimestampMicros
        | Schema::LocalTimestampNanos => Base::Number(Number::Long),
        Schema::Float => Base::Number(Number::Float),
        Schema::Double => Base::Number(Number::Double),
        Schema::String | Schema::Uuid(UuidSchema::String) => Base::Text,
        Schema::Bytes | Schema::BigDecimal | Schema::Uuid(UuidSchema::Bytes) => Base::Bytes,
        Schema::Fixed(fixed) | Schema::Duration(fixed) | Schema::Uuid(UuidSchema::Fixed(fixed)) => {
            Base::Fixed(fixed.size)
        }
        Schema::Decimal(decimal) => match &decimal.inner {
            InnerDecimalSchema::Bytes => Base::Bytes,
            InnerDecimalSchema::Fixed(fixed) => Base::Fixed(fixed.size),
        },
        Schema::Enum(symbols) => Base::Enum(symbols),
        Schema::Record(record) => Base::Record(record),
        Schema::Array(array) => Base::Array(&array.items),
        Schema::Map(map) => Base::Map(&map.types),
        Schema::Union(_) | Schema::Ref { .. } => Base::Other,
    }
}

fn is_logical(schema: &Schema) -> bool {
    use Schema as S;
    !matches!(
        schema,
        S::Null
            | S::Boolean
            | S::Int
            | S::Long
            | S::Float
            | S::Double
            | S::Bytes
            | S::String
            | S::Array(_)
            | S::Map(_)
            | S::Union(_)
            | S::Record(_)
            | S::Enum(_)
            | S::Fixed(_)
            | S::Ref { .. }
    )
}

/// What the reader's unscaled values stay below; the writer's have to mean the same.
fn limit(writer: &Schema, reader: &DecimalSchema) -> Result<u128, PlanError> {
    match writer {
        Schema::Decimal(writer) if writer.scale != reader.scale => Err(PlanError::Unresolved(format!(
            "the writer's decimal has {} digits after the point, the reader's {}",
            writer.scale, reader.scale
        ))),
        _ => decimal_limit(reader).ok_or_else(|| PlanError::NoColumn("a decimal of more than 38 digits".to_owned())),
    }
}

fn symbols(writer: &EnumSchema, reader: &EnumSchema) -> Op {
    let number = |symbol: &String| {
        let at = reader.symbols.iter().position(|known| known == symbol);
        let default = || reader.default.as_ref().and_then(|default| reader.symbols.iter().position(|s| s == default));
        at.or_else(default).and_then(|at| i32::try_from(at).ok())
    };
    Op::Symbol { numbers: writer.symbols.iter().map(number).collect(), name: writer.name.to_string().into() }
}

pub(super) fn mismatch(writer: &Schema, reader: &Schema) -> PlanError {
    let kind = |schema| format!("{:?}", SchemaKind::from(schema)).to_lowercase();
    PlanError::Unresolved(format!("the writer has {}, which cannot be read as {}", kind(writer), kind(reader)))
}
