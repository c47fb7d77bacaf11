//! Streams the rows of the table. It never holds more than a block of them.

use anyhow::{Context, Result};
use clickhouse::sql::Identifier;
use clickhouse::{Client, Row};
use serde::Deserialize;
use uuid::Uuid;

use crate::stack::Stack;

/// A row of `orders` as ClickHouse sends it. Money is in cents, dates in days, times in milliseconds.
#[derive(Clone, Debug, PartialEq, Row, Deserialize)]
#[allow(missing_docs, reason = "the columns say what they are in the table")]
pub struct StoredRow<'a> {
    #[serde(with = "clickhouse::serde::uuid")]
    pub event_id: Uuid,
    pub event_type: i8,
    pub timestamp: i64,
    pub order_id: &'a str,
    pub customer_id: &'a str,
    pub currency: &'a str,
    pub total: i64,
    #[serde(borrow)]
    pub coupon: Option<&'a str>,
    pub channel: &'a str,
    pub shipping_country: &'a str,
    pub shipping_city: &'a str,
    #[serde(rename = "items.sku", borrow)]
    pub items_sku: Vec<&'a str>,
    #[serde(rename = "items.quantity")]
    pub items_quantity: Vec<i32>,
    #[serde(rename = "items.unit_price")]
    pub items_unit_price: Vec<i64>,
    #[serde(rename = "items.category", borrow)]
    pub items_category: Vec<Option<&'a str>>,
    #[serde(rename = "items.brand", borrow)]
    pub items_brand: Vec<Option<&'a str>>,
    #[serde(borrow)]
    pub customer_segment: Option<&'a str>,
    #[serde(borrow)]
    pub customer_country: Option<&'a str>,
    pub customer_signup_date: Option<i32>,
    #[serde(rename = "_partition")]
    pub partition: i32,
    #[serde(rename = "_offset")]
    pub offset: i64,
    #[serde(rename = "_ingested_at")]
    pub ingested_at: i64,
}

/// Reads the whole table.
pub(super) async fn read_all(stack: &Stack, table: &str, mut each: impl FnMut(&StoredRow<'_>)) -> Result<()> {
    let client = Client::default()
        .with_url(&stack.clickhouse)
        .with_database(&stack.database)
        .with_user(&stack.admin.user)
        .with_password(stack.admin.password()?)
        // Same machine: compressing would only cost.
        .with_compression(clickhouse::Compression::None);
    let context = || format!("read table {table} of {}", stack.clickhouse);
    let mut cursor =
        client.query("SELECT ?fields FROM ?").bind(Identifier(table)).fetch::<StoredRow<'_>>().with_context(context)?;
    while let Some(row) = cursor.next().await.with_context(context)? {
        each(&row);
    }
    Ok(())
}
