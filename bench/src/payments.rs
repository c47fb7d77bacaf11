//! Payments and payment methods as functions of a seed and a number. It never remembers what it made.

use std::collections::BTreeMap;

use millrace_schemas::{Decimal2, Instrument, Payment, PaymentMethod, PaymentStatus};
use uuid::Uuid;

use crate::identity::Identity;
use crate::orders::{Timeline, order_id};
use crate::random::Random;
use crate::reference::PLACES;

/// Method, family.
const METHODS: [(&str, &str); 16] = [
    ("visa", "card"),
    ("mastercard", "card"),
    ("amex", "card"),
    ("maestro", "card"),
    ("jcb", "card"),
    ("discover", "card"),
    ("sepa_credit", "bank_transfer"),
    ("sepa_debit", "bank_transfer"),
    ("ach", "bank_transfer"),
    ("pix", "bank_transfer"),
    ("upi", "bank_transfer"),
    ("paypal", "wallet"),
    ("apple_pay", "wallet"),
    ("google_pay", "wallet"),
    ("alipay", "wallet"),
    ("cash_on_delivery", "cash"),
];
const BANKS: [&str; 6] =
    ["Nordbank", "Banco Atlântico", "Caisse Centrale", "First Harbor", "みどり銀行", "Volksbank Süd"];
const ATTRIBUTES: [(&str, &[&str]); 4] = [
    ("device", &["web", "ios", "android", "terminal"]),
    ("risk", &["low", "medium", "high"]),
    ("3ds", &["frictionless", "challenge", "none"]),
    ("note", &["", "gift", "Geschenk für Zoë", "first order"]),
];

/// One payment in so many is by a method that the payment_methods topic does not know: its row must say null.
const UNKNOWN_METHOD_ONE_IN: u64 = 500;
const UNKNOWN_METHOD: &str = "voucher";

/// Makes the payments of one seed.
#[derive(Clone, Debug)]
pub struct Payments {
    seed: u64,
    timeline: Timeline,
    identity: Identity,
    methods: Vec<PaymentMethod>,
}

/// All payment methods of a seed.
pub fn methods(seed: u64) -> Vec<PaymentMethod> {
    let method = |(index, (method, family)): (usize, &(&str, &str))| {
        let mut random = Random::new(seed ^ 0x6d65_7468, index as u64);
        PaymentMethod {
            method: (*method).into(),
            family: (*family).into(),
            fee_percent: Decimal2(random.below(400) as i64),
            refundable: random.below(4) != 0,
        }
    };
    METHODS.iter().enumerate().map(method).collect()
}

impl Payments {
    /// The payments of a seed on a timeline.
    pub fn new(seed: u64, timeline: Timeline) -> Self {
        // Not the ids of the seed's orders.
        let identity = Identity::new(seed ^ 0x7061_796d);
        Self { seed, timeline, identity, methods: methods(seed) }
    }

    /// The number that a payment id of this seed was made from.
    pub fn number(&self, payment_id: Uuid) -> Option<u64> {
        self.identity.number(payment_id)
    }

    /// What the payment_methods topic says of a method.
    pub fn method(&self, method: &str) -> Option<&PaymentMethod> {
        self.methods.iter().find(|known| known.method == method)
    }

    /// The id of payment `n`.
    pub fn id(&self, n: u64) -> Uuid {
        self.identity.id(n)
    }

    /// Payment `n`. Two in a row are of one order: it is authorised, and then captured, declined or paid back.
    pub fn payment(&self, n: u64) -> Payment {
        let order = n / 2;
        // What does not change from one step to the next.
        let random = &mut Random::new(self.seed ^ 0x7061_6964, order);
        let place = random.pick(&PLACES);
        let (mut method, family) = *random.pick(&METHODS);
        let ceiling = 10_i64.pow(2 + random.below(6) as u32);
        let cents = 1 + random.below(ceiling as u64) as i64;
        let mut instrument = instrument(method, family, place.0, random);
        if random.below(UNKNOWN_METHOD_ONE_IN) == 0 {
            (method, instrument) = (UNKNOWN_METHOD, None);
        }
        let step = &mut Random::new(self.seed ^ 0x7374_6570, n);
        let status = match (n % 2, step.below(16)) {
            (0, _) => PaymentStatus::Authorized,
            (_, 0) => PaymentStatus::Declined,
            (_, 1) => PaymentStatus::Refunded,
            _ => PaymentStatus::Captured,
        };
        let turn_us = self.timeline.start_ms * 1000 + (n * self.timeline.spacing_us) as i64;
        Payment {
            payment_id: self.id(n),
            order_id: order_id(self.seed, order),
            status,
            amount: Decimal2(if status == PaymentStatus::Refunded { -cents } else { cents }),
            currency: place.1.into(),
            method: method.into(),
            instrument,
            attributes: attributes(step),
            occurred_at: turn_us + step.below(50_000) as i64,
        }
    }
}

