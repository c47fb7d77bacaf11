//! The contract at both ends of the pipeline: Avro schemas, the types that serialise to them, ClickHouse tables and
//! golden examples. It never talks to anything.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod golden;
mod money;
mod records;

pub use money::Decimal2;
pub use records::{
    Channel, Customer, Item, OrderData, OrderEvent, OrderEventType, Product, Shipping,
};

/// Avro schema of [`OrderEvent`], version 1.
pub const ORDER_EVENT_V1: &str = include_str!("../avro/order_event/v1.avsc");
/// Avro schema of [`Customer`], version 1.
pub const CUSTOMER_V1: &str = include_str!("../avro/customer/v1.avsc");
/// Avro schema of [`Product`], version 1.
pub const PRODUCT_V1: &str = include_str!("../avro/product/v1.avsc");

/// ClickHouse tables in the order in which they are made: (name of the migration, one SQL statement).
/// Each can be run again without harm, and none names a database.
pub const CLICKHOUSE_DDL: &[(&str, &str)] = &[
    ("0001_orders", include_str!("../clickhouse/0001_orders.sql")),
    ("0002_claims", include_str!("../clickhouse/0002_claims.sql")),
];
