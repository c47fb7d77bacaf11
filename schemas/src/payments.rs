//! The records of the payments topics as Rust types, and a payment straight to its Avro datum. They are for whoever
//! publishes: the engine reads payments by schema and configuration alone.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Decimal2;
use crate::avro::{write_long, write_optional_str, write_str};

/// One step of a payment for an order (topic `payments`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Payment {
    /// Identifies this step; the Kafka key is its 36-character text.
    pub payment_id: Uuid,
    /// The order that is paid for.
    pub order_id: String,
    /// The step.
    pub status: PaymentStatus,
    /// In `currency`; what is paid back is negative.
    pub amount: Decimal2,
    /// ISO 4217 code.
    pub currency: String,
    /// Key of the `payment_methods` topic.
    pub method: String,
    /// What was paid with; `None` for cash.
    pub instrument: Option<Instrument>,
    /// Whatever else the payment provider says.
    pub attributes: BTreeMap<String, String>,
    /// When it happened: microseconds since 1970-01-01 UTC.
    pub occurred_at: i64,
}

/// Steps of a payment, in the order of the symbols of the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names say it")]
pub enum PaymentStatus {
    Authorized,
    Captured,
    Declined,
    Refunded,
}

/// What was paid with, in the order of the branches of the schema's union.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Instrument {
    /// A card.
    Card {
        /// Such as `visa`.
        network: String,
        /// The last four digits of the number.
        last_digits: String,
        /// Days since 1970-01-01.
        expires: i32,
    },
    /// A transfer from an account at a bank.
    BankTransfer {
        /// The bank.
        bank: String,
        /// ISO 3166-1 alpha-2 code.
        country: String,
    },
    /// An electronic wallet.
    Wallet {
        /// Whose.
        provider: String,
        /// `None` where the provider does not tell.
        account: Option<String>,
    },
}

/// What is known of a payment method (compacted topic `payment_methods`, key `method`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PaymentMethod {
    /// The method.
    pub method: String,
    /// `card`, `bank_transfer`, `wallet` or `cash`.
    pub family: String,
    /// What the provider keeps, in hundredths of a percent.
    pub fee_percent: Decimal2,
    /// Whether it can be paid back.
    pub refundable: bool,
}

impl Payment {
    /// Appends the datum of [`PAYMENT_V1`](crate::PAYMENT_V1), without any header.
    pub fn write_avro(&self, out: &mut Vec<u8>) {
        let Self { payment_id, order_id, status, amount, currency, method, instrument, attributes, occurred_at } = self;
        let mut text = Uuid::encode_buffer();
        write_str(payment_id.hyphenated().encode_lower(&mut text), out);
        write_str(order_id, out);
        // The symbols stand in the order of the variants.
        write_long(*status as i64, out);
        amount.write_avro(out);
        write_str(currency, out);
        write_str(method, out);
        match instrument {
            None => write_long(0, out),
            Some(instrument) => instrument.write_avro(out),
        }
        // One block with all entries, then the end of the map; of no entries only the end.
        if !attributes.is_empty() {
            write_long(attributes.len() as i64, out);
            for (name, value) in attributes {
                write_str(name, out);
                write_str(value, out);
            }
        }
        write_long(0, out);
        write_long(*occurred_at, out);
    }
}

impl Instrument {
    /// With the number of its branch, of which 0 is null.
    fn write_avro(&self, out: &mut Vec<u8>) {
        match self {
            Self::Card { network, last_digits, expires } => {
                write_long(1, out);
                write_str(network, out);
                write_str(last_digits, out);
                write_long(i64::from(*expires), out);
            }
            Self::BankTransfer { bank, country } => {
                write_long(2, out);
                write_str(bank, out);
                write_str(country, out);
            }
            Self::Wallet { provider, account } => {
                write_long(3, out);
                write_str(provider, out);
                write_optional_str(account.as_deref(), out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use apache_avro::Schema;
    use apache_avro::reader::datum::GenericDatumReader;
    use apache_avro::types::Value;

    use super::*;
    use crate::{PAYMENT_METHOD_V1, PAYMENT_V1, golden};

    /// What the schema's own reader makes of a datum.
    fn read(datum: &[u8]) -> (Value, usize) {
        let schema = Schema::parse_str(PAYMENT_V1).unwrap();
        let mut rest = datum;
        let value = GenericDatumReader::builder(&schema).build().unwrap().read_value(&mut rest).unwrap();
        (value, rest.len())
    }

    fn record(fields: &[(&str, Value)]) -> Value {
        Value::Record(fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
    }

    fn text(text: &str) -> Value {
        Value::String(text.to_owned())
    }

    fn expected(payment: &Payment) -> Value {
        let instrument = match payment.instrument.as_ref() {
            None => Value::Union(0, Box::new(Value::Null)),
            Some(Instrument::Card { network, last_digits, expires }) => Value::Union(
                1,
                Box::new(record(&[
                    ("network", text(network)),
                    ("last_digits", text(last_digits)),
                    ("expires", Value::Date(*expires)),
                ])),
            ),
            Some(Instrument::BankTransfer { bank, country }) => {
                Value::Union(2, Box::new(record(&[("bank", text(bank)), ("country", text(country))])))
            }
            Some(Instrument::Wallet { provider, account }) => {
                let account = match account {
                    None => Value::Union(0, Box::new(Value::Null)),
                    Some(account) => Value::Union(1, Box::new(text(account))),
                };
                Value::Union(3, Box::new(record(&[("provider", text(provider)), ("account", account)])))
            }
        };
        let symbol = ["authorized", "captured", "declined", "refunded"][payment.status as usize];
        let amount = payment.amount.0.to_be_bytes()[payment.amount.first_byte()..].to_vec();
        record(&[
            ("payment_id", Value::Uuid(payment.payment_id)),
            ("order_id", text(&payment.order_id)),
            ("status", Value::Enum(payment.status as u32, symbol.to_owned())),
            ("amount", Value::Decimal(amount.into())),
            ("currency", text(&payment.currency)),
            ("method", text(&payment.method)),
            ("instrument", instrument),
            ("attributes", Value::Map(payment.attributes.iter().map(|(k, v)| (k.clone(), text(v))).collect())),
            ("occurred_at", Value::TimestampMicros(payment.occurred_at)),
        ])
    }

    #[test]
    fn golden_payments_read_as_their_json_says_and_are_written_as_such() {
        for good in golden::good_payments() {
            assert_eq!(read(&good.bytes[5..]), (expected(&good.event), 0), "{}", good.name);
            let mut datum = Vec::new();
            good.event.write_avro(&mut datum);
            assert_eq!(read(&datum), (expected(&good.event), 0), "{}", good.name);
            // The others are valid but not what this writer would choose.
            if !good.name.starts_with("several_blocks") {
                assert_eq!(datum, good.bytes[5..], "{}", good.name);
            }
        }
    }

    #[test]
    fn payment_methods_survive_avro() {
        let schema = Schema::parse_str(PAYMENT_METHOD_V1).unwrap();
        let method = PaymentMethod {
            method: "visa".into(),
            family: "card".into(),
            fee_percent: Decimal2(129),
            refundable: true,
        };
        let writer = apache_avro::writer::datum::GenericDatumWriter::builder(&schema).build().unwrap();
        let bytes = writer.write_ser_to_vec(&method).unwrap();
        let back: PaymentMethod =
            GenericDatumReader::builder(&schema).build().unwrap().read_deser(&mut bytes.as_slice()).unwrap();
        assert_eq!(back, method);
    }
}
