//! Rollups and named queries against what was sent: every figure of every group, to the cent, computed out of the events and
//! not out of the table.

use std::collections::HashMap;

use anyhow::{Context, Result};
use clickhouse::{Client, Row};
use millrace_schemas::{OrderEventType, QUERIES};
use serde::Deserialize;

use super::SAMPLES;
use crate::manifest::Manifest;
use crate::orders::{Lookups, Orders, blank};

/// Figures by group, whose columns are joined by `|`. Money is in cents.
type Groups = HashMap<String, Vec<i64>>;

/// What the comparison came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Compared {
    /// Groups looked at, of rollups and of answers.
    pub(super) groups: u64,
    /// Groups that are missing, too many, or have other figures.
    pub(super) wrong: u64,
    /// The first few of each, in words.
    pub(super) samples: Vec<String>,
}

#[derive(Row, Deserialize)]
struct Answer {
    key: String,
    figures: Vec<i64>,
}

/// A question, and the answer that it must have.
struct Question {
    name: &'static str,
    /// Gives a group and its figures.
    sql: String,
    expected: Groups,
}

/// Whether the database has the rollups of orders.
pub(super) async fn are_there(client: &Client) -> Result<bool> {
    let there =
        "SELECT count() FROM system.tables WHERE database = currentDatabase() AND name = 'customer_value_per_hour_mv'";
    let there = client.query_raw(there).fetch_one::<u64>().await.context("ask whether there are rollups")?;
    Ok(there > 0)
}

/// Compares all rollups, and the named queries over all that was sent. The table must hold nothing else.
pub(super) async fn compare(client: &Client, manifest: &Manifest, orders: &Orders) -> Result<Compared> {
    let mut compared = Compared::default();
    if manifest.events == 0 {
        return Ok(compared);
    }
    for Question { name, sql, mut expected } in questions(manifest, orders) {
        let rows = client.query_raw(&sql).fetch_all::<Answer>();
        let rows = rows.await.with_context(|| format!("read {name}"))?;
        let mut differences = Vec::new();
        compared.groups += rows.len() as u64;
        for Answer { key: group, figures } in rows {
            let should = expected.remove(&group);
            if should.as_ref() != Some(&figures) {
                differences.push(format!("{name}: {group} has {figures:?}, should have {should:?}"));
            }
        }
        differences.extend(expected.iter().map(|(group, should)| format!("{name}: {group} is missing, {should:?}")));
        compared.wrong += differences.len() as u64;
        compared.samples.extend(differences.into_iter().take(SAMPLES));
    }
    Ok(compared)
}

fn questions(manifest: &Manifest, orders: &Orders) -> Vec<Question> {
    let Figures { revenue, steps, skus, customers, status, first_ms, last_ms, last_order } = figures(manifest, orders);
    let hours = (last_ms - first_ms) / 3_600_000 + 2;
    let categories = grouped(&skus, &[1, 2]);
    let currency_of = |group: &str| part(group, 0).to_owned();
    let by_sku = grouped(&skus, &[1, 3, 2]);
    let by_customer = grouped(&customers, &[2, 1]);
    let funnel = grouped(&steps, &[1]);
    let by_status = status.values().fold(Groups::new(), |mut groups, (_, step)| {
        add(&mut groups, STEPS[*step].to_owned(), &[1]);
        groups
    });
    let current = status.get(&last_order).map(|(at, step)| (format!("{last_order}|{}|{at}", STEPS[*step]), Vec::new()));
    vec![
        rollup("orders_revenue_per_minute", "toUnixTimestamp(minute), currency, country, segment", revenue.clone()),
        rollup("orders_steps", "toUnixTimestamp(hour), step, channel", steps),
        rollup("orders_skus_per_day", "toInt32(day), currency, category, sku", skus),
        rollup("customer_value_per_hour", "toUnixTimestamp(hour), customer_id, currency", customers),
        named(
            "revenue_per_minute",
            &[("minutes", (hours * 60).to_string()), ("country", String::new()), ("segment", String::new())],
            "toUnixTimestamp(minute), currency, country, segment",
            "toInt64(orders), toInt64(revenue * 100)",
            revenue,
        ),
        named("funnel", &[("hours", hours.to_string())], "step", "toInt64(orders)", funnel),
        named("top_categories", &top("days", hours), "currency, category", SOLD, categories),
        named("top_skus", &top("days", hours), "currency, sku, category", SOLD, largest(by_sku, currency_of, 1)),
        named(
            "customer_value",
            &top("hours", hours),
            "currency, customer_id",
            "toInt64(orders), toInt64(revenue * 100)",
            largest(by_customer, currency_of, 1),
        ),
        named("orders_by_status", &[("hours", hours.to_string())], "status", "toInt64(orders)", by_status),
        named(
            "order_current",
            &[("order_id", last_order)],
            "order_id, status, toUnixTimestamp64Milli(since)",
            "",
            current.into_iter().collect(),
        ),
    ]
}

const SOLD: &str = "toInt64(quantity), toInt64(revenue * 100)";
/// How many of each currency are asked for.
const TOP: usize = 20;

fn top(time: &'static str, hours: i64) -> [(&'static str, String); 2] {
    [(time, if time == "days" { hours / 24 + 2 } else { hours }.to_string()), ("limit", TOP.to_string())]
}

