//! The records of the three topics as Rust types. They serialise through serde straight to Avro bytes, field by field
//! in the order of the schema; keep both orders the same, or the writer has to buffer.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Decimal2;

/// One step in the life of an order (topic `orders`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderEvent {
    /// Identifies the event; the Kafka key is its 36-character text.
    #[serde(with = "uuid_text")]
    pub event_id: Uuid,
    /// The step.
    pub event_type: OrderEventType,
    /// When it happened: milliseconds since 1970-01-01 UTC.
    pub timestamp: i64,
    /// The order as it stood then.
    pub data: OrderData,
}

/// Steps in the life of an order, in the order of the symbols of the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names say it")]
pub enum OrderEventType {
    Created,
    Paid,
    Shipped,
    Delivered,
    Cancelled,
    Refunded,
}

/// Where an order was placed, in the order of the symbols of the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names say it")]
pub enum Channel {
    Web,
    Mobile,
    Store,
    Marketplace,
}

impl OrderEventType {
    /// The symbol of the schema.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Paid => "paid",
            Self::Shipped => "shipped",
            Self::Delivered => "delivered",
            Self::Cancelled => "cancelled",
            Self::Refunded => "refunded",
        }
    }
}

impl Channel {
    /// The symbol of the schema.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Web => "web",
            Self::Mobile => "mobile",
            Self::Store => "store",
            Self::Marketplace => "marketplace",
        }
    }
}

/// An order as it stood when the event happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderData {
    /// The order.
    pub order_id: String,
    /// Key of the `customers` topic.
    pub customer_id: String,
    /// ISO 4217 code.
    pub currency: String,
    /// Sum of the order.
    pub total: Decimal2,
    /// Coupon code, if one was used.
    pub coupon: Option<String>,
    /// Where it was placed.
    pub channel: Channel,
    /// Where it goes.
    pub shipping: Shipping,
    /// What was ordered.
    pub items: Vec<Item>,
}

/// Where an order goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shipping {
    /// ISO 3166-1 alpha-2 code.
    pub country: String,
    /// City.
    pub city: String,
}

/// One line of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// Key of the `products` topic.
    pub sku: String,
    /// How many.
    pub quantity: i32,
    /// Price of one.
    pub unit_price: Decimal2,
}

/// What is known of a customer (compacted topic `customers`, key `customer_id`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Customer {
    /// The customer.
    pub customer_id: String,
    /// Marketing segment.
    pub segment: String,
    /// ISO 3166-1 alpha-2 code.
    pub country: String,
    /// Days since 1970-01-01.
    pub signup_date: i32,
}

/// What is known of a product (compacted topic `products`, key `sku`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Product {
    /// The product.
    pub sku: String,
    /// Category.
    pub category: String,
    /// Brand.
    pub brand: String,
    /// List price.
    pub list_price: Decimal2,
}

/// A UUID as text also where serde would choose bytes, because the Avro type is `string` with logical type `uuid`.
mod uuid_text {
    use serde::{Deserialize, Deserializer, Serializer, de};
    use std::borrow::Cow;
    use uuid::Uuid;

    pub(super) fn serialize<S: Serializer>(id: &Uuid, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(id.hyphenated().encode_lower(&mut Uuid::encode_buffer()))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Uuid, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        Uuid::try_parse(&text).map_err(de::Error::custom)
    }
}
