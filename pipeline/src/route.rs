//! Which records of a topic that carries several types of event go one section's way.
//!
//! A record's type is the name of the Avro record that it was written with: that of its schema, or of the branch of a union
//! at the top of its schema. Each section of a topic reads all of it and passes over what is another's, so what is shared
//! between tables is Kafka's log and nothing else: offsets, claims, ids and tokens are each table's own.

mod decoder;

use hashbrown::HashMap;
use serde_json::Value;

pub use self::decoder::{Routed, RoutedDecoder};
use crate::{
    reason::{Reason, Rejection},
    spec::{Others, RouteSpec},
    wire,
};

/// Tells records apart by their type.
#[derive(Debug)]
struct Router {
    spec: RouteSpec,
    writers: HashMap<u32, Writer>,
}

/// What a record is to this section.
#[derive(Debug, PartialEq, Eq)]
enum Way {
    /// To be read.
    Own,
    /// Another section's, or nobody's.
    PassedOver,
    /// Of a type that no section is for.
    Unexpected(Rejection),
}

/// A writer's schema.
#[derive(Debug)]
enum Writer {
    One(Type),
    /// By branch.
    Union(Box<[Type]>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Type {
    Own,
    Elsewhere,
    /// A record that no section is for.
    Unknown(String),
}

impl Router {
    /// One that knows no schema yet.
    fn new(spec: RouteSpec) -> Self {
        Self { spec, writers: HashMap::new() }
    }

    /// Takes the writer's schema of an id; `true` if records of it may be this section's own, so that the decoder has to
    /// know it as well.
    fn learn(&mut self, schema_id: u32, writer_schema: &str) -> bool {
        let writer = match serde_json::from_str(writer_schema) {
            Ok(Value::Array(branches)) => {
                Writer::Union(branches.iter().map(|branch| self.type_of(branch_name(branch))).collect())
            }
            Ok(Value::Object(schema)) if schema.get("type").is_some_and(|kind| kind == "record") => {
                Writer::One(self.type_of(branch_name(&Value::Object(schema))))
            }
            // Not of a record at all: the decoder says why it cannot be read.
            _ => return true,
        };
        let own = match &writer {
            Writer::One(one) => *one == Type::Own,
            Writer::Union(branches) => branches.contains(&Type::Own),
        };
        self.writers.insert(schema_id, writer);
        own
    }

    /// Whether records of this id can be told apart.
    fn knows(&self, schema_id: u32) -> bool {
        self.writers.contains_key(&schema_id)
    }

    /// What the record with this value is.
    fn way(&self, value: Option<&[u8]>) -> Way {
        // What has no type has to be somebody's: that of the section which sees to all others.
        let nobodys = if self.spec.others == Others::Elsewhere { Way::PassedOver } else { Way::Own };
        let Ok((id, datum)) = wire::split(value) else { return nobodys };
        let found = match self.writers.get(&id) {
            None => None,
            Some(Writer::One(one)) => Some(one),
            Some(Writer::Union(branches)) => branch_index(datum).and_then(|index| branches.get(index)),
        };
        match (found, self.spec.others) {
            (None, _) => nobodys,
            (Some(Type::Own), _) => Way::Own,
            (Some(Type::Unknown(name)), Others::DeadLetter) => Way::Unexpected(Rejection::new(
                Reason::UnexpectedRecord,
                format!(
                    "schema id {id}: no section of the topic is for records named `{name}`; expected `{}`{}",
                    self.spec.record,
                    self.spec.elsewhere.iter().map(|name| format!(" or `{name}`")).collect::<String>()
                ),
            )),
            (Some(Type::Elsewhere | Type::Unknown(_)), _) => Way::PassedOver,
        }
    }

    fn type_of(&self, name: String) -> Type {
        if name == self.spec.record {
            Type::Own
        } else if self.spec.elsewhere.contains(&name) {
            Type::Elsewhere
        } else {
            Type::Unknown(name)
        }
    }
}

/// Full name of a named type, or the name of a plain one.
fn branch_name(schema: &Value) -> String {
    let text = |key| schema.get(key).and_then(Value::as_str);
    match (schema.as_str(), text("name"), text("namespace")) {
        (Some(name), ..) => name.to_owned(),
        (_, Some(name), Some(namespace)) if !name.contains('.') && !namespace.is_empty() => {
            format!("{namespace}.{name}")
        }
        (_, Some(name), _) => name.to_owned(),
        _ => text("type").unwrap_or("?").to_owned(),
    }
}

/// The number of the branch, with which the datum of a union begins: a zig-zag number of one byte or more.
fn branch_index(datum: &[u8]) -> Option<usize> {
    let mut number = 0_u64;
    for (at, byte) in datum.iter().enumerate().take(9) {
        number |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            // Negative numbers are odd.
            return (number & 1 == 0).then_some((number >> 1) as usize);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAYMENT: &str = r#"{"type": "record", "name": "Payment", "namespace": "shop", "fields": []}"#;
    const REFUND: &str = r#"{"type": "record", "name": "shop.Refund", "namespace": "ignored", "fields": []}"#;
    const VOUCHER: &str = r#"{"type": "record", "name": "Voucher", "fields": []}"#;

    fn router(others: Others) -> Router {
        let spec = RouteSpec { record: "shop.Payment".to_owned(), elsewhere: vec!["shop.Refund".to_owned()], others };
        let mut router = Router::new(spec);
        assert!(router.learn(1, PAYMENT));
        assert!(!router.learn(2, REFUND));
        assert!(!router.learn(3, VOUCHER));
        // By name alone, as where the branches are references; a union need not be of records only.
        assert!(router.learn(4, &format!("[\"null\", \"shop.Refund\", {PAYMENT}, {VOUCHER}]")));
        router
    }

    fn ways(others: Others, datums: &[(u8, &[u8])]) -> Vec<String> {
        let router = router(others);
        let way = |(id, datum): &(u8, &[u8])| match router.way(Some(&[&[0, 0, 0, 0, *id], *datum].concat())) {
            Way::Own => "own".to_owned(),
            Way::PassedOver => "passed".to_owned(),
            Way::Unexpected(rejection) => rejection.to_string(),
        };
        datums.iter().map(way).collect()
    }

    #[test]
    fn a_record_goes_the_way_of_its_schema_or_of_its_branch() {
        let datums: [(u8, &[u8]); 7] = [(1, b""), (2, b""), (4, &[2]), (4, &[4]), (4, &[4, 9]), (3, b""), (4, &[6])];
        let ways = ways(Others::DeadLetter, &datums);
        assert_eq!(ways[..5], ["own", "passed", "passed", "own", "own"]);
        for unexpected in &ways[5..] {
            assert!(unexpected.starts_with("unexpected_record: schema id "), "{unexpected}");
            assert!(unexpected.contains("`Voucher`; expected `shop.Payment` or `shop.Refund`"), "{unexpected}");
        }
    }

    #[test]
    fn types_that_no_section_is_for_are_passed_over_where_so_configured() {
        for others in [Others::Ignore, Others::Elsewhere] {
            assert_eq!(ways(others, &[(3, b""), (4, &[6]), (4, &[0])]), ["passed"; 3]);
        }
    }

    #[test]
    fn what_has_no_type_is_read_by_one_section_only_which_says_what_is_wrong() {
        // Another magic, an id that is not known, a branch that is not there, negative, cut off or without an end.
        let values: [&[u8]; 7] = [
            &[1, 0, 0, 0, 1],
            &[0, 0, 0, 0, 9],
            &[0, 0, 0, 0, 4, 8],
            &[0, 0, 0, 0, 4, 1],
            &[0, 0, 0, 0, 4, 0x80],
            &[0, 0, 0, 0, 4, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80],
            b"",
        ];
        for value in values.into_iter().map(Some).chain([None]) {
            assert_eq!(router(Others::DeadLetter).way(value), Way::Own, "{value:?}");
            assert_eq!(router(Others::Ignore).way(value), Way::Own, "{value:?}");
            assert_eq!(router(Others::Elsewhere).way(value), Way::PassedOver, "{value:?}");
        }
        let mut router = router(Others::DeadLetter);
        assert!(router.learn(9, "\"string\"") && !router.knows(9));
        assert_eq!(router.way(Some(&[0, 0, 0, 0, 9, 0])), Way::Own);
    }
}
