//! The kinds of events as the generator takes them: one after the other, each into the memory of the one before.

use millrace_producers::Event;
use millrace_schemas::{OrderEvent, Payment};

use crate::orders::{Lookups, Orders, blank};
use crate::payments::Payments;

/// Events of one kind, each a function of its number.
pub(crate) trait Events {
    /// What is published.
    type Event: Event;

    /// Event `n`; it is overwritten by the next.
    fn at(&mut self, n: u64) -> &Self::Event;
}

/// Order events.
pub(crate) struct OrderEvents {
    orders: Orders,
    event: OrderEvent,
    lookups: Lookups,
}

impl OrderEvents {
    pub(crate) fn new(orders: Orders) -> Self {
        Self { orders, event: blank(), lookups: Lookups::default() }
    }
}

impl Events for OrderEvents {
    type Event = OrderEvent;

    fn at(&mut self, n: u64) -> &OrderEvent {
        self.orders.write_event(n, &mut self.event, &mut self.lookups);
        &self.event
    }
}

/// Payments.
pub(crate) struct PaymentEvents {
    payments: Payments,
    payment: Payment,
}

impl PaymentEvents {
    pub(crate) fn new(payments: Payments) -> Self {
        Self { payment: payments.payment(0), payments }
    }
}

impl Events for PaymentEvents {
    type Event = Payment;

    fn at(&mut self, n: u64) -> &Payment {
        self.payment = self.payments.payment(n);
        &self.payment
    }
}
