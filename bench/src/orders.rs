//! Order events as functions of a seed and a number. It never remembers what it made.

use std::fmt::Write;

use millrace_schemas::{Channel, Customer, Decimal2, Item, OrderData, OrderEvent, OrderEventType, Product, Shipping};
use uuid::Uuid;

use crate::identity::Identity;
use crate::lifecycle::Lifecycle;
use crate::random::Random;
use crate::reference::{CUSTOMERS, PLACES, PRODUCTS, Reference};
use crate::zipf::Zipf;

const COUPONS: [&str; 4] = ["WELCOME10", "SPRING-25", "FREESHIP", "VIP"];
const CHANNELS: [Channel; 8] = [
    Channel::Web,
    Channel::Web,
    Channel::Web,
    Channel::Mobile,
    Channel::Mobile,
    Channel::Mobile,
    Channel::Store,
    Channel::Marketplace,
];

/// One order in so many is a guest's, of whom the customers topic knows nothing: its row must say null.
const GUEST_ONE_IN: u64 = 500;
/// One item in so many is a product that the products topic does not know.
const UNKNOWN_PRODUCT_ONE_IN: u64 = 1000;
/// Events are published up to so much later than their turn.
const JITTER_MS: u64 = 50;

/// When events happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Timeline {
    /// Time of event 0, milliseconds since 1970-01-01 UTC.
    pub start_ms: i64,
    /// From one event to the next.
    pub spacing_us: u64,
}

/// Makes the events of one seed.
#[derive(Clone, Debug)]
pub struct Orders {
    seed: u64,
    timeline: Timeline,
    identity: Identity,
    lifecycle: Lifecycle,
    customers: Zipf,
    products: Zipf,
    reference: Reference,
    shelf: Shelf,
}

/// What an event takes of the reference data, close together: looked up in `Reference` it is a dozen cache misses.
#[derive(Clone, Debug)]
struct Shelf {
    /// By customer: index into `PLACES`.
    homes: Vec<u8>,
    /// All skus, one behind the other.
    skus: String,
    /// By product: price in cents, and where its sku is.
    products: Vec<(i64, u32, u32)>,
}

impl Shelf {
    fn new(reference: &Reference) -> Self {
        let mut skus = String::new();
        let products = reference.products.iter().map(|product| {
            let start = skus.len() as u32;
            skus.push_str(&product.sku);
            (product.list_price.0, start, skus.len() as u32)
        });
        let products = products.collect();
        // Every customer lives in one of the places.
        let home = |customer: &Customer| PLACES.iter().position(|place| place.0 == customer.country).unwrap_or(0) as u8;
        Self { homes: reference.customers.iter().map(home).collect(), skus, products }
    }
}

/// What an order is made of, by index; `None` is what the reference topics do not know.
#[derive(Clone, Debug, Default)]
pub struct Lookups {
    /// Customer.
    pub customer: Option<u32>,
    /// Product of each item.
    pub products: Vec<Option<u32>>,
}

impl Orders {
    /// The events of a seed on a timeline.
    pub fn new(seed: u64, timeline: Timeline) -> Self {
        let reference = Reference::new(seed);
        Self {
            shelf: Shelf::new(&reference),
            reference,
            seed,
            timeline,
            identity: Identity::new(seed),
            lifecycle: Lifecycle::new(),
            customers: Zipf::new(CUSTOMERS),
            products: Zipf::new(PRODUCTS),
        }
    }

    /// The number that an event id of this seed was made from.
    pub fn number(&self, event_id: Uuid) -> Option<u64> {
        self.identity.number(event_id)
    }

    /// The customer with this index.
    pub fn customer(&self, index: u32) -> &Customer {
        &self.reference.customers[index as usize]
    }

    /// The product with this index.
    pub fn product(&self, index: u32) -> &Product {
        &self.reference.products[index as usize]
    }

    /// Event `n`.
    pub fn event(&self, n: u64) -> OrderEvent {
        let mut event = blank();
        self.write_event(n, &mut event, &mut Lookups::default());
        event
    }