fn instrument(method: &str, family: &str, country: &str, random: &mut Random) -> Option<Instrument> {
    match family {
        "card" => Some(Instrument::Card {
            network: method.into(),
            last_digits: format!("{:04}", random.below(10_000)),
            // The six years from 2026 on.
            expires: 20_454 + random.below(2_190) as i32,
        }),
        "bank_transfer" => {
            Some(Instrument::BankTransfer { bank: (*random.pick(&BANKS)).into(), country: country.into() })
        }
        "wallet" => Some(Instrument::Wallet {
            provider: method.into(),
            account: (random.below(3) != 0).then(|| format!("account-{:06}", random.below(1_000_000))),
        }),
        _ => None,
    }
}

/// None to four.
fn attributes(random: &mut Random) -> BTreeMap<String, String> {
    let chosen = ATTRIBUTES.iter().filter_map(|(name, values)| {
        let value = *random.pick(values);
        (random.below(2) == 0).then(|| ((*name).to_owned(), value.to_owned()))
    });
    chosen.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::orders::Orders;

    const TIMELINE: Timeline = Timeline { start_ms: 1_767_225_600_000, spacing_us: 1000 };

    #[test]
    fn a_payment_is_a_function_of_its_number_and_its_id_tells_it() {
        let payments = Payments::new(42, TIMELINE);
        for n in [5, 1_000_000, 5, 3, 9_999_999_999] {
            let payment = payments.payment(n);
            assert_eq!(payment, Payments::new(42, TIMELINE).payment(n));
            assert_eq!(payments.number(payment.payment_id), Some(n));
        }
        let order = Orders::new(42, TIMELINE).event(0).event_id;
        assert_eq!(payments.number(order), None);
    }

    #[test]
    fn both_steps_of_a_payment_are_of_an_order_that_is_there() {
        let (payments, orders) = (Payments::new(42, TIMELINE), Orders::new(42, TIMELINE));
        let first = orders.event(0).data.order_id;
        for n in [0, 1] {
            assert_eq!(payments.payment(n).order_id, first);
        }
        for order in 0..500 {
            let [one, two] = [payments.payment(2 * order), payments.payment(2 * order + 1)];
            assert_eq!(one.status, PaymentStatus::Authorized);
            assert_eq!((one.order_id, one.method, one.instrument), (two.order_id, two.method, two.instrument));
            assert!(one.amount == two.amount || one.amount.0 == -two.amount.0);
        }
    }

    #[test]
    fn every_branch_and_status_occurs_and_some_methods_are_unknown() {
        let payments = Payments::new(42, TIMELINE);
        let (mut branches, mut steps, mut unknown, mut empty) = ([0; 4], [0; 4], 0, 0);
        for n in 0..20_000 {
            let payment = payments.payment(n);
            let branch = match payment.instrument {
                None => 0,
                Some(Instrument::Card { .. }) => 1,
                Some(Instrument::BankTransfer { .. }) => 2,
                Some(Instrument::Wallet { .. }) => 3,
            };
            branches[branch] += 1;
            steps[payment.status as usize] += 1;
            unknown += u32::from(payments.method(&payment.method).is_none());
            empty += u32::from(payment.attributes.is_empty());
        }
        assert!(branches.iter().chain(&steps).all(|count| *count > 400), "{branches:?} {steps:?}");
        assert!((10..100).contains(&unknown), "{unknown} payments by unknown methods");
        assert!((800..1700).contains(&empty), "{empty} payments without attributes");
    }
}
