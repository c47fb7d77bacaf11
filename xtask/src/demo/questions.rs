//! A few questions that an analyst would ask, put as the read-only user.

use std::fs;

use anyhow::{Context as _, Result};

use super::topic::Topic;
use crate::stack::{StackFile, http};

struct Question {
    /// The topics that have to be there.
    topics: &'static [Topic],
    title: &'static str,
    sql: &'static str,
}

const QUESTIONS: [Question; 5] = [
    Question {
        topics: &[Topic::Orders],
        title: "Revenue per minute, the last five whole minutes, by currency (the three largest)",
        sql: "SELECT minute, currency, revenue, paid_orders FROM ( \
              SELECT toStartOfMinute(timestamp) AS minute, currency, sum(total) AS revenue, count() AS paid_orders, \
              row_number() OVER (PARTITION BY minute ORDER BY revenue DESC) AS place \
              FROM orders WHERE event_type = 'paid' GROUP BY minute, currency) \
              WHERE place <= 3 AND minute < (SELECT toStartOfMinute(max(timestamp)) FROM orders) \
              ORDER BY minute DESC, revenue DESC LIMIT 15",
    },
    Question {
        topics: &[Topic::Orders],
        title: "Funnel by status",
        sql: "SELECT event_type, uniqExact(order_id) AS orders, \
              round(100 * orders / (SELECT uniqExact(order_id) FROM orders WHERE event_type = 'created'), 1) AS percent \
              FROM orders GROUP BY event_type ORDER BY event_type",
    },
    Question {
        topics: &[Topic::Orders],
        title: "Top three categories by customer segment, items of paid orders",
        sql: "SELECT customer_segment, category, sold FROM ( \
              SELECT customer_segment, category, sum(quantity) AS sold, \
              row_number() OVER (PARTITION BY customer_segment ORDER BY sold DESC) AS place \
              FROM (SELECT customer_segment, bought.1 AS category, bought.2 AS quantity FROM orders \
              ARRAY JOIN arrayZip(items.category, items.quantity) AS bought WHERE event_type = 'paid') \
              GROUP BY customer_segment, category) \
              WHERE place <= 3 ORDER BY customer_segment, sold DESC",
    },
    Question {
        topics: &[Topic::Payments],
        title: "Payments by method: captured, declined, and what the provider keeps (the five largest)",
        sql: "SELECT method_family, method, countIf(status = 'captured') AS captured, \
              round(100 * countIf(status = 'declined') / countIf(status != 'authorized'), 1) AS declined_percent, \
              round(sumIf(amount * method_fee_percent / 100, status = 'captured'), 2) AS fees \
              FROM payments WHERE method_family IS NOT NULL GROUP BY method_family, method \
              ORDER BY captured DESC, method LIMIT 5",
    },
    Question {
        topics: &[Topic::Orders, Topic::Payments],
        title: "Orders with a payment, by family of the method and by device (an entry of a map)",
        sql: "SELECT method_family, attributes['device'] AS device, uniqExact(order_id) AS orders FROM payments \
              WHERE order_id IN (SELECT order_id FROM orders) AND mapContains(attributes, 'device') \
              GROUP BY method_family, device ORDER BY orders DESC, device LIMIT 5",
    },
];

/// Puts the questions about these topics and prints the answers.
///
/// # Errors
/// If ClickHouse does not answer one.
pub(super) fn ask(stack: &StackFile, topics: &[Topic]) -> Result<()> {
    let file = &stack.analyst.password_file;
    let password = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let url = format!("{}/?database={}", stack.clickhouse, stack.database);
    let shown = |question: &Question| question.topics.iter().all(|topic| topics.contains(topic));
    for Question { title, sql, .. } in QUESTIONS.into_iter().filter(shown) {
        let sql = format!("{sql} FORMAT PrettyCompactMonoBlock");
        let answer = http::clickhouse(&url, &stack.analyst.user, password.trim(), &sql)
            .with_context(|| format!("ask: {title}"))?;
        println!("\n{title}\n{}", answer.trim_end());
    }
    Ok(())
}
