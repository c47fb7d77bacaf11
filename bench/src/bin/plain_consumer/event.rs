//! The event as the service needs it, and the row that it becomes.

use std::fmt;

use clickhouse::Row;
use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

#[derive(Deserialize)]
pub(crate) struct OrderEvent {
    #[serde(deserialize_with = "uuid")]
    event_id: Uuid,
    event_type: EventType,
    timestamp: i64,
    data: OrderData,
}

/// With the values of the table's Enum8.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum EventType {
    Created = 1,
    Paid,
    Shipped,
    Delivered,
    Cancelled,
    Refunded,
}

#[derive(Deserialize)]
struct OrderData {
    order_id: String,
    customer_id: String,
    currency: String,
    #[serde(deserialize_with = "cents")]
    total: i64,
    coupon: Option<String>,
    channel: Channel,
    shipping: Shipping,
    items: Vec<Item>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Channel {
    Web,
    Mobile,
    Store,
    Marketplace,
}

#[derive(Deserialize)]
struct Shipping {
    country: String,
    city: String,
}

#[derive(Deserialize)]
struct Item {
    sku: String,
    quantity: i32,
    #[serde(deserialize_with = "cents")]
    unit_price: i64,
}

/// The columns of the table that an event fills; the others have defaults.
#[derive(Row, Serialize)]
pub(crate) struct OrderRow<'a> {
    #[serde(with = "clickhouse::serde::uuid")]
    event_id: Uuid,
    event_type: i8,
    timestamp: i64,
    order_id: &'a str,
    customer_id: &'a str,
    currency: &'a str,
    total: i64,
    coupon: Option<&'a str>,
    channel: &'a str,
    shipping_country: &'a str,
    shipping_city: &'a str,
    #[serde(rename = "items.sku")]
    items_sku: Vec<&'a str>,
    #[serde(rename = "items.quantity")]
    items_quantity: Vec<i32>,
    #[serde(rename = "items.unit_price")]
    items_unit_price: Vec<i64>,
    _partition: i32,
    _offset: i64,
}

impl OrderEvent {
    pub(crate) fn row(&self, partition: i32, offset: i64) -> OrderRow<'_> {
        let data = &self.data;
        OrderRow {
            event_id: self.event_id,
            event_type: self.event_type as i8,
            timestamp: self.timestamp,
            order_id: &data.order_id,
            customer_id: &data.customer_id,
            currency: &data.currency,
            total: data.total,
            coupon: data.coupon.as_deref(),
            channel: match data.channel {
                Channel::Web => "web",
                Channel::Mobile => "mobile",
                Channel::Store => "store",
                Channel::Marketplace => "marketplace",
            },
            shipping_country: &data.shipping.country,
            shipping_city: &data.shipping.city,
            items_sku: data.items.iter().map(|item| item.sku.as_str()).collect(),
            items_quantity: data.items.iter().map(|item| item.quantity).collect(),
            items_unit_price: data.items.iter().map(|item| item.unit_price).collect(),
            _partition: partition,
            _offset: offset,
        }
    }
}

/// Avro's `string` with logical type `uuid`, which `Uuid` reads only from human-readable formats.
fn uuid<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Uuid, D::Error> {
    struct Text;
    impl Visitor<'_> for Text {
        type Value = Uuid;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a UUID as text")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Uuid, E> {
            Uuid::parse_str(text).map_err(E::custom)
        }
    }
    deserializer.deserialize_str(Text)
}

/// Avro's `bytes` with logical type `decimal(18, 2)`: big-endian two's complement.
fn cents<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    struct Decimal;
    impl Visitor<'_> for Decimal {
        type Value = i64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a decimal of at most 8 bytes")
        }

        fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<i64, E> {
            if bytes.is_empty() || bytes.len() > 8 {
                return Err(E::invalid_length(bytes.len(), &self));
            }
            let sign = if bytes[0] >= 0x80 { -1 } else { 0 };
            Ok(bytes.iter().fold(sign, |value, &byte| value << 8 | i64::from(byte)))
        }
    }
    deserializer.deserialize_bytes(Decimal)
}
