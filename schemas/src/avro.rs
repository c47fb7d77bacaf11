//! An order event straight to its Avro datum: a quarter of what the way through serde costs. The
//! golden examples and the way through serde hold it to that.

use uuid::Uuid;

use crate::{Decimal2, Item, OrderData, OrderEvent, OrderEventV2, Shipping};

impl OrderEvent {
    /// Appends the datum of [`ORDER_EVENT_V1`](crate::ORDER_EVENT_V1), without any header. It cannot fail: every value
    /// of the type has a place in the schema.
    pub fn write_avro(&self, out: &mut Vec<u8>) {
        let Self { event_id, event_type, timestamp, data } = self;
        let mut text = Uuid::encode_buffer();
        write_str(event_id.hyphenated().encode_lower(&mut text), out);
        // The symbols stand in the order of the variants.
        write_long(*event_type as i64, out);
        write_long(*timestamp, out);
        data.write_avro(out);
    }
}

impl OrderEventV2 {
    /// Appends the datum of [`ORDER_EVENT_V2`](crate::ORDER_EVENT_V2), without any header. It begins as that of version 1
    /// and ends with the field that is new.
    pub fn write_avro(&self, out: &mut Vec<u8>) {
        let Self { event_id, event_type, timestamp, data, source } = self;
        let mut text = Uuid::encode_buffer();
        write_str(event_id.hyphenated().encode_lower(&mut text), out);
        write_long(*event_type as i64, out);
        write_long(*timestamp, out);
        data.write_avro(out);
        write_optional_str(source.as_deref(), out);
    }
}

impl OrderData {
    fn write_avro(&self, out: &mut Vec<u8>) {
        let Self { order_id, customer_id, currency, total, coupon, channel, shipping, items } = self;
        write_str(order_id, out);
        write_str(customer_id, out);
        write_str(currency, out);
        total.write_avro(out);
        write_optional_str(coupon.as_deref(), out);
        write_long(*channel as i64, out);
        let Shipping { country, city } = shipping;
        write_str(country, out);
        write_str(city, out);
        // One block with all items, then the end of the array; of no items only the end.
        if !items.is_empty() {
            write_long(items.len() as i64, out);
            for Item { sku, quantity, unit_price } in items {
                write_str(sku, out);
                write_long(i64::from(*quantity), out);
                unit_price.write_avro(out);
            }
        }
        write_long(0, out);
    }
}

impl Decimal2 {
    pub(crate) fn write_avro(self, out: &mut Vec<u8>) {
        write_bytes(&self.0.to_be_bytes()[self.first_byte()..], out);
    }
}

/// Appends the union `["null", "string"]`.
pub fn write_optional_str(text: Option<&str>, out: &mut Vec<u8>) {
    match text {
        None => write_long(0, out),
        Some(text) => {
            write_long(1, out);
            write_str(text, out);
        }
    }
}

pub(crate) fn write_str(text: &str, out: &mut Vec<u8>) {
    write_bytes(text.as_bytes(), out);
}

fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    write_long(bytes.len() as i64, out);
    out.extend_from_slice(bytes);
}

/// An `int`, `long`, length or index: zig-zag, then seven bits to a byte, lowest first.
pub(crate) fn write_long(value: i64, out: &mut Vec<u8>) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Channel, OrderEventType, golden};
    use apache_avro::Schema;
    use apache_avro::writer::datum::GenericDatumWriter;

    fn through_serde(event: &OrderEvent) -> Vec<u8> {
        let schema = Schema::parse_str(crate::ORDER_EVENT_V1).unwrap();
        let writer = GenericDatumWriter::builder(&schema).human_readable(false).build().unwrap();
        writer.write_ser_to_vec(event).unwrap()
    }

    fn straight(event: &OrderEvent) -> Vec<u8> {
        let mut out = Vec::new();
        event.write_avro(&mut out);
        out
    }

    #[test]
    fn golden_events_of_version_2_become_the_bytes_that_serde_makes() {
        let schema = Schema::parse_str(crate::ORDER_EVENT_V2).unwrap();
        let writer = GenericDatumWriter::builder(&schema).human_readable(false).build().unwrap();
        for good in golden::good_v2() {
            let mut out = Vec::new();
            good.event.write_avro(&mut out);
            assert_eq!(out, good.bytes[5..], "{}", good.name);
            assert_eq!(out, writer.write_ser_to_vec(&good.event).unwrap(), "{}", good.name);
        }
    }

    #[test]
    fn golden_events_and_the_edges_of_every_type_become_the_bytes_that_serde_makes() {
        use OrderEventType::{Cancelled, Created, Delivered, Paid, Refunded, Shipped};
        for good in golden::good() {
            let mut event = good.event;
            assert_eq!(straight(&event), through_serde(&event), "{}", good.name);
            for timestamp in [0, -1, 63, 64, -64, -65, i64::MAX, i64::MIN] {
                event.timestamp = timestamp;
                for cents in [0, 127, 128, -128, -129, 32_767, 32_768, i64::MAX, i64::MIN] {
                    event.data.total = Decimal2(cents);
                    assert_eq!(straight(&event), through_serde(&event), "{timestamp} {cents}");
                }
            }
            for quantity in [0, -1, i32::MIN, i32::MAX] {
                event.data.items = vec![Item { sku: "é".repeat(100), quantity, unit_price: Decimal2(-1) }; 200];
                assert_eq!(straight(&event), through_serde(&event), "{quantity}");
            }
            event.data.items.clear();
            for step in [Created, Paid, Shipped, Delivered, Cancelled, Refunded] {
                for channel in [Channel::Web, Channel::Mobile, Channel::Store, Channel::Marketplace] {
                    for coupon in [None, Some(String::new()), Some("VIP".into())] {
                        event.event_type = step;
                        (event.data.channel, event.data.coupon) = (channel, coupon);
                        assert_eq!(straight(&event), through_serde(&event), "{step:?} {channel:?}");
                    }
                }
            }
        }
    }
}
