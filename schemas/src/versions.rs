//! Which versions each schema has, and what a new one owes to the others: `avro/compatibility.json` declares it, tests
//! here hold the files to it, and the registry is set to it where schemas are registered.
//!
//! An enum that may grow has a default from its first version on: by Avro's rules it is the *reader's* default that
//! decides what an old reader makes of a new symbol, and an old reader cannot be given one after the fact. That default is
//! a symbol of its own, `unknown`, and none that means something: a step that is not understood must not be taken for
//! another one.

use crate::{CUSTOMER_V1, ORDER_EVENT_V1, ORDER_EVENT_V2, PAYMENT_METHOD_V1, PAYMENT_V1, PRODUCT_V1};

/// What is declared, as JSON: compatibility level of the Confluent API by name of the schema.
const DECLARED: &str = include_str!("../avro/compatibility.json");

/// The versions of one schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Name of its folder in `avro/`.
    pub name: &'static str,
    /// Avro JSON, oldest first.
    pub versions: &'static [&'static str],
}

/// Every schema that is shipped.
pub const SUBJECTS: &[Subject] = &[
    Subject { name: "order_event", versions: &[ORDER_EVENT_V1, ORDER_EVENT_V2] },
    Subject { name: "customer", versions: &[CUSTOMER_V1] },
    Subject { name: "product", versions: &[PRODUCT_V1] },
    Subject { name: "payment", versions: &[PAYMENT_V1] },
    Subject { name: "payment_method", versions: &[PAYMENT_METHOD_V1] },
];

impl Subject {
    /// What a new version owes to the others, as the registry calls it (`BACKWARD`, `FULL_TRANSITIVE` and so on); `None`
    /// if nothing is declared.
    pub fn compatibility(&self) -> Option<String> {
        let declared: serde_json::Value = serde_json::from_str(DECLARED).ok()?;
        Some(declared.get(self.name)?.as_str()?.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use apache_avro::Schema;
    use apache_avro::schema_compatibility::{Compatibility, SchemaCompatibility};

    use super::*;

    fn parsed(text: &str) -> Schema {
        Schema::parse_str(text).unwrap()
    }

    /// Whether every value of `writer` can be read by `reader`; apache-avro calls it partial if some cannot.
    fn reads(reader: &str, writer: &str) -> bool {
        SchemaCompatibility::can_read(&parsed(writer), &parsed(reader)) == Ok(Compatibility::Full)
    }

    /// What breaks when `new` comes after `old`, at a level without its `_TRANSITIVE`.
    fn broken(level: &str, old: &str, new: &str) -> Vec<&'static str> {
        let (backward, forward) = match level {
            "BACKWARD" => (true, false),
            "FORWARD" => (false, true),
            "FULL" => (true, true),
            "NONE" => (false, false),
            other => panic!("{other} is no level"),
        };
        let mut broken = Vec::new();
        if backward && !reads(new, old) {
            broken.push("new readers cannot read old events");
        }
        if forward && !reads(old, new) {
            broken.push("old readers cannot read new events");
        }
        broken
    }

    #[test]
    fn every_version_is_compatible_with_those_before_it_as_declared() {
        for subject in SUBJECTS {
            let declared = subject.compatibility().unwrap_or_else(|| panic!("{}: nothing is declared", subject.name));
            let (level, all) = match declared.strip_suffix("_TRANSITIVE") {
                Some(level) => (level, true),
                None => (declared.as_str(), false),
            };
            for (at, new) in subject.versions.iter().enumerate() {
                let oldest = if all { 0 } else { at.saturating_sub(1) };
                for old in &subject.versions[oldest..at] {
                    let broken = broken(level, old, new);
                    assert!(broken.is_empty(), "{} v{} is not {declared}: {broken:?}", subject.name, at + 1);
                }
            }
        }
    }

    #[test]
    fn changes_that_break_somebody_are_found() {
        let without_default = ORDER_EVENT_V2.replace("\"default\": null,\n      \"doc\"", "\"doc\"");
        assert_ne!(without_default, ORDER_EVENT_V2);
        assert_eq!(broken("FULL", ORDER_EVENT_V1, &without_default), ["new readers cannot read old events"]);
        let old = ORDER_EVENT_V1.replace("        \"default\": \"unknown\",\n", "");
        assert_ne!(old, ORDER_EVENT_V1);
        assert_eq!(broken("FULL", &old, ORDER_EVENT_V2), ["old readers cannot read new events"]);
        let other_type = ORDER_EVENT_V2
            .replace("\"name\": \"quantity\", \"type\": \"int\"", "\"name\": \"quantity\", \"type\": \"string\"");
        assert_eq!(broken("FULL", ORDER_EVENT_V1, &other_type).len(), 2);
    }

    #[test]
    fn every_file_is_a_version_and_every_schema_is_declared() {
        let folder = format!("{}/avro", env!("CARGO_MANIFEST_DIR"));
        let mut folders = 0;
        for subject in SUBJECTS {
            for (at, text) in subject.versions.iter().enumerate() {
                let file = format!("{folder}/{}/v{}.avsc", subject.name, at + 1);
                assert_eq!(&std::fs::read_to_string(&file).unwrap(), text, "{file}");
            }
            let files = std::fs::read_dir(format!("{folder}/{}", subject.name)).unwrap().count();
            assert_eq!(files, subject.versions.len(), "{}", subject.name);
            folders += 1;
        }
        let there = std::fs::read_dir(&folder).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_dir());
        assert_eq!(there.count(), folders);
        let declared: serde_json::Map<String, serde_json::Value> = serde_json::from_str(DECLARED).unwrap();
        assert_eq!(declared.len(), folders);
    }
}
