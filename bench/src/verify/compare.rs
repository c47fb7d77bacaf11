//! Rows against the events that they must show. Pure: rows come in, counts go out.

use std::fmt::Display;

use millrace_schemas::OrderEvent;

use super::StoredRow;
use super::ledger::{Coordinates, Counts, Ledger};
use crate::manifest::Manifest;
use crate::orders::{Lookups, Orders, blank};

/// Looks at each row once and remembers one bit per event.
#[derive(Debug)]
pub struct RowChecker<'m> {
    orders: &'m Orders,
    ledger: Ledger<'m>,
    event: OrderEvent,
    lookups: Lookups,
}

impl<'m> RowChecker<'m> {
    /// A checker that has seen nothing yet.
    pub fn new(orders: &'m Orders, manifest: &'m Manifest) -> Self {
        Self { orders, ledger: Ledger::new(manifest, "event_id"), event: blank(), lookups: Lookups::default() }
    }

    /// Looks at a row.
    pub fn check(&mut self, row: &StoredRow<'_>) {
        let StoredRow { event_id: id, partition, offset, ingested_at, .. } = *row;
        let at = Coordinates { id, partition, offset, ingested_at };
        if let Some(n) = self.ledger.row(at, self.orders.number(id)) {
            self.orders.write_event(n, &mut self.event, &mut self.lookups);
            self.ledger.compared(n, at, self.difference(row));
        }
    }

    /// Counts what is missing.
    pub fn finish(self) -> Counts {
        self.ledger.finish(|n| self.orders.event(n).event_id)
    }

    /// The first column that is not as the event says, in words.
    fn difference(&self, row: &StoredRow<'_>) -> Option<String> {
        let OrderEvent { event_id: _, event_type, timestamp, data } = &self.event;
        let customer = self.lookups.customer.map(|index| self.orders.customer(index));
        // Enum8 values of the table begin with 1.
        differs("event_type", row.event_type, *event_type as i8 + 1)
            .or_else(|| differs("timestamp", row.timestamp, *timestamp))
            .or_else(|| differs("order_id", row.order_id, &data.order_id))
            .or_else(|| differs("customer_id", row.customer_id, &data.customer_id))
            .or_else(|| differs("currency", row.currency, &data.currency))
            .or_else(|| differs("total (cents)", row.total, data.total.0))
            .or_else(|| differs_null("coupon", row.coupon, data.coupon.as_deref()))
            .or_else(|| differs("channel", row.channel, data.channel.as_str()))
            .or_else(|| differs("shipping_country", row.shipping_country, &data.shipping.country))
            .or_else(|| differs("shipping_city", row.shipping_city, &data.shipping.city))
            .or_else(|| differs_null("customer_segment", row.customer_segment, customer.map(|c| c.segment.as_str())))
            .or_else(|| differs_null("customer_country", row.customer_country, customer.map(|c| c.country.as_str())))
            .or_else(|| {
                differs_null("customer_signup_date (days)", row.customer_signup_date, customer.map(|c| c.signup_date))
            })
            .or_else(|| self.items_differ(row))
    }

    fn items_differ(&self, row: &StoredRow<'_>) -> Option<String> {
        let items = &self.event.data.items;
        for (column, length) in [
            ("items.sku", row.items_sku.len()),
            ("items.quantity", row.items_quantity.len()),
            ("items.unit_price", row.items_unit_price.len()),
            ("items.category", row.items_category.len()),
            ("items.brand", row.items_brand.len()),
        ] {
            if length != items.len() {
                return Some(format!("{column} has {length} entries, should have {}", items.len()));
            }
        }
        items.iter().zip(&self.lookups.products).enumerate().find_map(|(i, (item, &product))| {
            let product = product.map(|index| self.orders.product(index));
            differs("items.sku", row.items_sku[i], &item.sku)
                .or_else(|| differs("items.quantity", row.items_quantity[i], item.quantity))
                .or_else(|| differs("items.unit_price (cents)", row.items_unit_price[i], item.unit_price.0))
                .or_else(|| differs_null("items.category", row.items_category[i], product.map(|p| p.category.as_str())))
                .or_else(|| differs_null("items.brand", row.items_brand[i], product.map(|p| p.brand.as_str())))
                .map(|difference| format!("item {i}: {difference}"))
        })
    }
}

pub(super) fn differs<A: PartialEq<B> + Display, B: Display>(column: &str, is: A, should: B) -> Option<String> {
    (is != should).then(|| format!("{column} is `{is}`, should be `{should}`"))
}

