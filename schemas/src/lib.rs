//! The contract at both ends of the pipeline: Avro schemas, the types that serialise to them, ClickHouse tables and
//! golden examples. It never talks to anything.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod avro;
pub mod golden;
mod money;
mod records;

pub use avro::write_optional_str;
pub use money::Decimal2;
pub use records::{Channel, Customer, Item, OrderData, OrderEvent, OrderEventType, Product, Shipping};

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
    fn tables_can_be_made_again_and_name_no_database() {
        for (name, sql) in CLICKHOUSE_DDL {
            let table = name.split_once('_').unwrap().1;
            assert!(sql.contains(&format!("CREATE TABLE IF NOT EXISTS {table}\n")), "{name}");
        }
        assert!(CLICKHOUSE_DDL.is_sorted());
    }
}
