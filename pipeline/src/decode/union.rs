//! Resolves unions: which type of the reader's a value of the writer's is read as.

use apache_avro::{
    Schema,
    schema::{Alias, Name, UnionSchema},
};
use arrow_schema::{DataType, Field};

use super::{
    columns::branch_name,
    names::{Path, PlanError},
    plan::{Base, Branch, Op, Resolver, base, mismatch},
    skip::Node,
};

/// How near a writer's type is to a reader's. Of those that can be read, the nearest counts, and of them the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kinship {
    /// The same type: unnamed, or named the same, also by an alias of the reader's.
    Same,
    /// The same name in another namespace.
    Namesake,
    /// The same kind of type, under another name.
    Kind,
    /// Another type, which may be promoted.
    Other,
}

impl<'w, 'r> Resolver<'_, 'w, 'r> {
    /// How to read a union's values, each branch of it as `read` says, into the column of the one type that `reader` is.
    pub(super) fn branches(
        &self,
        (w, writer): (&'w Schema, &'w UnionSchema),
        nullable: bool,
        reader: &'r Schema,
        read: impl Fn(&'w Schema) -> Result<Op, PlanError>,
    ) -> Result<Op, PlanError> {
        let kinship = |branch| self.kinship(branch, reader);
        let nearest = writer.variants().iter().map(kinship).min().unwrap_or(Kinship::Other);
        let branch = |branch: &'w Schema| match branch {
            Schema::Null if nullable => Ok(Branch::Null),
            // Two kinds of event may have the same fields: where one has the right name, another is another.
            other if kinship(other) == Kinship::Kind && nearest < Kinship::Kind => {
                let (other, reader) = (branch_name(other), branch_name(reader));
                Ok(Branch::Unresolved(format!("the writer has {other}, where {reader} is read").into()))
            }
            other => or_unresolved(read(other)),
        };
        union(writer.variants().iter().map(branch).collect::<Result<_, _>>()?, nullable)
            .ok_or_else(|| mismatch(w, reader))
    }

    /// As [`Resolver::value`], for a reader's union of several types, whose field is a struct of them.
    pub(super) fn one_of(
        &self,
        (w, w_path): (&'w Schema, &Path<'_>),
        (r, r_path): (&'r Schema, &Path<'_>),
        field: &Field,
    ) -> Result<Op, PlanError> {
        let Schema::Union(reader) = r else { unreachable!("a union of several types") };
        let Schema::Union(writer) = w else { return self.choice((w, w_path), (reader, r_path), field) };
        let nulls = reader.variants().iter().any(|branch| matches!(branch, Schema::Null));
        let branch = |branch: &'w Schema| match branch {
            Schema::Null if nulls => Ok(Branch::Null),
            other => or_unresolved(self.choice((other, w_path), (reader, r_path), field)),
        };
        union(writer.variants().iter().map(branch).collect::<Result<_, _>>()?, false).ok_or_else(|| mismatch(w, r))
    }

    /// How to read values of a type that is no union into the columns of a union.
    fn choice(
        &self,
        (w, w_path): (&'w Schema, &Path<'_>),
        (reader, r_path): (&'r UnionSchema, &Path<'_>),
        field: &Field,
    ) -> Result<Op, PlanError> {
        let DataType::Struct(columns) = field.data_type() else { unreachable!("a union of several types is a struct") };
        let mut branches: Vec<(Kinship, &'r Schema)> =
            reader.variants().iter().map(|branch| (self.kinship(w, branch), branch)).collect();
        branches.sort_by_key(|(kinship, _)| *kinship);
        let mut why = None;
        for (kinship, branch) in branches {
            let op = match (branch, columns.find(branch_name(branch))) {
                (Schema::Null, _) if matches!(w, Schema::Null) => return Ok(Op::Absent),
                (Schema::Null, _) => continue,
                (_, Some((column, inner))) => self
                    .plain((w, w_path), (branch, r_path), inner)
                    .map(|op| Op::Choice { column, op: Box::new(Op::Present(Box::new(op))) }),
                (_, None) if kinship < Kinship::Other => {
                    Node::compile(w, self.writer, w_path).map(|node| Op::Passed(Box::new(node)))
                }
                (_, None) => continue,
            };
            match op {
                // What is wrong with the nearest says most.
                Err(PlanError::Unresolved(wrong)) => drop(why.get_or_insert(wrong)),
                op => return op,
            }
        }
        Err(PlanError::Unresolved(why.unwrap_or_else(|| {
            let names: Vec<&str> = reader.variants().iter().map(branch_name).collect();
            format!("the writer has {}, which is none of {}", branch_name(w), names.join(", "))
        })))
    }

    fn kinship(&self, w: &'w Schema, r: &'r Schema) -> Kinship {
        let (w, r) = (self.writer.definition(w), self.reader.definition(r));
        let alike = match (base(w), base(r)) {
            (Base::Number(w), Base::Number(r)) => std::mem::discriminant(&w) == std::mem::discriminant(&r),
            (w, r) => std::mem::discriminant(&w) == std::mem::discriminant(&r),
        };
        match (w.name(), r.name()) {
            _ if !alike => Kinship::Other,
            (Some(w), Some(name)) if w == name || is_alias(w, r) => Kinship::Same,
            (Some(w), Some(r)) if w.name() == r.name() => Kinship::Namesake,
            (Some(_), _) => Kinship::Kind,
            (None, _) => Kinship::Same,
        }
    }
}

fn is_alias(name: &Name, reader: &Schema) -> bool {
    let full = |alias: &Alias| alias.fullname(reader.namespace());
    reader.aliases().is_some_and(|aliases| aliases.iter().any(|alias| full(alias) == name.fullname(None)))
}

fn or_unresolved(op: Result<Op, PlanError>) -> Result<Branch, PlanError> {
    match op {
        Ok(op) => Ok(Branch::Value(op)),
        Err(PlanError::Unresolved(why)) => Ok(Branch::Unresolved(why.into())),
        Err(error) => Err(error),
    }
}

/// `None` if no branch can be read.
fn union(branches: Box<[Branch]>, nullable: bool) -> Option<Op> {
    let hopeless = branches.iter().all(|branch| matches!(branch, Branch::Unresolved(_)));
    (!hopeless).then_some(Op::Union { branches, nullable })
}
