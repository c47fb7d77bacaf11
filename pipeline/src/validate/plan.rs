//! An Avro schema compiled into what the walk needs to know of it, references resolved.

use std::collections::HashMap;

use apache_avro::{
    Schema,
    schema::{InnerDecimalSchema, Name, UuidSchema},
};

use super::DAY_MS;

/// Records nested deeper than this are refused; a recursive schema has no end and no columns either.
const MAX_DEPTH: usize = 64;

/// How to walk a datum of one writer's schema.
#[derive(Debug)]
pub struct Plan {
    pub(super) root: Node,
    /// Most array items and map entries in one datum.
    pub(super) max_items: u64,
}

/// A schema that cannot be walked.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// It is no Avro schema.
    #[error("the writer's schema is not valid Avro: {0}")]
    Parse(String),
    /// It is recursive or nested without reason.
    #[error("the schema nests deeper than {MAX_DEPTH} levels at `{0}`; recursive types have no columns")]
    TooDeep(String),
    /// It uses a type that has no column.
    #[error("the schema uses {0}, which has no column type here")]
    Unsupported(&'static str),
    /// It refers to a name that it does not define.
    #[error("the schema refers to `{0}`, which it does not define; are its references registered?")]
    UnknownName(String),
}

#[derive(Clone, Debug)]
pub(super) enum Node {
    Null,
    Boolean,
    Int,
    Long,
    Date,
    Timestamp { per_day: i64 },
    Skip(usize),
    Bytes,
    String,
    UuidString,
    UuidBytes,
    DecimalBytes { limit: u128 },
    DecimalFixed { len: usize, limit: u128 },
    Enum(i32),
    Union(Vec<Node>),
    Record(Vec<Node>),
    Array { item: Box<Node>, item_min: usize },
    Map { value: Box<Node>, value_min: usize },
}

impl Plan {
    /// Compiles a writer's schema given as JSON.
    ///
    /// # Errors
    /// When the schema is not Avro, is recursive, or uses a type without a column.
    pub fn compile(schema: &str, max_items: u64) -> Result<Self, PlanError> {
        let schema = Schema::parse_str(schema).map_err(|error| PlanError::Parse(error.to_string()))?;
        let root = Compiler::default().node(&schema, 0)?;
        Ok(Self { root, max_items })
    }
}

#[derive(Default)]
struct Compiler {
    named: HashMap<Name, Node>,
}

impl Compiler {
    fn node(&mut self, schema: &Schema, depth: usize) -> Result<Node, PlanError> {
        if depth > MAX_DEPTH {
            let name = schema.name().map_or_else(|| "an unnamed type".to_owned(), ToString::to_string);
            return Err(PlanError::TooDeep(name));
        }
        let node = match schema {
            Schema::Null => Node::Null,
            Schema::Boolean => Node::Boolean,
            Schema::Int | Schema::TimeMillis => Node::Int,
            Schema::Long | Schema::TimeMicros => Node::Long,
            Schema::Date => Node::Date,
            Schema::TimestampMillis | Schema::LocalTimestampMillis => Node::Timestamp { per_day: DAY_MS },
            Schema::TimestampMicros | Schema::LocalTimestampMicros => Node::Timestamp { per_day: DAY_MS * 1000 },
            Schema::TimestampNanos | Schema::LocalTimestampNanos => Node::Timestamp { per_day: DAY_MS * 1_000_000 },
            Schema::Float => Node::Skip(4),
            Schema::Double => Node::Skip(8),
            Schema::Bytes => Node::Bytes,
            Schema::String => Node::String,
            Schema::Uuid(UuidSchema::String) => Node::UuidString,
            Schema::Uuid(UuidSchema::Bytes) => Node::UuidBytes,
            Schema::Uuid(UuidSchema::Fixed(fixed)) | Schema::Fixed(fixed) | Schema::Duration(fixed) => {
                self.define(&fixed.name, Node::Skip(fixed.size))
            }
            Schema::Decimal(decimal) => {
                let limit = 10u128.checked_pow(u32::try_from(decimal.precision).unwrap_or(u32::MAX));
                let limit = limit.filter(|_| decimal.precision <= 38);
                let limit = limit.ok_or(PlanError::Unsupported("a decimal of more than 38 digits"))?;
                match &decimal.inner {
                    InnerDecimalSchema::Bytes => Node::DecimalBytes { limit },
                    InnerDecimalSchema::Fixed(fixed) => {
                        self.define(&fixed.name, Node::DecimalFixed { len: fixed.size, limit })
                    }
                }
            }
            Schema::BigDecimal => return Err(PlanError::Unsupported("`big-decimal`")),
            Schema::Enum(symbols) => {
                let count = i32::try_from(symbols.symbols.len()).unwrap_or(i32::MAX);
                self.define(&symbols.name, Node::Enum(count))
            }
            Schema::Union(union) => Node::Union(
                union.variants().iter().map(|branch| self.node(branch, depth + 1)).collect::<Result<_, _>>()?,
            ),
            Schema::Record(record) => {
                let fields =
                    record.fields.iter().map(|field| self.node(&field.schema, depth + 1)).collect::<Result<_, _>>()?;
                self.define(&record.name, Node::Record(fields))
            }
            Schema::Array(array) => {
                let item = self.node(&array.items, depth + 1)?;
                Node::Array { item_min: item.min_len(), item: Box::new(item) }
            }
            Schema::Map(map) => {
                let value = self.node(&map.types, depth + 1)?;
                Node::Map { value_min: value.min_len(), value: Box::new(value) }
            }
            // A recursive reference meets its own name before that is defined: it is as unknown as a missing one.
            Schema::Ref { name } => {
                self.named.get(name).cloned().ok_or_else(|| PlanError::UnknownName(name.to_string()))?
            }
        };
        Ok(node)
    }

    fn define(&mut self, name: &Name, node: Node) -> Node {
        self.named.insert(name.clone(), node.clone());
        node
    }
}

impl Node {
    /// Fewest bytes that a value can have.
    fn min_len(&self) -> usize {
        match self {
            Self::Null => 0,
            Self::Skip(len) | Self::DecimalFixed { len, .. } => *len,
            Self::DecimalBytes { .. } => 2,
            Self::UuidString => 37,
            Self::UuidBytes => 17,
            Self::Union(branches) => 1 + branches.iter().map(Self::min_len).min().unwrap_or(0),
            Self::Record(fields) => fields.iter().map(Self::min_len).fold(0, usize::saturating_add),
            _ => 1,
        }
    }
}
