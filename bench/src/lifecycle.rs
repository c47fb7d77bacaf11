//! Which order takes which step at event n. Orders live in blocks whose steps are interleaved by a fixed plan, so any
//! event can be found without the ones before it.

use millrace_schemas::OrderEventType::{self, Cancelled, Created, Delivered, Paid, Refunded, Shipped};

/// Orders that live and end together.
const ORDERS_PER_BLOCK: u64 = 1024;

/// Of 16 orders, how many take which way. All steps of an order come in this sequence.
const PATHS: [(usize, &[OrderEventType]); 6] = [
    (9, &[Created, Paid, Shipped, Delivered]),
    (2, &[Created, Paid, Shipped]),
    (1, &[Created, Paid]),
    (2, &[Created, Cancelled]),
    (1, &[Created, Paid, Refunded]),
    (1, &[Created, Paid, Shipped, Delivered, Refunded]),
];

/// How far apart the steps of an order are, in orders begun meanwhile.
const ORDERS_BETWEEN_STEPS: u64 = 97;

/// The plan of a block.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    plan: Vec<(u16, OrderEventType)>,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self::new()
    }
}

impl Lifecycle {
    /// Lays the plan out.
    pub fn new() -> Self {
        let ways: Vec<&[OrderEventType]> =
            PATHS.iter().flat_map(|&(count, steps)| std::iter::repeat_n(steps, count)).collect();
        let mut plan: Vec<(u64, u16, OrderEventType)> = (0..ORDERS_PER_BLOCK as u16)
            .flat_map(|order| {
                // 5 and 16 have no common divisor: each 16 orders in a row take each way once, out of sequence.
                let steps = ways[usize::from(order) * 5 % ways.len()];
                steps
                    .iter()
                    .zip(0_u64..)
                    .map(move |(&step, nth)| (u64::from(order) + nth * ORDERS_BETWEEN_STEPS, order, step))
            })
            .collect();
        // Stable: at the same place the order that began first goes first, and steps keep their sequence.
        plan.sort_by_key(|&(place, _, _)| place);
        Self { plan: plan.into_iter().map(|(_, order, step)| (order, step)).collect() }
    }

    /// The order that event `n` belongs to, and the step that it takes.
    pub fn step(&self, n: u64) -> (u64, OrderEventType) {
        let per_block = self.plan.len() as u64;
        let (order, step) = self.plan[(n % per_block) as usize];
        (n / per_block * ORDERS_PER_BLOCK + u64::from(order), step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn every_order_takes_one_of_the_ways_from_its_first_step_to_its_last() {
        let lifecycle = Lifecycle::new();
        let blocks = 2;
        let mut orders: BTreeMap<u64, Vec<OrderEventType>> = BTreeMap::new();
        for n in 0..blocks * lifecycle.plan.len() as u64 {
            let (order, step) = lifecycle.step(n);
            orders.entry(order).or_default().push(step);
        }
        assert_eq!(orders.len() as u64, blocks * ORDERS_PER_BLOCK);
        for (way_count, way) in PATHS {
            let taken = orders.values().filter(|steps| steps.as_slice() == way).count();
            assert_eq!(taken as u64, way_count as u64 * blocks * ORDERS_PER_BLOCK / 16, "{way:?}");
        }
    }

    #[test]
    fn orders_are_interleaved() {
        let lifecycle = Lifecycle::new();
        let neighbours = (0..3000).filter(|&n| lifecycle.step(n).0 == lifecycle.step(n + 1).0).count();
        assert!(neighbours < 30, "{neighbours} of 3000 events are followed by one of the same order");
    }
}
