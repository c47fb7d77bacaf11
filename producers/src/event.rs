//! What a type must say of itself to be published.

use millrace_schemas::{
    CUSTOMER_V1, Customer, ORDER_EVENT_V1, ORDER_EVENT_V2, OrderEvent, OrderEventV2, PAYMENT_METHOD_V1, PAYMENT_V1,
    PRODUCT_V1, Payment, PaymentMethod, Product,
};
use serde::Serialize;
use uuid::Uuid;

/// An event (or a record of a compacted topic) that an [`EventPublisher`](crate::EventPublisher) can publish.
pub trait Event: Serialize + Send + Sync + 'static {
    /// Avro schema that the serde form of the type fits. Fields should come in the order of the schema.
    const SCHEMA: &'static str;

    /// Appends the Avro datum of [`SCHEMA`](Self::SCHEMA), for a type that knows a shorter way than through serde.
    /// It must write what serde would.
    const WRITE_AVRO: Option<fn(&Self, &mut Vec<u8>)> = None;

    /// Appends the Kafka key. It must be a function of the event, or duplicates land in different partitions.
    fn write_key(&self, key: &mut Vec<u8>);
}

impl Event for OrderEvent {
    const SCHEMA: &'static str = ORDER_EVENT_V1;
    const WRITE_AVRO: Option<fn(&Self, &mut Vec<u8>)> = Some(Self::write_avro);

    fn write_key(&self, key: &mut Vec<u8>) {
        write_uuid(self.event_id, key);
    }
}

impl Event for Payment {
    const SCHEMA: &'static str = PAYMENT_V1;
    const WRITE_AVRO: Option<fn(&Self, &mut Vec<u8>)> = Some(Self::write_avro);

    fn write_key(&self, key: &mut Vec<u8>) {
        write_uuid(self.payment_id, key);
    }
}

/// The same event in either version has the same key.
impl Event for OrderEventV2 {
    const SCHEMA: &'static str = ORDER_EVENT_V2;
    const WRITE_AVRO: Option<fn(&Self, &mut Vec<u8>)> = Some(Self::write_avro);

    fn write_key(&self, key: &mut Vec<u8>) {
        write_uuid(self.event_id, key);
    }
}

fn write_uuid(id: Uuid, key: &mut Vec<u8>) {
    let mut text = Uuid::encode_buffer();
    let text = id.hyphenated().encode_lower(&mut text);
    key.extend_from_slice(text.as_bytes());
}

impl Event for Customer {
    const SCHEMA: &'static str = CUSTOMER_V1;

    fn write_key(&self, key: &mut Vec<u8>) {
        key.extend_from_slice(self.customer_id.as_bytes());
    }
}

impl Event for Product {
    const SCHEMA: &'static str = PRODUCT_V1;

    fn write_key(&self, key: &mut Vec<u8>) {
        key.extend_from_slice(self.sku.as_bytes());
    }
}

impl Event for PaymentMethod {
    const SCHEMA: &'static str = PAYMENT_METHOD_V1;

    fn write_key(&self, key: &mut Vec<u8>) {
        key.extend_from_slice(self.method.as_bytes());
    }
}
