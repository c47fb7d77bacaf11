//! A column under construction. Every value that is begun is either finished or cut off again, so that a datum which
//! breaks half-way leaves nothing behind.

use std::{mem::take, sync::Arc};

use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, Decimal128Array, DictionaryArray, FixedSizeBinaryArray, Int32Array, ListArray,
    MapArray, NullArray, PrimitiveArray, StringArray, StructArray, types,
};
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{ArrowError, DataType, Field, TimeUnit};

use super::columns::symbols;

/// The values of one column, and what lies inside it.
#[derive(Debug)]
pub(super) enum Column {
    Null(usize),
    Boolean(Vec<bool>),
    /// Also days, and milliseconds of a day.
    Int(Vec<i32>),
    /// Also timestamps, and microseconds of a day.
    Long(Vec<i64>),
    /// Parts of durations.
    Unsigned(Vec<u32>),
    Float(Vec<f32>),
    Double(Vec<f64>),
    /// Text or bytes.
    Bytes(Bytes),
    Fixed {
        len: usize,
        bytes: Vec<u8>,
    },
    Decimal(Vec<i128>),
    /// Numbers of symbols of the reader's enum.
    Symbol {
        keys: Vec<i32>,
        symbols: ArrayRef,
    },
    Nullable {
        valid: Vec<bool>,
        values: Box<Column>,
    },
    /// Never without a field.
    Record(Vec<Column>),
    List {
        ends: Ends,
        items: Box<Column>,
    },
    Map {
        ends: Ends,
        keys: Bytes,
        values: Box<Column>,
    },
}

/// Values of differing lengths, end to end.
#[derive(Debug, Default)]
pub(super) struct Bytes {
    ends: Ends,
    bytes: Vec<u8>,
}

/// Where each value of differing length ends: in bytes, or in items.
#[derive(Debug, Default)]
pub(super) struct Ends(Vec<i32>);

impl Column {
    /// An empty column for values of this field, which is that of a reader's schema.
    pub(super) fn new(field: &Field) -> Self {
        let values = match field.data_type() {
            DataType::Null => Self::Null(0),
            DataType::Boolean => Self::Boolean(Vec::new()),
            DataType::Int32 | DataType::Date32 | DataType::Time32(_) => Self::Int(Vec::new()),
            DataType::Int64 | DataType::Time64(_) | DataType::Timestamp(..) => Self::Long(Vec::new()),
            DataType::UInt32 => Self::Unsigned(Vec::new()),
            DataType::Float32 => Self::Float(Vec::new()),
            DataType::Float64 => Self::Double(Vec::new()),
            DataType::Utf8 | DataType::Binary => Self::Bytes(Bytes::default()),
            DataType::FixedSizeBinary(len) => Self::Fixed { len: *len as usize, bytes: Vec::new() },
            DataType::Decimal128(..) => Self::Decimal(Vec::new()),
            DataType::Dictionary(..) => {
                let symbols = Arc::new(StringArray::from_iter_values(symbols(field)));
                Self::Symbol { keys: Vec::new(), symbols }
            }
            DataType::Struct(fields) => Self::Record(fields.iter().map(|field| Self::new(field)).collect()),
            DataType::List(item) => Self::List { ends: Ends::default(), items: Box::new(Self::new(item)) },
            DataType::Map(entries, _) => {
                let DataType::Struct(entries) = entries.data_type() else { unreachable!("entries are a struct") };
                let values = Box::new(Self::new(&entries[1]));
                Self::Map { ends: Ends::default(), keys: Bytes::default(), values }
            }
            other => unreachable!("no field of a reader's schema is of type {other}"),
        };
        let nullable = field.is_nullable() && !matches!(values, Self::Null(_));
        if nullable { Self::Nullable { valid: Vec::new(), values: Box::new(values) } } else { values }
    }