    /// Turns `event` and `lookups` into those of event `n`, reusing their memory.
    pub fn write_event(&self, n: u64, event: &mut OrderEvent, lookups: &mut Lookups) {
        let (order, step) = self.lifecycle.step(n);
        event.event_id = self.identity.id(n);
        event.event_type = step;
        let turn_ms = self.timeline.start_ms + (n * self.timeline.spacing_us / 1000) as i64;
        event.timestamp = turn_ms + Random::new(self.seed ^ 0x6a69_7474, n).below(JITTER_MS) as i64;
        self.write_order(order, &mut event.data, lookups);
    }

    /// All that does not change from one step of the order to the next.
    fn write_order(&self, order: u64, data: &mut OrderData, lookups: &mut Lookups) {
        let random = &mut Random::new(self.seed ^ 0x6f72_6465, order);
        set(&mut data.order_id, "ord-");
        push_hex(&mut data.order_id, random.bits());

        let guest = random.below(GUEST_ONE_IN) == 0;
        let customer = self.customers.draw(random);
        let place = if guest {
            lookups.customer = None;
            set(&mut data.customer_id, "guest-");
            push_hex(&mut data.customer_id, order);
            random.pick(&PLACES)
        } else {
            lookups.customer = Some(customer);
            set(&mut data.customer_id, "customer-");
            push_eight_digits(&mut data.customer_id, customer);
            // Most orders stay in the customer's country.
            let home = &PLACES[usize::from(self.shelf.homes[customer as usize])];
            if random.below(16) != 0 { home } else { random.pick(&PLACES) }
        };
        set(&mut data.currency, place.1);
        set(&mut data.shipping.country, place.0);
        let city = *random.pick(&place.2);
        set(&mut data.shipping.city, city);
        data.channel = *random.pick(&CHANNELS);

        let coupon = (random.below(5) == 0).then(|| *random.pick(&COUPONS));
        set_option(&mut data.coupon, coupon);

        let total = self.write_items(random, &mut data.items, &mut lookups.products);
        // A coupon takes a tenth off, rounded down to the cent.
        data.total = Decimal2(total - if coupon.is_some() { total / 10 } else { 0 });
    }

    fn write_items(&self, random: &mut Random, items: &mut Vec<Item>, products: &mut Vec<Option<u32>>) -> i64 {
        // Three to nine items, six on average.
        let count = 3 + random.below(7) as usize;
        items.resize_with(count, blank_item);
        products.clear();
        let mut total = 0;
        for item in items {
            let index = self.products.draw(random);
            let unknown = random.below(UNKNOWN_PRODUCT_ONE_IN) == 0;
            products.push((!unknown).then_some(index));
            let (list_price, sku, sku_end) = self.shelf.products[index as usize];
            if unknown {
                item.sku.clear();
                // Writing to a String cannot fail.
                let _ = write!(item.sku, "sku-withdrawn-{index:05}");
            } else {
                set(&mut item.sku, &self.shelf.skus[sku as usize..sku_end as usize]);
            }
            item.quantity = 1 + (random.below(16) / 8 * random.below(4)) as i32;
            // Up to a fifth off the list price.
            item.unit_price = Decimal2(list_price - list_price / 5 * random.below(3) as i64 / 2);
            total += item.unit_price.0 * i64::from(item.quantity);
        }
        total
    }
}

/// The id of an order of the seed; orders have the numbers of [`Lifecycle::step`].
pub(crate) fn order_id(seed: u64, order: u64) -> String {
    let mut id = "ord-".to_owned();
    push_hex(&mut id, Random::new(seed ^ 0x6f72_6465, order).bits());
    id
}

/// An event to be overwritten.
pub fn blank() -> OrderEvent {
    OrderEvent {
        event_id: Uuid::nil(),
        event_type: OrderEventType::Created,
        timestamp: 0,
        data: OrderData {
            order_id: String::new(),
            customer_id: String::new(),
            currency: String::new(),
            total: Decimal2(0),
            coupon: None,
            channel: Channel::Web,
            shipping: Shipping { country: String::new(), city: String::new() },
            items: Vec::new(),
        },
    }
}

