//! A second version of the order schema, only for load: version 1 and one optional field more, which no column takes.

use anyhow::Result;
use millrace_producers::schema_id;
use millrace_schemas::{OrderEvent, write_optional_str};

use crate::setup::registry;
use crate::stack::Stack;

/// Avro schema.
const SCHEMA: &str = include_str!("second_version.avsc");
/// Value of the field that version 1 lacks.
const SOURCE: &str = "checkout-eu-1";

/// Encodes events in the second version.
pub(crate) struct SecondVersion {
    header: [u8; 5],
}

impl SecondVersion {
    /// Registers the schema under the topic's subject, if it was not.
    pub(crate) async fn register(stack: &Stack, topic: &str) -> Result<Self> {
        let [a, b, c, d] = schema_id(&registry(stack), topic, SCHEMA, true).await?.to_be_bytes();
        Ok(Self { header: [0, a, b, c, d] })
    }

    /// Replaces `value` by the event in Confluent wire format.
    pub(crate) fn encode(&self, event: &OrderEvent, value: &mut Vec<u8>) {
        value.clear();
        value.extend_from_slice(&self.header);
        event.write_avro(value);
        write_optional_str(Some(SOURCE), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apache_avro::Schema;
    use apache_avro::reader::datum::GenericDatumReader;
    use apache_avro::types::Value;
    use millrace_schemas::{ORDER_EVENT_V1, golden};

    #[test]
    fn it_is_version_1_and_at_its_end_a_field_that_may_be_missing() {
        let [first, second] = [ORDER_EVENT_V1, SCHEMA].map(|schema| match Schema::parse_str(schema).unwrap() {
            Schema::Record(record) => record.fields,
            other => panic!("{other:?} is not a record"),
        });
        let (added, same) = second.split_last().unwrap();
        assert_eq!(same, first);
        assert_eq!((added.name.as_str(), &added.default), ("source", &Some(serde_json::Value::Null)));
    }

    #[test]
    fn an_event_in_it_is_the_event_in_version_1_and_the_field() {
        let schema = Schema::parse_str(SCHEMA).unwrap();
        let reader = GenericDatumReader::builder(&schema).build().unwrap();
        let version = SecondVersion { header: [0, 0, 0, 0, 2] };
        for good in golden::good() {
            let (mut value, mut old) = (Vec::new(), Vec::new());
            version.encode(&good.event, &mut value);
            good.event.write_avro(&mut old);
            assert_eq!((&value[..5], &value[5..][..old.len()]), (&[0, 0, 0, 0, 2][..], &old[..]));
            let mut datum = &value[5..];
            let Value::Record(mut fields) = reader.read_value(&mut datum).unwrap() else { panic!("not a record") };
            let source = Value::Union(1, Box::new(Value::String(SOURCE.into())));
            assert_eq!((fields.pop().unwrap(), datum), (("source".to_owned(), source), &[][..]));
        }
    }
}
