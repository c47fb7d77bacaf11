//! The contract at both ends of the pipeline: Avro schemas, the types that serialise to them, ClickHouse tables and
//! golden examples. It never talks to anything.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod avro;
pub mod golden;
mod money;
mod payments;
mod queries;
mod records;
mod versions;

pub use avro::write_optional_str;
pub use money::Decimal2;
pub use payments::{Instrument, Payment, PaymentMethod, PaymentStatus};
pub use queries::QUERIES;
pub use records::{
    Channel, Customer, Item, OrderData, OrderEvent, OrderEventType, OrderEventTypeV2, OrderEventV2, Product, Shipping,
};
pub use versions::{SUBJECTS, Subject};

/// Avro schema of [`OrderEvent`], version 1.
pub const ORDER_EVENT_V1: &str = include_str!("../avro/order_event/v1.avsc");
/// Avro schema of [`OrderEventV2`], version 2 of the order event.
pub const ORDER_EVENT_V2: &str = include_str!("../avro/order_event/v2.avsc");
/// Avro schema of [`Customer`], version 1.
pub const CUSTOMER_V1: &str = include_str!("../avro/customer/v1.avsc");
/// Avro schema of [`Product`], version 1.
pub const PRODUCT_V1: &str = include_str!("../avro/product/v1.avsc");
/// Avro schema of [`Payment`], version 1.
pub const PAYMENT_V1: &str = include_str!("../avro/payment/v1.avsc");
/// Avro schema of [`PaymentMethod`], version 1.
pub const PAYMENT_METHOD_V1: &str = include_str!("../avro/payment_method/v1.avsc");

/// ClickHouse tables and views in the order in which they are made: (name of the migration, one SQL statement).
/// Each can be run again without harm, and none names a database.
pub const CLICKHOUSE_DDL: &[(&str, &str)] = &[
    ("0001_orders", include_str!("../clickhouse/0001_orders.sql")),
    ("0002_claims", include_str!("../clickhouse/0002_claims.sql")),
    ("0003_dead_letters", include_str!("../clickhouse/0003_dead_letters.sql")),
    ("0004_payments", include_str!("../clickhouse/0004_payments.sql")),
    ("0005_orders_revenue_per_minute", include_str!("../clickhouse/0005_orders_revenue_per_minute.sql")),
    ("0006_orders_steps", include_str!("../clickhouse/0006_orders_steps.sql")),
    ("0007_orders_skus_per_day", include_str!("../clickhouse/0007_orders_skus_per_day.sql")),
    ("0008_customer_value_per_hour", include_str!("../clickhouse/0008_customer_value_per_hour.sql")),
    ("0009_orders_revenue_per_minute_mv", include_str!("../clickhouse/0009_orders_revenue_per_minute_mv.sql")),
    ("0010_orders_steps_mv", include_str!("../clickhouse/0010_orders_steps_mv.sql")),
    ("0011_orders_skus_per_day_mv", include_str!("../clickhouse/0011_orders_skus_per_day_mv.sql")),
    ("0012_customer_value_per_hour_mv", include_str!("../clickhouse/0012_customer_value_per_hour_mv.sql")),
    ("0013_orders_current", include_str!("../clickhouse/0013_orders_current.sql")),
];

#[cfg(test)]
mod tests {
    use super::*;
    use apache_avro::Schema;
    use apache_avro::reader::datum::GenericDatumReader;
    use apache_avro::writer::datum::GenericDatumWriter;
    use serde::Serialize;
    use serde::de::DeserializeOwned;

    fn round_trip<T: Serialize + DeserializeOwned>(schema: &str, record: &T) -> (T, usize) {
        let schema = Schema::parse_str(schema).unwrap();
        let writer = GenericDatumWriter::builder(&schema).build().unwrap();
        let bytes = writer.write_ser_to_vec(record).unwrap();
        let mut rest = bytes.as_slice();
        let reader = GenericDatumReader::builder(&schema).build().unwrap();
        let back = reader.read_deser(&mut rest).unwrap();
        assert!(rest.is_empty());
        (back, bytes.len())
    }

    #[test]
    fn order_events_survive_avro_and_take_about_250_bytes() {
        for good in golden::good() {
            let (back, size) = round_trip(ORDER_EVENT_V1, &good.event);
            assert_eq!(back, good.event, "{}", good.name);
            if good.name == "typical" {
                assert!((200..300).contains(&size), "typical event takes {size} bytes");
            }
        }
    }

    #[test]
    fn reference_records_survive_avro() {
        let customer = Customer {
            customer_id: "customer-00012345".into(),
            segment: "enterprise".into(),
            country: "SE".into(),
            signup_date: -1,
        };
        assert_eq!(round_trip(CUSTOMER_V1, &customer).0, customer);
        let product = Product {
            sku: "sku-books-00421".into(),
            category: "books".into(),
            brand: "Nordwind".into(),
            list_price: Decimal2(1999),
        };
        assert_eq!(round_trip(PRODUCT_V1, &product).0, product);
    }

    #[test]
    fn tables_and_views_can_be_made_again_and_name_no_database() {
        for (name, sql) in CLICKHOUSE_DDL {
            let table = name.split_once('_').unwrap().1;
            let made = ["TABLE", "MATERIALIZED VIEW", "VIEW"].iter().any(|kind| {
                let create = format!("\nCREATE {kind} IF NOT EXISTS {table}");
                sql.split_once(&create).is_some_and(|(_, rest)| rest.starts_with([' ', '\n']))
            });
            assert!(made, "{name}");
        }
        assert!(CLICKHOUSE_DDL.is_sorted());
    }
}
