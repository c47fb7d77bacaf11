//! Rows of payments against the payments that they must show. Pure: rows come in, counts go out.

use millrace_schemas::{Instrument, Payment};

use super::StoredPayment;
use super::compare::{differs, differs_null};
use super::ledger::{Coordinates, Counts, Ledger};
use crate::manifest::Manifest;
use crate::payments::Payments;

/// Looks at each row once and remembers one bit per payment.
#[derive(Debug)]
pub struct PaymentChecker<'m> {
    payments: &'m Payments,
    ledger: Ledger<'m>,
}

impl<'m> PaymentChecker<'m> {
    /// A checker that has seen nothing yet.
    pub fn new(payments: &'m Payments, manifest: &'m Manifest) -> Self {
        Self { payments, ledger: Ledger::new(manifest, "payment_id") }
    }

    /// Looks at a row.
    pub fn check(&mut self, row: &StoredPayment<'_>) {
        let StoredPayment { payment_id: id, partition, offset, ingested_at, .. } = *row;
        let at = Coordinates { id, partition, offset, ingested_at };
        if let Some(n) = self.ledger.row(at, self.payments.number(id)) {
            let difference = self.difference(&self.payments.payment(n), row);
            self.ledger.compared(n, at, difference);
        }
    }

    /// Counts what is missing.
    pub fn finish(self) -> Counts {
        self.ledger.finish(|n| self.payments.id(n))
    }

    /// The first column that is not as the payment says, in words.
    fn difference(&self, payment: &Payment, row: &StoredPayment<'_>) -> Option<String> {
        let Payment { payment_id: _, order_id, status, amount, currency, method, instrument, attributes, occurred_at } =
            payment;
        let known = self.payments.method(method);
        let fee = known.map(|known| known.fee_percent.0 as i32);
        // Enum8 values of the table begin with 1.
        differs("status", row.status, *status as i8 + 1)
            .or_else(|| differs("order_id", row.order_id, order_id))
            .or_else(|| differs("occurred_at", row.occurred_at, *occurred_at))
            .or_else(|| differs("amount (cents)", row.amount, amount.0))
            .or_else(|| differs("currency", row.currency, currency))
            .or_else(|| differs("method", row.method, method))
            .or_else(|| differs_null("method_family", row.method_family, known.map(|known| known.family.as_str())))
            .or_else(|| differs_null("method_fee_percent (hundredths)", row.method_fee_percent, fee))
            .or_else(|| differs_null("method_refundable", row.method_refundable, known.map(|known| known.refundable)))
            .or_else(|| instrument_differs(instrument.as_ref(), row))
            .or_else(|| {
                let same = row.attributes.iter().copied().eq(attributes.iter().map(|(k, v)| (k.as_str(), v.as_str())));
                (!same).then(|| format!("attributes are {:?}, should be {attributes:?}", row.attributes))
            })
    }
}

