//! A reader's schema made of a writer's: what is changed, and whether that is something that Avro cannot resolve.

use std::collections::BTreeMap;

use crate::{
    random::Random,
    schema::{Field, Kind, Schema, Type, field, null},
};

/// What was changed, and how often.
pub(crate) type Changes = BTreeMap<&'static str, usize>;

pub(crate) struct Evolution {
    pub(crate) reader: Schema,
    /// Whether something was changed that no resolution is known for: one at least of all possible values is refused.
    pub(crate) broken: bool,
    pub(crate) changes: Changes,
}

impl Evolution {
    pub(crate) fn of(writer: &Schema, random: &mut Random) -> Self {
        let mut evolution = Self { reader: writer.clone(), broken: false, changes: Changes::new() };
        for at in 0..writer.named.len() {
            // What comes later may contain this one.
            evolution.reader.reusable = Some(at);
            if random.one_in(8) {
                let old = &mut evolution.reader.named[at];
                let (alias, name) = (old.name.clone(), format!("{}_new", old.name));
                (old.name, old.alias) = (name, Some(alias));
                evolution.note("a named type renamed");
            }
            let kind = evolution.reader.named[at].kind.clone();
            let kind = match kind {
                Kind::Record(fields) => Kind::Record(evolution.fields(fields, random)),
                Kind::Enum { symbols, default } => evolution.symbols(symbols, default, random),
                Kind::Fixed { size, logical: None } if random.one_in(60) => {
                    evolution.breaks("a fixed of another size");
                    Kind::Fixed { size: size + 1, logical: None }
                }
                fixed => fixed,
            };
            evolution.reader.named[at].kind = kind;
        }
        evolution
    }

    /// The writer's schema with the reader's names, as resolution by aliases would make it: apache-avro knows no aliases.
    pub(crate) fn writer_by_alias(&self, writer: &Schema) -> Schema {
        let mut writer = writer.clone();
        for (writer, reader) in writer.named.iter_mut().zip(&self.reader.named) {
            writer.name.clone_from(&reader.name);
            if let (Kind::Record(fields), Kind::Record(readers)) = (&mut writer.kind, &reader.kind) {
                for field in fields {
                    if let Some(reader) = readers.iter().find(|reader| reader.id == field.id) {
                        field.name.clone_from(&reader.name);
                    }
                }
            }
        }
        writer
    }

    fn note(&mut self, change: &'static str) {
        *self.changes.entry(change).or_default() += 1;
    }

    fn breaks(&mut self, change: &'static str) {
        self.broken = true;
        self.note(change);
    }

    fn fields(&mut self, mut fields: Vec<Field>, random: &mut Random) -> Vec<Field> {
        if fields.len() > 1 && random.one_in(4) {
            let at = random.below(fields.len());
            if !fields[at].marker {
                fields.remove(at);
                self.note("a field removed");
            }
        }
        for field in fields.iter_mut().filter(|field| !field.marker) {
            if random.one_in(8) {
                field.alias = Some(field.name.clone());
                field.name = format!("{}_new", field.name);
                self.note("a field renamed");
            }
            if random.one_in(6) {
                field.default = self.reader.default_of(random, &field.type_, false);
            }
            let old = field.type_.clone();
            field.type_ = self.changed(old.clone(), random);
            if field.type_ != old {
                field.default = None;
            }
        }
        if random.one_in(3) {
            let type_ = self.reader.any(random, 1);
            let id = self.reader.new_id();
            let mut added = field(id, type_);
            added.default = self.reader.default_of(random, &added.type_, false);
            match added.default {
                None if random.one_in(10) => {
                    self.breaks("a field added without a default");
                    fields.push(added);
                }
                None => {}
                Some(_) => {
                    self.note("a field added with a default");
                    fields.push(added);
                }
            }
        }
        if fields.len() > 1 && random.one_in(3) {
            random.shuffle(&mut fields);
            self.note("fields reordered");
        }
        fields
    }

