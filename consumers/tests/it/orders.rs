//! Order events of both versions by number, as Kafka values.

use millrace_schemas::{OrderEvent, OrderEventTypeV2, OrderEventV2, golden};
use uuid::Uuid;

/// The service that events of version 2 say they come from.
pub(crate) const SOURCE: &str = "returns-desk";

/// Event `number` in version 1.
pub(crate) fn first(schema_id: u32, number: u32) -> Vec<u8> {
    let mut event: OrderEvent = golden::good().swap_remove(0).event;
    event.event_id = Uuid::from_u128(number.into());
    let mut value = header(schema_id);
    event.write_avro(&mut value);
    value
}

/// Event `number` in version 2; `returned` is the step that version 1 does not know.
pub(crate) fn second(schema_id: u32, number: u32, returned: bool) -> Vec<u8> {
    let mut event: OrderEventV2 = golden::good_v2().swap_remove(0).event;
    event.event_id = Uuid::from_u128(number.into());
    event.source = Some(SOURCE.to_owned());
    event.event_type = if returned { OrderEventTypeV2::Returned } else { OrderEventTypeV2::Paid };
    let mut value = header(schema_id);
    event.write_avro(&mut value);
    value
}

fn header(schema_id: u32) -> Vec<u8> {
    [&[0], &schema_id.to_be_bytes()[..]].concat()
}
