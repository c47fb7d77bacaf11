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
    fn it_is_version_1_and_a_field_and_either_version_reads_into_the_other() {
        let (first, second) = (Schema::parse_str(ORDER_EVENT_V1).unwrap(), Schema::parse_str(SCHEMA).unwrap());
        let read = |writer: &Schema, reader: &Schema, mut datum: &[u8]| {
            let reader = GenericDatumReader::builder(writer).reader_schema(reader).build().unwrap();
            let value = reader.read_value(&mut datum).unwrap();
            assert!(datum.is_empty());
            let Value::Record(fields) = value else { panic!("not a record") };
            fields
        };
        let version = SecondVersion { header: [0, 0, 0, 0, 2] };
        for good in golden::good().iter() {
            let mut value = Vec::new();
            version.encode(&good.event, &mut value);
            assert_eq!(value[..5], [0, 0, 0, 0, 2]);
            let source = Value::Union(1, Box::new(Value::String(SOURCE.into())));
            let mut fields = read(&second, &second, &value[5..]);
            assert_eq!(fields.pop().unwrap(), ("source".to_owned(), source));
            let mut old = Vec::new();
            good.event.write_avro(&mut old);
            assert_eq!(fields, read(&first, &first, &old));
            assert_eq!(fields, read(&second, &first, &value[5..]));
            let (name, none) = read(&first, &second, &old).pop().unwrap();
            assert_eq!((name.as_str(), none), ("source", Value::Union(0, Box::new(Value::Null))));
        }
    }
}