    fn symbols(&mut self, mut symbols: Vec<String>, mut default: Option<String>, random: &mut Random) -> Kind {
        if symbols.len() > 1 && random.one_in(4) {
            let gone = symbols.remove(random.below(symbols.len()));
            if default == Some(gone) || random.one_in(2) {
                default = random.one_in(2).then(|| random.pick(&symbols).clone());
            }
            self.note(if default.is_some() { "a symbol unknown, with a default" } else { "a symbol unknown" });
        }
        if random.one_in(4) {
            symbols.push("NEW".to_owned());
            self.note("a symbol added");
        }
        if random.one_in(4) {
            random.shuffle(&mut symbols);
            self.note("symbols reordered");
        }
        Kind::Enum { symbols, default }
    }

    /// The type as it is, or another that it can be read as, or, seldom, one that it cannot.
    fn changed(&mut self, type_: Type, random: &mut Random) -> Type {
        let union = matches!(type_, Type::Union(_));
        if !union && !is_logical(&type_) && random.one_in(60) {
            self.breaks("a type replaced");
            let to = *random.pick(&["boolean", "int", "string", "double"]);
            return Type::Primitive(to);
        }
        match type_ {
            Type::Primitive(from) if from != "null" && random.one_in(4) => {
                let to: &[&'static str] = match from {
                    "int" => &["long", "float", "double"],
                    "long" => &["float", "double"],
                    "float" => &["double"],
                    "string" => &["bytes"],
                    "bytes" => &["string"],
                    _ => return type_,
                };
                self.note("a type promoted");
                let to = *random.pick(to);
                Type::Primitive(to)
            }
            Type::Primitive("long" | "double") if random.one_in(30) => {
                self.breaks("a type narrowed");
                Type::Primitive(if type_ == Type::Primitive("long") { "int" } else { "float" })
            }
            Type::Array(items) => Type::Array(Box::new(self.changed(*items, random))),
            Type::Map(values) => Type::Map(Box::new(self.changed(*values, random))),
            Type::Union(branches) => self.union(branches, random),
            other if random.one_in(8) => {
                self.note("a type made nullable");
                Type::Union(if random.one_in(3) { vec![other, null()] } else { vec![null(), other] })
            }
            other if random.one_in(12) => {
                let mut branches = vec![other];
                if self.reader.add_branch(random, &mut branches, 1) {
                    self.note("a type become one of several");
                }
                random.shuffle(&mut branches);
                Type::Union(branches)
            }
            other => other,
        }
    }

    fn union(&mut self, mut branches: Vec<Type>, random: &mut Random) -> Type {
        for branch in &mut branches {
            if let Type::Array(inner) | Type::Map(inner) = branch {
                **inner = self.changed((**inner).clone(), random);
            }
        }
        if random.one_in(5) && self.reader.add_branch(random, &mut branches, 1) {
            self.note("a branch added");
        }
        let gone = random.below(branches.len());
        if branches.len() > 1 && random.one_in(12) && !is_logical(&branches[gone]) {
            if branches.remove(gone) == null() {
                self.note("a nullable type made one that is never null");
            } else {
                self.breaks("a branch removed");
            }
            if branches == [null()] {
                branches.push(Type::Primitive("boolean"));
            }
        }
        if branches.len() > 1 && random.one_in(4) {
            random.shuffle(&mut branches);
            self.note("branches reordered");
        }
        match <[Type; 1]>::try_from(branches) {
            Ok([only]) if random.one_in(2) => only,
            Ok(only) => Type::Union(only.into()),
            Err(branches) => Type::Union(branches),
        }
    }
}

/// What it is written as is read by ours and not by apache-avro, so it is not left to that.
fn is_logical(type_: &Type) -> bool {
    matches!(type_, Type::Logical(..) | Type::Decimal(_))
}