    /// Number of values.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Null(len) => *len,
            Self::Boolean(values) => values.len(),
            Self::Int(values) | Self::Symbol { keys: values, .. } => values.len(),
            Self::Long(values) => values.len(),
            Self::Unsigned(values) => values.len(),
            Self::Float(values) => values.len(),
            Self::Double(values) => values.len(),
            Self::Bytes(values) => values.ends.0.len(),
            Self::Fixed { len, bytes } => bytes.len() / len,
            Self::Decimal(values) => values.len(),
            Self::Nullable { valid, .. } => valid.len(),
            Self::Record(fields) => fields[0].len(),
            Self::List { ends, .. } | Self::Map { ends, .. } => ends.0.len(),
        }
    }

    /// Bytes that a value takes, a null too, besides those that are copied from its datum; those of items are not counted.
    pub(super) fn width(&self) -> usize {
        match self {
            // Nothing takes no memory, but time.
            Self::Null(_) | Self::Boolean(_) => 1,
            Self::Int(_) | Self::Unsigned(_) | Self::Symbol { .. } | Self::Float(_) => 4,
            Self::Long(_) | Self::Double(_) => 8,
            Self::Bytes(_) | Self::List { .. } | Self::Map { .. } => Ends::WIDTH,
            Self::Fixed { len, .. } => *len,
            Self::Decimal(_) => 16,
            Self::Nullable { values, .. } => values.width().saturating_add(1),
            Self::Record(fields) => fields.iter().map(Self::width).fold(0, usize::saturating_add),
        }
    }

    /// Appends a value that nobody will read, under a null.
    pub(super) fn push_nothing(&mut self) {
        match self {
            Self::Null(len) => *len += 1,
            Self::Boolean(values) => values.push(false),
            Self::Int(values) | Self::Symbol { keys: values, .. } => values.push(0),
            Self::Long(values) => values.push(0),
            Self::Unsigned(values) => values.push(0),
            Self::Float(values) => values.push(0.0),
            Self::Double(values) => values.push(0.0),
            Self::Bytes(values) => values.ends.repeat(),
            Self::Fixed { len, bytes } => bytes.resize(bytes.len() + *len, 0),
            Self::Decimal(values) => values.push(0),
            Self::Nullable { valid, values } => {
                valid.push(false);
                values.push_nothing();
            }
            Self::Record(fields) => fields.iter_mut().for_each(Self::push_nothing),
            Self::List { ends, .. } | Self::Map { ends, .. } => ends.repeat(),
        }
    }

    /// Cuts off what was begun after the first `len` values, whole or in part.
    pub(super) fn truncate(&mut self, len: usize) {
        match self {
            Self::Null(values) => *values = len.min(*values),
            Self::Boolean(values) => values.truncate(len),
            Self::Int(values) | Self::Symbol { keys: values, .. } => values.truncate(len),
            Self::Long(values) => values.truncate(len),
            Self::Unsigned(values) => values.truncate(len),
            Self::Float(values) => values.truncate(len),
            Self::Double(values) => values.truncate(len),
            Self::Bytes(values) => values.truncate(len),
            Self::Fixed { len: each, bytes } => bytes.truncate(len * *each),
            Self::Decimal(values) => values.truncate(len),
            Self::Nullable { valid, values } => {
                valid.truncate(len);
                values.truncate(len);
            }
            Self::Record(fields) => fields.iter_mut().for_each(|field| field.truncate(len)),
            Self::List { ends, items } => items.truncate(ends.truncate(len)),
            Self::Map { ends, keys, values } => {
                let entries = ends.truncate(len);
                keys.truncate(entries);
                values.truncate(entries);
            }
        }
    }

    /// Takes the values out as an array of the field's type, and is empty then, with room for as many again.
    ///
    /// # Errors
    /// When text was trusted that is not UTF-8; the values are gone then.
    pub(super) fn close(&mut self, field: &Field) -> Result<ArrayRef, ArrowError> {
        match self {
            Self::Nullable { valid, values } => {
                let nulls = NullBuffer::new(BooleanBuffer::from(renew(valid)));
                values.close_values(field, Some(nulls).filter(|nulls| nulls.null_count() > 0))
            }
            values => values.close_values(field, None),
        }
    }

    fn close_values(&mut self, field: &Field, nulls: Option<NullBuffer>) -> Result<ArrayRef, ArrowError> {
        let data_type = field.data_type();
        Ok(match self {
            Self::Null(len) => Arc::new(NullArray::new(take(len))),
            Self::Boolean(values) => Arc::new(BooleanArray::new(BooleanBuffer::from(renew(values)), nulls)),
            Self::Int(values) => match data_type {
                DataType::Date32 => primitive::<types::Date32Type>(values, data_type, nulls)?,
                DataType::Time32(_) => primitive::<types::Time32MillisecondType>(values, data_type, nulls)?,
                _ => primitive::<types::Int32Type>(values, data_type, nulls)?,
            },
            Self::Long(values) => match data_type {
                DataType::Time64(_) => primitive::<types::Time64MicrosecondType>(values, data_type, nulls)?,
                DataType::Timestamp(TimeUnit::Millisecond, _) => {
                    primitive::<types::TimestampMillisecondType>(values, data_type, nulls)?
                }
                DataType::Timestamp(TimeUnit::Microsecond, _) => {
                    primitive::<types::TimestampMicrosecondType>(values, data_type, nulls)?
                }
                DataType::Timestamp(..) => primitive::<types::TimestampNanosecondType>(values, data_type, nulls)?,
                _ => primitive::<types::Int64Type>(values, data_type, nulls)?,
            },
            Self::Unsigned(values) => primitive::<types::UInt32Type>(values, data_type, nulls)?,
            Self::Float(values) => primitive::<types::Float32Type>(values, data_type, nulls)?,
            Self::Double(values) => primitive::<types::Float64Type>(values, data_type, nulls)?,
            Self::Decimal(values) => {
                Arc::new(Decimal128Array::try_new(renew(values).into(), nulls)?.with_data_type(data_type.clone()))
            }
            Self::Bytes(values) => {
                let (offsets, bytes) = values.close();
                match data_type {
                    DataType::Utf8 => Arc::new(StringArray::try_new(offsets, bytes, nulls)?),
                    _ => Arc::new(BinaryArray::try_new(offsets, bytes, nulls)?),
                }
            }
            Self::Fixed { len, bytes } => {
                Arc::new(FixedSizeBinaryArray::try_new(*len as i32, renew(bytes).into(), nulls)?)
            }
            Self::Symbol { keys, symbols } => {
                let keys = Int32Array::try_new(renew(keys).into(), nulls)?;
                Arc::new(DictionaryArray::try_new(keys, Arc::clone(symbols))?)
            }
            Self::Record(columns) => {
                let DataType::Struct(fields) = data_type else { unreachable!("a record is a struct") };
                let arrays = columns.iter_mut().zip(fields).map(|(column, field)| column.close(field));
                // A field that is under a null record is as it may be, so its own nulls say nothing of it.
                Arc::new(StructArray::try_new(fields.clone(), arrays.collect::<Result<_, _>>()?, nulls)?)
            }
            Self::List { ends, items } => {
                let DataType::List(item) = data_type else { unreachable!("a list is a list") };
                Arc::new(ListArray::try_new(Arc::clone(item), ends.close(), items.close(item)?, nulls)?)
            }
            Self::Map { ends, keys, values } => {
                let DataType::Map(entries, sorted) = data_type else { unreachable!("a map is a map") };
                let DataType::Struct(fields) = entries.data_type() else { unreachable!("entries are a struct") };
                let (offsets, bytes) = keys.close();
                let keys: ArrayRef = Arc::new(StringArray::try_new(offsets, bytes, None)?);
                let pairs = StructArray::try_new(fields.clone(), vec![keys, values.close(&fields[1])?], None)?;
                Arc::new(MapArray::try_new(Arc::clone(entries), ends.close(), pairs, nulls, *sorted)?)
            }
            Self::Nullable { .. } => unreachable!("a column is nullable once"),
        })
    }
}