pub(super) fn differs_null<T: PartialEq + Display>(column: &str, is: Option<T>, should: Option<T>) -> Option<String> {
    let words = |value: &Option<T>| value.as_ref().map_or("null".to_owned(), |value| format!("`{value}`"));
    (is != should).then(|| format!("{column} is {}, should be {}", words(&is), words(&should)))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::manifest::Kind;
    use crate::orders::Timeline;
    use std::collections::BTreeMap;

    pub(in super::super) const EVENTS: u64 = 300;

    /// Of a load without duplicates and poison, in one partition from offset 1000 on.
    pub(in super::super) fn manifest(kind: Kind) -> Manifest {
        Manifest {
            topic: kind.table().into(),
            dead_letter_topic: format!("{}.dead", kind.table()),
            kind,
            seed: 11,
            events: EVENTS,
            timeline: Timeline { start_ms: 1_767_225_600_000, spacing_us: 500 },
            duplicates: 0,
            restarts: 0,
            poison: Vec::new(),
            delivered: EVENTS,
            begin_offsets: BTreeMap::from([(0, 1000)]),
            end_offsets: BTreeMap::from([(0, 1000 + EVENTS as i64)]),
            seconds: 0.0,
            cpu_seconds: None,
        }
    }

    /// Passes a right row of each event to `each`.
    fn rows(orders: &Orders, mut each: impl FnMut(u64, &mut StoredRow<'_>)) {
        let (mut event, mut lookups) = (blank(), Lookups::default());
        for n in 0..EVENTS {
            orders.write_event(n, &mut event, &mut lookups);
            let data = &event.data;
            let customer = lookups.customer.map(|index| orders.customer(index));
            let products: Vec<_> = lookups.products.iter().map(|p| p.map(|index| orders.product(index))).collect();
            let mut row = StoredRow {
                event_id: event.event_id,
                event_type: event.event_type as i8 + 1,
                timestamp: event.timestamp,
                order_id: &data.order_id,
                customer_id: &data.customer_id,
                currency: &data.currency,
                total: data.total.0,
                coupon: data.coupon.as_deref(),
                channel: data.channel.as_str(),
                shipping_country: &data.shipping.country,
                shipping_city: &data.shipping.city,
                items_sku: data.items.iter().map(|item| item.sku.as_str()).collect(),
                items_quantity: data.items.iter().map(|item| item.quantity).collect(),
                items_unit_price: data.items.iter().map(|item| item.unit_price.0).collect(),
                items_category: products.iter().map(|p| p.map(|p| p.category.as_str())).collect(),
                items_brand: products.iter().map(|p| p.map(|p| p.brand.as_str())).collect(),
                customer_segment: customer.map(|c| c.segment.as_str()),
                customer_country: customer.map(|c| c.country.as_str()),
                customer_signup_date: customer.map(|c| c.signup_date),
                partition: 0,
                offset: 1000 + n as i64,
                ingested_at: 1,
            };
            each(n, &mut row);
        }
    }

    /// Checks all rows after `change`; a row for which it returns a number comes so many times.
    fn counts(change: impl Fn(u64, &mut StoredRow<'_>) -> u32) -> Counts {
        let manifest = manifest(Kind::Orders);
        let orders = Orders::new(manifest.seed, manifest.timeline);
        let mut checker = RowChecker::new(&orders, &manifest);
        rows(&orders, |n, row| {
            for _ in 0..change(n, row) {
                checker.check(row);
            }
        });
        checker.finish()
    }

    #[test]
    fn rows_that_are_right_pass() {
        assert_eq!(counts(|_, _| 1), Counts { rows: EVENTS, ..Counts::default() });
    }

    #[test]
    fn a_missing_row_is_lost_and_a_second_one_doubled() {
        let counts = counts(|n, _| match n {
            7 | 299 => 0,
            8 => 3,
            _ => 1,
        });
        assert_eq!((counts.rows, counts.lost, counts.doubled, counts.wrong), (EVENTS, 2, 2, 0));
        assert!(counts.samples.iter().any(|s| s.starts_with("lost: event 299 ")), "{:?}", counts.samples);
    }

    #[test]
    fn a_change_in_any_column_is_wrong() {
        type Change = fn(&mut StoredRow<'_>);
        let changes: [(&str, Change); 22] = [
            ("event_id", |row| row.event_id = uuid::Uuid::from_u128(row.event_id.as_u128() ^ 1)),
            ("event_type", |row| row.event_type = row.event_type % 6 + 1),
            ("timestamp", |row| row.timestamp += 1),
            ("order_id", |row| row.order_id = "ord-"),
            ("customer_id", |row| row.customer_id = "customer-99999999"),
            ("currency", |row| row.currency = "XXX"),
            ("total", |row| row.total = -row.total),
            ("coupon", |row| row.coupon = if row.coupon.is_some() { None } else { Some("") }),
            ("channel", |row| row.channel = "fax"),
            ("shipping_country", |row| row.shipping_country = row.shipping_city),
            ("shipping_city", |row| row.shipping_city = row.shipping_country),
            ("items.sku", |row| row.items_sku[0] = ""),
            ("items.quantity", |row| row.items_quantity[0] += 1),
            ("items.unit_price", |row| row.items_unit_price.reverse()),
            ("items.category", |row| row.items_category[0] = Some("")),
            ("items.brand", |row| row.items_brand[0] = Some("")),
            ("items.brand has", |row| row.items_brand.truncate(1)),
            ("customer_segment", |row| row.customer_segment = Some("")),
            ("customer_country", |row| row.customer_country = Some("")),
            ("customer_signup_date", |row| row.customer_signup_date = Some(0)),
            ("_offset", |row| row.offset += 10_000),
            ("_ingested_at", |row| row.ingested_at = 0),
        ];
        for (column, change) in changes {
            let counts = counts(|n, row| {
                if n == 42 {
                    change(row);
                }
                1
            });
            assert_eq!(counts.wrong, 1, "{column}");
            assert!(counts.samples.iter().any(|s| s.contains(column)), "{column}: {:?}", counts.samples);
        }
    }

    #[test]
    fn rows_of_an_earlier_run_are_passed_over() {
        let counts = counts(|n, row| {
            if n == 0 {
                row.offset = 999;
            }
            1
        });
        assert_eq!((counts.earlier, counts.lost, counts.wrong), (1, 1, 0));
    }
}
