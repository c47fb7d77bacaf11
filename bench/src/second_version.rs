//! Events in version 2 of the order schema: those of version 1, and the service that published them.

use anyhow::Result;
use millrace_producers::schema_id;
use millrace_schemas::{ORDER_EVENT_V2, OrderEvent, write_optional_str};

use crate::setup::registry;
use crate::stack::Stack;

/// Value of the field that version 1 lacks.
const SOURCE: &str = "checkout-eu-1";

/// Encodes events in the second version.
pub(crate) struct SecondVersion {
    header: [u8; 5],
}

impl SecondVersion {
    /// Registers the schema under the topic's subject, if it was not.
    pub(crate) async fn register(stack: &Stack, topic: &str) -> Result<Self> {
        let [a, b, c, d] = schema_id(&registry(stack), topic, ORDER_EVENT_V2, true).await?.to_be_bytes();
        Ok(Self { header: [0, a, b, c, d] })
    }

    /// Replaces `value` by the event in Confluent wire format. The steps of version 1 have the same numbers in version 2,
    /// and what is new stands at the end, so nothing needs to be copied first.
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
    use millrace_schemas::{OrderEventV2, golden};

    #[test]
    fn an_event_in_it_reads_as_the_event_in_version_1_and_the_field() {
        let schema = Schema::parse_str(ORDER_EVENT_V2).unwrap();
        let reader = GenericDatumReader::builder(&schema).build().unwrap();
        let version = SecondVersion { header: [0, 0, 0, 0, 2] };
        for good in golden::good() {
            let mut value = Vec::new();
            version.encode(&good.event, &mut value);
            assert_eq!(value[..5], [0, 0, 0, 0, 2]);
            let mut datum = &value[5..];
            let read: OrderEventV2 = reader.read_deser(&mut datum).unwrap();
            let OrderEventV2 { event_id, event_type, timestamp, data, source } = read;
            assert_eq!((event_id, timestamp, data), (good.event.event_id, good.event.timestamp, good.event.data));
            assert_eq!(event_type as u8, good.event.event_type as u8);
            assert_eq!((source.as_deref(), datum), (Some(SOURCE), &[][..]));
        }
    }
}