fn instrument_differs(instrument: Option<&Instrument>, row: &StoredPayment<'_>) -> Option<String> {
    let (mut card, mut transfer, mut wallet) = ((None, None, None), (None, None), (None, None));
    match instrument {
        None => {}
        Some(Instrument::Card { network, last_digits, expires }) => {
            card = (Some(network.as_str()), Some(last_digits.as_str()), Some(*expires));
        }
        Some(Instrument::BankTransfer { bank, country }) => transfer = (Some(bank.as_str()), Some(country.as_str())),
        Some(Instrument::Wallet { provider, account }) => wallet = (Some(provider.as_str()), account.as_deref()),
    }
    differs_null("card_network", row.card_network, card.0)
        .or_else(|| differs_null("card_last_digits", row.card_last_digits, card.1))
        .or_else(|| differs_null("card_expires (days)", row.card_expires, card.2))
        .or_else(|| differs_null("bank", row.bank, transfer.0))
        .or_else(|| differs_null("bank_country", row.bank_country, transfer.1))
        .or_else(|| differs_null("wallet_provider", row.wallet_provider, wallet.0))
        .or_else(|| differs_null("wallet_account", row.wallet_account, wallet.1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Kind;
    use crate::verify::compare::tests::{EVENTS, manifest};

    /// Checks a right row of each payment after `change`.
    fn counts(change: impl Fn(u64, &mut StoredPayment<'_>)) -> Counts {
        let manifest = manifest(Kind::Payments);
        let payments = Payments::new(manifest.seed, manifest.timeline);
        let mut checker = PaymentChecker::new(&payments, &manifest);
        for n in 0..EVENTS {
            let payment = payments.payment(n);
            let known = payments.method(&payment.method);
            let mut row = StoredPayment {
                payment_id: payment.payment_id,
                order_id: &payment.order_id,
                status: payment.status as i8 + 1,
                occurred_at: payment.occurred_at,
                amount: payment.amount.0,
                currency: &payment.currency,
                method: &payment.method,
                method_family: known.map(|known| known.family.as_str()),
                method_fee_percent: known.map(|known| known.fee_percent.0 as i32),
                method_refundable: known.map(|known| known.refundable),
                card_network: None,
                card_last_digits: None,
                card_expires: None,
                bank: None,
                bank_country: None,
                wallet_provider: None,
                wallet_account: None,
                attributes: payment.attributes.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect(),
                partition: 0,
                offset: 1000 + n as i64,
                ingested_at: 1,
            };
            match payment.instrument.as_ref() {
                None => {}
                Some(Instrument::Card { network, last_digits, expires }) => {
                    row.card_network = Some(network);
                    row.card_last_digits = Some(last_digits);
                    row.card_expires = Some(*expires);
                }
                Some(Instrument::BankTransfer { bank, country }) => {
                    row.bank = Some(bank);
                    row.bank_country = Some(country);
                }
                Some(Instrument::Wallet { provider, account }) => {
                    row.wallet_provider = Some(provider);
                    row.wallet_account = account.as_deref();
                }
            }
            change(n, &mut row);
            checker.check(&row);
        }
        checker.finish()
    }

    #[test]
    fn rows_that_are_right_pass() {
        assert_eq!(counts(|_, _| ()), Counts { rows: EVENTS, ..Counts::default() });
    }

    #[test]
    fn a_change_in_any_column_is_wrong() {
        type Change = fn(&mut StoredPayment<'_>);
        let changes: [(&str, Change); 20] = [
            ("payment_id", |row| row.payment_id = uuid::Uuid::from_u128(row.payment_id.as_u128() ^ 1)),
            ("order_id", |row| row.order_id = "ord-"),
            ("status", |row| row.status = row.status % 4 + 1),
            ("occurred_at", |row| row.occurred_at += 1),
            ("amount", |row| row.amount = -row.amount),
            ("currency", |row| row.currency = "XXX"),
            ("method", |row| row.method = "shells"),
            ("method_family", |row| row.method_family = Some("")),
            ("method_fee_percent", |row| row.method_fee_percent = Some(-1)),
            ("method_refundable", |row| row.method_refundable = row.method_refundable.map(|yes| !yes)),
            ("card_network", |row| row.card_network = Some("")),
            ("card_last_digits", |row| row.card_last_digits = Some("")),
            ("card_expires", |row| row.card_expires = Some(0)),
            ("bank", |row| row.bank = Some("")),
            ("bank_country", |row| row.bank_country = Some("")),
            ("wallet_provider", |row| row.wallet_provider = Some("")),
            ("wallet_account", |row| row.wallet_account = Some("")),
            ("attributes", |row| row.attributes.push(("", ""))),
            ("_offset", |row| row.offset += 10_000),
            ("_ingested_at", |row| row.ingested_at = 0),
        ];
        for (column, change) in changes {
            let counts = counts(|n, row| {
                if n == 42 {
                    change(row);
                }
            });
            assert_eq!(counts.wrong, 1, "{column}");
            assert!(counts.samples.iter().any(|s| s.contains(column)), "{column}: {:?}", counts.samples);
        }
    }
}
