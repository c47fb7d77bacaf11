-- Feeds orders_revenue_per_minute: its figures, and its ledger. They leave as one block; the keys of the other set of
-- groups have their defaults, so that _slice is 0 in figures.
CREATE MATERIALIZED VIEW IF NOT EXISTS orders_revenue_per_minute_mv TO orders_revenue_per_minute AS
SELECT
    _slice,
    _partition,
    minute, currency, country, segment,
    if(_slice = 0, orders, 0) AS orders,
    if(_slice = 0, revenue, 0) AS revenue,
    if(_slice = 0, 0, bits) AS _counted
FROM
(
    SELECT
        1 + intDiv(_offset, 64) AS _slice,
        _partition,
        toStartOfMinute(timestamp) AS minute,
        currency,
        shipping_country AS country,
        ifNull(customer_segment, 'unknown') AS segment,
        count() AS orders,
        sum(total) AS revenue,
        groupBitOr(bitShiftLeft(toUInt64(1), toUInt8(_offset % 64))) AS bits
    FROM orders
    WHERE event_type = 'paid' AND _partition >= 0
    GROUP BY GROUPING SETS ((minute, currency, country, segment), (_slice, _partition))
)
COMMENT 'Feeds orders_revenue_per_minute'