fn rollup(name: &'static str, group: &str, expected: Groups) -> Question {
    let figures = match name {
        "orders_steps" => "toInt64(sum(orders))",
        "orders_skus_per_day" => "toInt64(sum(quantity)), toInt64(sum(revenue) * 100)",
        _ => "toInt64(sum(orders)), toInt64(sum(revenue) * 100)",
    };
    // Rows of the ledger have no figures, and no group either.
    let sql = format!("SELECT {}, [{figures}] AS figures FROM {name} WHERE _slice = 0 GROUP BY ALL", joined(group));
    Question { name, sql, expected }
}

fn named(name: &'static str, params: &[(&str, String)], group: &str, figures: &str, expected: Groups) -> Question {
    let mut text = QUERIES.iter().find(|(query, _)| *query == name).map_or("", |(_, text)| *text).to_owned();
    for (param, value) in params {
        for type_ in ["UInt32", "String"] {
            let literal = if type_ == "String" { format!("'{value}'") } else { value.clone() };
            text = text.replace(&format!("{{{param}:{type_}}}"), &literal);
        }
    }
    let figures = if figures.is_empty() { "[]::Array(Int64)".to_owned() } else { format!("[{figures}]") };
    Question { name, sql: format!("SELECT {}, {figures} AS figures FROM (\n{text})", joined(group)), expected }
}

fn joined(group: &str) -> String {
    let columns: Vec<String> = split(group).iter().map(|column| format!("toString({column})")).collect();
    format!("arrayStringConcat([{}], '|') AS key", columns.join(", "))
}

fn split(list: &str) -> Vec<&str> {
    list.split(", ").collect()
}

fn part(group: &str, at: usize) -> &str {
    group.split('|').nth(at).unwrap_or_default()
}

/// Groups by some of their columns only, in this order.
fn grouped(groups: &Groups, columns: &[usize]) -> Groups {
    let mut fewer = Groups::new();
    for (group, figures) in groups {
        let key = columns.iter().map(|at| part(group, *at)).collect::<Vec<_>>().join("|");
        add(&mut fewer, key, figures);
    }
    fewer
}

/// The [`TOP`] groups of each kind by one of their figures, and of equal ones those whose names come first.
fn largest(groups: Groups, kind: impl Fn(&str) -> String, by: usize) -> Groups {
    let mut sorted: Vec<(String, Vec<i64>)> = groups.into_iter().collect();
    sorted.sort_by(|a, b| (-a.1[by], &a.0).cmp(&(-b.1[by], &b.0)));
    let mut taken: HashMap<String, usize> = HashMap::new();
    sorted.retain(|(group, _)| {
        let count = taken.entry(kind(group)).or_default();
        *count += 1;
        *count <= TOP
    });
    sorted.into_iter().collect()
}

fn add(groups: &mut Groups, group: String, figures: &[i64]) {
    let sums = groups.entry(group).or_insert_with(|| vec![0; figures.len()]);
    sums.iter_mut().zip(figures).for_each(|(sum, figure)| *sum += figure);
}

/// What the events of a manifest add up to.
struct Figures {
    revenue: Groups,
    steps: Groups,
    skus: Groups,
    customers: Groups,
    /// By order: its latest step, and when.
    status: HashMap<String, (i64, usize)>,
    first_ms: i64,
    last_ms: i64,
    last_order: String,
}

fn figures(manifest: &Manifest, orders: &Orders) -> Figures {
    let (mut event, mut lookups) = (blank(), Lookups::default());
    let (mut revenue, mut steps, mut skus, mut customers) =
        (Groups::new(), Groups::new(), Groups::new(), Groups::new());
    let mut status: HashMap<String, (i64, usize)> = HashMap::new();
    let (mut first_ms, mut last_ms) = (i64::MAX, i64::MIN);
    for n in 0..manifest.events {
        orders.write_event(n, &mut event, &mut lookups);
        let (at, step, data) = (event.timestamp, event.event_type as usize, &event.data);
        (first_ms, last_ms) = (first_ms.min(at), last_ms.max(at));
        let (minute, hour, day) = (start(at, 60), start(at, 3_600), at.div_euclid(86_400_000));
        add(&mut steps, format!("{hour}|{}|{}", STEPS[step], data.channel.as_str()), &[1]);
        let latest = status.entry(data.order_id.clone()).or_insert((at, step));
        *latest = (*latest).max((at, step));
        if event.event_type != OrderEventType::Paid {
            continue;
        }
        let (currency, paid) = (&data.currency, [1, data.total.0]);
        let segment = lookups.customer.map_or("unknown", |index| orders.customer(index).segment.as_str());
        add(&mut revenue, format!("{minute}|{currency}|{}|{segment}", data.shipping.country), &paid);
        add(&mut customers, format!("{hour}|{}|{currency}", data.customer_id), &paid);
        for (item, product) in data.items.iter().zip(&lookups.products) {
            let category = product.map_or("unknown", |index| orders.product(index).category.as_str());
            let sold = [i64::from(item.quantity), item.unit_price.0 * i64::from(item.quantity)];
            add(&mut skus, format!("{day}|{currency}|{category}|{}", item.sku), &sold);
        }
    }
    Figures { revenue, steps, skus, customers, status, first_ms, last_ms, last_order: event.data.order_id }
}

/// Seconds since 1970 at which the minute or hour of a moment begins.
fn start(at_ms: i64, seconds: i64) -> i64 {
    at_ms.div_euclid(seconds * 1000) * seconds
}

/// The symbols of the table, in the order of the variants.
const STEPS: [&str; 6] = ["created", "paid", "shipped", "delivered", "cancelled", "refunded"];
