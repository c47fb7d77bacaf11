//! Reads one datum into the columns of the reader's schema.

use super::{
    column::{Column, Ends},
    cursor::{Cursor, Step, decimal},
    plan::{Branch, FieldOp, Number, Op},
};
use crate::reason::Reason;

/// Reads a value into its column. After an error the column may hold part of it: cut that off.
///
/// # Errors
/// Why the value cannot be read; the cursor stands where it broke.
pub(super) fn read(op: &Op, cursor: &mut Cursor<'_>, column: &mut Column) -> Step {
    match (op, column) {
        (Op::Int, Column::Int(values)) => values.push(cursor.int()?),
        (Op::Date, Column::Int(values)) => values.push(cursor.date()?),
        (Op::Long(Number::Int), Column::Long(values)) => values.push(cursor.int()?.into()),
        (Op::Long(_), Column::Long(values)) => values.push(cursor.long()?),
        (Op::Timestamp { per_day }, Column::Long(values)) => values.push(cursor.timestamp(*per_day)?),
        (Op::Time { per_day }, Column::Int(values)) => values.push(cursor.time(*per_day)? as i32),
        (Op::Time { per_day }, Column::Long(values)) => values.push(cursor.time(*per_day)?),
        (Op::Text, Column::Bytes(values)) => values.push(cursor.text()?).ok_or(Reason::TooLarge)?,
        (Op::Bytes, Column::Bytes(values)) => values.push(cursor.bytes()?).ok_or(Reason::TooLarge)?,
        (Op::UuidText, Column::Fixed { bytes, .. }) => bytes.extend_from_slice(&cursor.uuid_text()?),
        (Op::UuidBytes, Column::Fixed { bytes, .. }) => bytes.extend_from_slice(&cursor.uuid_bytes()?),
        (Op::Fixed(len), Column::Fixed { bytes, .. }) => bytes.extend_from_slice(cursor.take(*len)?),
        (Op::DecimalBytes { limit }, Column::Decimal(values)) => values.push(decimal(cursor.bytes()?, *limit)?),
        (Op::DecimalFixed { len, limit }, Column::Decimal(values)) => values.push(decimal(cursor.take(*len)?, *limit)?),
        (Op::Symbol { numbers, name }, Column::Symbol { keys, .. }) => {
            let before = cursor.rest;
            let symbol = cursor.symbol(numbers.len() as i32)?;
            let Some(key) = numbers[symbol] else {
                cursor.rest = before;
                return unresolved(
                    cursor,
                    format!("symbol {symbol} of the writer's enum {name} is none of the reader's"),
                );
            };
            keys.push(key);
        }
        (Op::Present(op), Column::Nullable { valid, values }) => {
            read(op, cursor, values)?;
            valid.push(true);
        }
        (Op::Union { branches, nullable }, column) => return read_union(branches, *nullable, cursor, column),
        (Op::Record { fields, defaults }, Column::Record(columns)) => {
            for field in fields {
                match field {
                    FieldOp::Read { column, op } => read(op, cursor, &mut columns[*column])?,
                    FieldOp::Skip(node) => cursor.skip(node)?,
                }
            }
            for default in defaults {
                cursor.default(&default.datum, |datum| read(&default.op, datum, &mut columns[default.column]))?;
            }
        }
        (Op::List { item, item_min, width }, Column::List { ends, items }) => {
            cursor.blocks(*item_min, *width, |cursor| read(item, cursor, items))?;
            end(ends, items.len())?;
        }
        (Op::Map { value, value_min, width }, Column::Map { ends, keys, values }) => {
            cursor.blocks(value_min.saturating_add(1), *width, |cursor| {
                keys.push(cursor.text()?).ok_or(Reason::TooLarge)?;
                read(value, cursor, values)
            })?;
            end(ends, keys.len())?;
        }
        (Op::Choice { column: chosen, op }, Column::Record(columns)) => {
            for (at, column) in columns.iter_mut().enumerate() {
                if at == *chosen { read(op, cursor, column)? } else { column.push_nothing() }
            }
        }
        (Op::Passed(node), column) => {
            cursor.skip(node)?;
            column.push_nothing();
        }
        (Op::Duration, Column::Record(columns)) => {
            let (parts, _) = cursor.take(12)?.as_chunks();
            for (part, column) in parts.iter().zip(columns) {
                let Column::Unsigned(values) = column else { unreachable!("a part of a duration is a number") };
                values.push(u32::from_le_bytes(*part));
            }
        }
        (Op::Boolean, Column::Boolean(values)) => values.push(cursor.boolean()?),
        (Op::Float(number), Column::Float(values)) => values.push(match number {
            Number::Int => cursor.int()? as f32,
            Number::Long => cursor.long()? as f32,
            Number::Float | Number::Double => cursor.float()?,
        }),
        (Op::Double(number), Column::Double(values)) => values.push(match number {
            Number::Int => cursor.int()?.into(),
            Number::Long => cursor.long()? as f64,
            Number::Float => cursor.float()?.into(),
            Number::Double => cursor.double()?,
        }),
        (Op::Null, column @ Column::Null(_)) | (Op::Absent, column @ (Column::Nullable { .. } | Column::Record(_))) => {
            column.push_nothing()
        }
        (op, column) => unreachable!("{op:?} does not fill {column:?}"),
    }
    Ok(())
}

fn read_union(branches: &[Branch], nullable: bool, cursor: &mut Cursor<'_>, column: &mut Column) -> Step {
    let before = cursor.rest;
    match (cursor.branch(branches)?, column) {
        (Branch::Null, column) => column.push_nothing(),
        (Branch::Value(op), Column::Nullable { valid, values }) if nullable => {
            read(op, cursor, values)?;
            valid.push(true);
        }
        (Branch::Value(op), column) => read(op, cursor, column)?,
        (Branch::Unresolved(why), _) => {
            cursor.rest = before;
            return unresolved(cursor, why.to_string());
        }
    }
    Ok(())
}

fn unresolved(cursor: &mut Cursor<'_>, why: String) -> Step {
    cursor.detail = Some(why.into());
    Err(Reason::Unreadable)
}

fn end(ends: &mut Ends, items: usize) -> Step {
    ends.push(items).ok_or(Reason::TooLarge)
}
