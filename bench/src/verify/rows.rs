//! Streams the rows of a table. It never holds more than a block of them.

use anyhow::{Context, Result};
use clickhouse::query::Query;
use clickhouse::sql::Identifier;
use clickhouse::{Client, Row, RowRead};
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

/// A row of `payments` as ClickHouse sends it. Money is in cents, percentages in hundredths, dates in days, `occurred_at`
/// in microseconds and `_ingested_at` in milliseconds.
#[derive(Clone, Debug, PartialEq, Row, Deserialize)]
#[allow(missing_docs, reason = "the columns say what they are in the table")]
pub struct StoredPayment<'a> {
    #[serde(with = "clickhouse::serde::uuid")]
    pub payment_id: Uuid,
    pub order_id: &'a str,
    pub status: i8,
    pub occurred_at: i64,
    pub amount: i64,
    pub currency: &'a str,
    pub method: &'a str,
    #[serde(borrow)]
    pub method_family: Option<&'a str>,
    pub method_fee_percent: Option<i32>,
    pub method_refundable: Option<bool>,
    #[serde(borrow)]
    pub card_network: Option<&'a str>,
    #[serde(borrow)]
    pub card_last_digits: Option<&'a str>,
    pub card_expires: Option<i32>,
    #[serde(borrow)]
    pub bank: Option<&'a str>,
    #[serde(borrow)]
    pub bank_country: Option<&'a str>,
    #[serde(borrow)]
    pub wallet_provider: Option<&'a str>,
    #[serde(borrow)]
    pub wallet_account: Option<&'a str>,
    #[serde(borrow)]
    pub attributes: Vec<(&'a str, &'a str)>,
    #[serde(rename = "_partition")]
    pub partition: i32,
    #[serde(rename = "_offset")]
    pub offset: i64,
    #[serde(rename = "_ingested_at")]
    pub ingested_at: i64,
}

/// Reads a whole table, of each server.
pub(super) async fn read<R: RowRead>(stack: &Stack, table: &str, mut each: impl FnMut(&R::Value<'_>)) -> Result<()> {
    for server in stack.servers() {
        let context = || format!("read table {table} of {server}");
        let mut cursor = query(stack, server, table)?.fetch::<R>().with_context(context)?;
        while let Some(row) = cursor.next().await.with_context(context)? {
            each(&row);
        }
    }
    Ok(())
}

fn query(stack: &Stack, server: &str, table: &str) -> Result<Query> {
    Ok(client(stack, server)?.query("SELECT ?fields FROM ?").bind(Identifier(table)))
}

/// Speaks to the stack's database on one of its servers as its administrator.
pub(super) fn client(stack: &Stack, server: &str) -> Result<Client> {
    Ok(Client::default()
        .with_url(server)
        .with_database(&stack.database)
        .with_user(&stack.admin.user)
        .with_password(stack.admin.password()?)
        // Same machine: compressing would only cost.
        .with_compression(clickhouse::Compression::None))
}
