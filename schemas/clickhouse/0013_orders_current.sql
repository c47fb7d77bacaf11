-- Each order as it stands: its latest step, and of two at the same moment the later one of a life. It reads the table itself,
-- so it shows what was inserted at once. Ask it with a condition on order_id: the index of the table on it passes over
-- nearly all rows. Without one it groups the whole table.
CREATE VIEW IF NOT EXISTS orders_current
(
    order_id String COMMENT 'The order',
    status LowCardinality(String) COMMENT 'Its latest step',
    since DateTime64(3, 'UTC') COMMENT 'When it took that step, by the clock of the publishing service',
    customer_id String COMMENT 'The customer who ordered',
    currency LowCardinality(String) COMMENT 'ISO 4217 code of total',
    total Decimal(18, 2) COMMENT 'Sum of the order, as of its latest step',
    channel LowCardinality(String) COMMENT 'Where it was ordered: web, mobile, store, marketplace',
    shipping_country LowCardinality(String) COMMENT 'Country shipped to, ISO 3166-1 alpha-2',
    events UInt64 COMMENT 'Events of the order'
)
AS SELECT
    order_id,
    CAST(latest.2, 'LowCardinality(String)') AS status,
    latest.1 AS since,
    latest.3 AS customer_id,
    latest.4 AS currency,
    latest.5 AS total,
    latest.6 AS channel,
    latest.7 AS shipping_country,
    events
FROM
(
    SELECT
        order_id,
        argMax((timestamp, event_type, customer_id, currency, total, channel, shipping_country), (timestamp, event_type)) AS latest,
        count() AS events
    FROM orders
    GROUP BY order_id
)
COMMENT 'Each order as it stands; ask it by order_id'