impl Bytes {
    /// Appends a value; `None` when an array cannot hold so many bytes.
    #[inline]
    pub(super) fn push(&mut self, value: &[u8]) -> Option<()> {
        self.bytes.extend_from_slice(value);
        self.ends.push(self.bytes.len())
    }

    pub(super) fn len(&self) -> usize {
        self.ends.0.len()
    }

    fn truncate(&mut self, len: usize) {
        let bytes = self.ends.truncate(len);
        self.bytes.truncate(bytes);
    }

    fn close(&mut self) -> (OffsetBuffer<i32>, Buffer) {
        (self.ends.close(), renew(&mut self.bytes).into())
    }
}

impl Ends {
    /// Bytes that each end takes.
    pub(super) const WIDTH: usize = size_of::<i32>();

    /// Appends an end; `None` when an array cannot hold so much.
    #[inline]
    pub(super) fn push(&mut self, end: usize) -> Option<()> {
        self.0.push(i32::try_from(end).ok()?);
        Some(())
    }

    /// Appends an empty value.
    fn repeat(&mut self) {
        self.0.push(self.0.last().copied().unwrap_or(0));
    }

    /// Cuts off all but the first `len` values; where the last of them ends.
    fn truncate(&mut self, len: usize) -> usize {
        self.0.truncate(len);
        self.0.last().map_or(0, |end| *end as usize)
    }

    fn close(&mut self) -> OffsetBuffer<i32> {
        let ends = renew(&mut self.0);
        let mut offsets = Vec::with_capacity(ends.len() + 1);
        offsets.push(0);
        offsets.extend_from_slice(&ends);
        OffsetBuffer::new(ScalarBuffer::from(offsets))
    }
}

fn primitive<T: types::ArrowPrimitiveType>(
    values: &mut Vec<T::Native>,
    data_type: &DataType,
    nulls: Option<NullBuffer>,
) -> Result<ArrayRef, ArrowError> {
    Ok(Arc::new(PrimitiveArray::<T>::try_new(renew(values).into(), nulls)?.with_data_type(data_type.clone())))
}

/// Takes the values, and leaves room for as many.
fn renew<T>(values: &mut Vec<T>) -> Vec<T> {
    let room = Vec::with_capacity(values.len());
    std::mem::replace(values, room)
}
