//! Schemas as a model, which is written as Avro JSON: a named type is defined where it comes first, and named after that.

use std::fmt::Write as _;

use serde_json::{Value as Json, json};

use crate::random::Random;

/// Digits that a decimal of so many bytes can have.
const DIGITS: [u32; 17] = [0, 2, 4, 6, 9, 11, 14, 16, 18, 21, 23, 26, 28, 31, 33, 35, 38];

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Type {
    Primitive(&'static str),
    /// Underlying type, logical type.
    Logical(&'static str, &'static str),
    /// On bytes.
    Decimal(Digits),
    Named(usize),
    Array(Box<Type>),
    Map(Box<Type>),
    Union(Vec<Type>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Digits {
    pub(crate) precision: u32,
    pub(crate) scale: u32,
}

impl Digits {
    /// Bytes that hold all its values, and that apache-avro asks for even of small ones.
    pub(crate) fn bytes(self) -> usize {
        DIGITS.iter().position(|digits| *digits >= self.precision).unwrap()
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) alias: Option<String>,
    pub(crate) kind: Kind,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    Record(Vec<Field>),
    Enum { symbols: Vec<String>, default: Option<String> },
    Fixed { size: usize, logical: Option<FixedLogical> },
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum FixedLogical {
    Uuid,
    Duration,
    Decimal(Digits),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Field {
    /// The same in both schemas, whatever its name.
    pub(crate) id: usize,
    pub(crate) name: String,
    pub(crate) alias: Option<String>,
    pub(crate) type_: Type,
    pub(crate) default: Option<Json>,
    /// What tells the records of a union apart: it stays as it is.
    pub(crate) marker: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Schema {
    pub(crate) named: Vec<Named>,
    pub(crate) root: usize,
    pub(crate) next_id: usize,
    /// How many of the named types may be used again; all if not said.
    pub(crate) reusable: Option<usize>,
    /// Whether types have namespaces: all or none, for apache-avro takes a name without one for one of the record around.
    spaces: bool,
}

impl Schema {
    /// A record of one to six fields.
    pub(crate) fn random(random: &mut Random) -> Self {
        let mut schema = Self { named: Vec::new(), root: 0, next_id: 0, reusable: None, spaces: random.one_in(2) };
        let Type::Named(root) = schema.record(random, 3, 6, false) else { unreachable!("a record has a name") };
        schema.root = root;
        schema
    }

    pub(crate) fn new_id(&mut self) -> usize {
        self.next_id += 1;
        self.next_id
    }

    /// A type that nests no deeper than `depth`.
    pub(crate) fn any(&mut self, random: &mut Random, depth: usize) -> Type {
        match random.below(if depth == 0 { 12 } else { 18 }) {
            0..=9 => self.simple(random),
            10 | 11 => {
                let value = self.simple(random);
                Type::Union(if random.one_in(4) { vec![value, null()] } else { vec![null(), value] })
            }
            12 | 13 => Type::Array(Box::new(self.any(random, depth - 1))),
            14 => Type::Map(Box::new(self.any(random, depth - 1))),
            15 => self.record(random, depth - 1, 4, false),
            16 => Type::Union(vec![null(), self.record(random, depth - 1, 3, false)]),
            _ => self.union(random, depth - 1),
        }
    }

    fn simple(&mut self, random: &mut Random) -> Type {
        let reusable = self.reusable.unwrap_or(self.named.len());
        if reusable > 0 && random.one_in(10) {
            return Type::Named(random.below(reusable));
        }
        let slot = *random.pick(&["boolean", "int", "long", "float", "double", "string", "bytes", "enum", "fixed"]);
        self.of_slot(random, slot, 0)
    }

    /// A type of those of which a union can have one.
    fn of_slot(&mut self, random: &mut Random, slot: &'static str, depth: usize) -> Type {
        let logical: &[&str] = match slot {
            "int" => &["", "", "date", "time-millis"],
            "long" => &[
                "",
                "",
                "",
                "time-micros",
                "timestamp-millis",
                "timestamp-micros",
                "timestamp-nanos",
                "local-timestamp-millis",
                "local-timestamp-micros",
                "local-timestamp-nanos",
            ],
            "string" => &["", "", "uuid"],
            "bytes" => &["", "", "decimal"],
            _ => &[""],
        };
        match (slot, *random.pick(logical)) {
            ("enum", _) => self.symbols(random),
            ("fixed", _) => self.fixed(random),
            ("record", _) => self.record(random, depth, 3, true),
            ("array", _) => Type::Array(Box::new(self.any(random, depth))),
            ("map", _) => Type::Map(Box::new(self.any(random, depth))),
            (base, "") => Type::Primitive(base),
            (_, "decimal") => Type::Decimal(digits(random)),
            (base, logical) => Type::Logical(base, logical),
        }
    }

    /// Several types, of which no two are taken for each other.
    pub(crate) fn union(&mut self, random: &mut Random, depth: usize) -> Type {
        let mut branches = if random.one_in(3) { Vec::new() } else { vec![null()] };
        for _ in 0..2 + random.below(3) {
            self.add_branch(random, &mut branches, depth);
        }
        random.shuffle(&mut branches);
        Type::Union(branches)
    }

    /// Adds a type of which the union has none yet, if one is found; whether there was.
    pub(crate) fn add_branch(&mut self, random: &mut Random, branches: &mut Vec<Type>, depth: usize) -> bool {
        let slots =
            ["boolean", "int", "long", "float", "double", "string", "bytes", "enum", "fixed", "record", "array", "map"];
        let slot = *random.pick(&slots);
        let before = (self.named.len(), self.next_id);
        let branch = self.of_slot(random, slot, depth.min(1));
        if branches.iter().any(|other| self.is_confused(other, &branch)) {
            self.named.truncate(before.0);
            return false;
        }
        branches.push(branch);
        true
    }

    /// Whether apache-avro, which goes by the value, may take a value of one for the other, or Avro allows one of them only.
    fn is_confused(&self, one: &Type, other: &Type) -> bool {
        let (mine, its) = (self.slot(one), self.slot(other));
        let records = mine == "record" && its == "record";
        let pair = |a, b| (mine == a && its == b) || (mine == b && its == a);
        (mine == its && !records) || pair("fixed", "string") || pair("fixed", "bytes")
    }

    fn slot(&self, type_: &Type) -> &'static str {
        match type_ {
            Type::Primitive(base) | Type::Logical(base, _) => base,
            Type::Decimal(_) => "bytes",
            Type::Array(_) => "array",
            Type::Map(_) => "map",
            Type::Union(_) => "union",
            Type::Named(at) => match self.named[*at].kind {
                Kind::Record(_) => "record",
                Kind::Enum { .. } => "enum",
                Kind::Fixed { .. } => "fixed",
            },
        }
    }

    fn record(&mut self, random: &mut Random, depth: usize, most: usize, marker: bool) -> Type {
        let mut fields = Vec::new();
        if marker {
            let id = self.new_id();
            fields.push(Field { name: format!("only_{id}"), marker: true, ..field(id, Type::Primitive("int")) });
        }
        for _ in 0..1 + random.below(most) {
            let type_ = self.any(random, depth);
            let id = self.new_id();
            fields.push(field(id, type_));
        }
        self.name(random, "R", Kind::Record(fields))
    }

    fn symbols(&mut self, random: &mut Random) -> Type {
        let symbols: Vec<String> = (0..1 + random.below(5)).map(|at| format!("S{at}")).collect();
        let default = random.one_in(3).then(|| random.pick(&symbols).clone());
        self.name(random, "E", Kind::Enum { symbols, default })
    }

    fn fixed(&mut self, random: &mut Random) -> Type {
        let digits = digits(random);
        let (size, logical) = match random.below(5) {
            0 => (16, Some(FixedLogical::Uuid)),
            1 => (12, Some(FixedLogical::Duration)),
            2 => (digits.bytes(), Some(FixedLogical::Decimal(digits))),
            _ => (1 + random.below(9), None),
        };
        self.name(random, "F", Kind::Fixed { size, logical })
    }

    fn name(&mut self, random: &mut Random, letter: &str, kind: Kind) -> Type {
        let mut name = format!("{letter}{}", self.new_id());
        if self.spaces {
            name = format!("{}.{name}", random.pick(&["some.space", "other.space", "space"]));
        }
        self.named.push(Named { name, alias: None, kind });
        Type::Named(self.named.len() - 1)
    }

    /// As Avro JSON.
    pub(crate) fn json(&self) -> String {
        let mut defined = vec![false; self.named.len()];
        self.named_json(self.root, &mut defined).to_string()
    }

    fn type_json(&self, type_: &Type, defined: &mut Vec<bool>) -> Json {
        match type_ {
            Type::Primitive(name) => json!(name),
            Type::Logical(base, logical) => json!({"type": base, "logicalType": logical}),
            Type::Decimal(Digits { precision, scale }) => {
                json!({"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale})
            }
            Type::Named(at) => self.named_json(*at, defined),
            Type::Array(items) => json!({"type": "array", "items": self.type_json(items, defined)}),
            Type::Map(values) => json!({"type": "map", "values": self.type_json(values, defined)}),
            Type::Union(branches) => branches.iter().map(|branch| self.type_json(branch, defined)).collect(),
        }
    }

    fn named_json(&self, at: usize, defined: &mut Vec<bool>) -> Json {
        let Named { name, alias, kind } = &self.named[at];
        let (name, namespace) = match name.rsplit_once('.') {
            Some((namespace, name)) => (name, namespace),
            None => (name.as_str(), ""),
        };
        if std::mem::replace(&mut defined[at], true) {
            // A leading dot is the name without a namespace, wherever it stands.
            return json!(format!("{namespace}.{name}"));
        }
        let mut named = json!({"name": name, "namespace": namespace});
        if let Some(alias) = alias {
            named["aliases"] = json!([alias]);
        }
        match kind {
            Kind::Record(fields) => {
                named["type"] = json!("record");
                named["fields"] = fields.iter().map(|field| self.field_json(field, defined)).collect();
            }
            Kind::Enum { symbols, default } => {
                named["type"] = json!("enum");
                named["symbols"] = json!(symbols);
                if let Some(default) = default {
                    named["default"] = json!(default);
                }
            }
            Kind::Fixed { size, logical } => {
                named["type"] = json!("fixed");
                named["size"] = json!(size);
                match logical {
                    None => {}
                    Some(FixedLogical::Uuid) => named["logicalType"] = json!("uuid"),
                    Some(FixedLogical::Duration) => named["logicalType"] = json!("duration"),
                    Some(FixedLogical::Decimal(Digits { precision, scale })) => {
                        named["logicalType"] = json!("decimal");
                        named["precision"] = json!(precision);
                        named["scale"] = json!(scale);
                    }
                }
            }
        }
        named
    }

    fn field_json(&self, field: &Field, defined: &mut Vec<bool>) -> Json {
        let mut json = json!({"name": field.name, "type": self.type_json(&field.type_, defined)});
        if let Some(alias) = &field.alias {
            json["aliases"] = json!([alias]);
        }
        if let Some(default) = &field.default {
            json["default"] = default.clone();
        }
        json
    }

    /// A value of the type as a default, where both sides mean the same by it. `inside` another default apache-avro goes by
    /// the value and not by the first branch of a union.
    pub(crate) fn default_of(&self, random: &mut Random, type_: &Type, inside: bool) -> Option<Json> {
        let ascii = |random: &mut Random, len: usize| -> String {
            (0..len).fold(String::new(), |mut text, _| {
                let _ = write!(text, "{}", random.pick(&['a', 'Z', '0', ' ']));
                text
            })
        };
        // An unscaled value of one digit, and the zeros before it.
        let unscaled = |random: &mut Random, bytes: usize| {
            let zeros = "\0".repeat(bytes - 1);
            format!("{zeros}{}", char::from(random.below(10) as u8))
        };
        Some(match type_ {
            Type::Primitive("null") => Json::Null,
            Type::Primitive("boolean") => json!(random.one_in(2)),
            Type::Primitive("int") => json!(random.next() as i32),
            Type::Primitive("long") => json!(random.next() as i64 >> random.below(60)),
            Type::Primitive("float" | "double") => json!(f64::from(random.next() as i16) / 4.0),
            Type::Primitive("string" | "bytes") => {
                let len = random.below(5);
                json!(ascii(random, len))
            }
            Type::Primitive(other) => unreachable!("{other}"),
            Type::Logical(_, "uuid") => json!(random.uuid().to_string()),
            Type::Logical(_, "date") => json!(random.day()),
            Type::Logical(..) => json!(random.below(86_400_000)),
            Type::Decimal(digits) => json!(unscaled(random, digits.bytes())),
            Type::Named(at) => match &self.named[*at].kind {
                Kind::Record(fields) => {
                    let mut values = serde_json::Map::new();
                    for field in fields {
                        values.insert(field.name.clone(), self.default_of(random, &field.type_, true)?);
                    }
                    Json::Object(values)
                }
                Kind::Enum { symbols, .. } => json!(random.pick(symbols)),
                Kind::Fixed { logical: Some(FixedLogical::Duration), .. } => return None,
                Kind::Fixed { size, logical: Some(FixedLogical::Decimal(_)) } => json!(unscaled(random, *size)),
                Kind::Fixed { size, .. } => json!(ascii(random, *size)),
            },
            Type::Array(items) => {
                let len = random.below(3);
                (0..len).map(|_| self.default_of(random, items, true)).collect::<Option<Json>>()?
            }
            Type::Map(values) => match self.default_of(random, values, true) {
                Some(value) if random.one_in(2) => json!({"a": value}),
                _ => json!({}),
            },
            Type::Union(branches) if inside && branches[0] != null() => return None,
            Type::Union(branches) => self.default_of(random, &branches[0], inside)?,
        })
    }
}

pub(crate) fn null() -> Type {
    Type::Primitive("null")
}

pub(crate) fn field(id: usize, type_: Type) -> Field {
    Field { id, name: format!("f{id}"), alias: None, type_, default: None, marker: false }
}

fn digits(random: &mut Random) -> Digits {
    let precision = 1 + random.below(38) as u32;
    Digits { precision, scale: random.below(precision as usize + 1) as u32 }
}