fn blank_item() -> Item {
    Item { sku: String::new(), quantity: 0, unit_price: Decimal2(0) }
}

fn set(text: &mut String, value: &str) {
    text.clear();
    text.push_str(value);
}

fn set_option(text: &mut Option<String>, value: Option<&str>) {
    match (text.as_mut(), value) {
        (Some(text), Some(value)) => set(text, value),
        _ => *text = value.map(str::to_owned),
    }
}

/// As `{value:08}`, for a customer's number.
fn push_eight_digits(text: &mut String, mut value: u32) {
    let mut digits = [b'0'; 8];
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
    digits.iter().for_each(|&digit| text.push(char::from(digit)));
}

/// Sixteen hex digits; `write!` would cost more than all the rest of an event.
fn push_hex(text: &mut String, value: u64) {
    for shift in (0..16).rev() {
        text.push(char::from(b"0123456789abcdef"[(value >> (4 * shift) & 0xf) as usize]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    const TIMELINE: Timeline = Timeline { start_ms: 1_767_225_600_000, spacing_us: 1000 };

    #[test]
    fn an_event_is_the_same_whatever_was_made_before_it() {
        let orders = Orders::new(42, TIMELINE);
        let (mut event, mut lookups) = (blank(), Lookups::default());
        for n in [5, 1_000_000, 5, 3, 4, 9_999_999_999, 5] {
            orders.write_event(n, &mut event, &mut lookups);
            assert_eq!(event, orders.event(n));
            assert_eq!(orders.number(event.event_id), Some(n));
            assert_eq!(lookups.products.len(), event.data.items.len());
        }
    }

    #[test]
    fn events_name_customers_and_products_as_the_reference_topics_do() {
        let orders = Orders::new(42, TIMELINE);
        let (mut event, mut lookups) = (blank(), Lookups::default());
        for n in 0..5000 {
            orders.write_event(n, &mut event, &mut lookups);
            if let Some(customer) = lookups.customer {
                assert_eq!(event.data.customer_id, orders.customer(customer).customer_id);
            }
            for (item, product) in event.data.items.iter().zip(&lookups.products) {
                if let Some(product) = product.map(|index| orders.product(index)) {
                    assert_eq!(item.sku, product.sku);
                    assert!((1..=product.list_price.0).contains(&item.unit_price.0));
                }
            }
        }
    }

    #[test]
    fn steps_of_an_order_agree_on_everything_but_id_step_and_time() {
        let orders = Orders::new(42, TIMELINE);
        let mut seen: HashMap<String, OrderData> = HashMap::new();
        for n in 0..5000 {
            let data = orders.event(n).data;
            let first = seen.entry(data.order_id.clone()).or_insert_with(|| data.clone());
            assert_eq!(*first, data);
        }
        assert!(seen.len() < 2500);
    }

    #[test]
    fn encoded_events_take_about_250_bytes_and_some_have_unknown_references() {
        let orders = Orders::new(42, TIMELINE);
        let encoder = millrace_producers::Encoder::<OrderEvent>::new(1).unwrap();
        let (mut event, mut lookups, mut bytes) = (blank(), Lookups::default(), Vec::new());
        let (mut guests, mut unknown) = (0, 0);
        let events = 20_000;
        for n in 0..events {
            orders.write_event(n, &mut event, &mut lookups);
            encoder.encode(&event, &mut bytes).unwrap();
            guests += u32::from(lookups.customer.is_none());
            unknown += lookups.products.iter().filter(|product| product.is_none()).count();
        }
        let average = bytes.len() as u64 / events;
        assert!((230..270).contains(&average), "average event takes {average} bytes");
        assert!((10..100).contains(&guests), "{guests} events of guests");
        assert!((50..250).contains(&unknown), "{unknown} items of unknown products");
    }
}
