-- Feeds customer_value_per_hour: its figures, and its ledger. They leave as one block; the keys of the other set of
-- groups have their defaults, so that _slice is 0 in figures.
CREATE MATERIALIZED VIEW IF NOT EXISTS customer_value_per_hour_mv TO customer_value_per_hour AS
SELECT
    _slice,
    _partition,
    hour, customer_id, currency,
    if(_slice = 0, orders, 0) AS orders,
    if(_slice = 0, revenue, 0) AS revenue,
    if(_slice = 0, largest, 0) AS largest,
    if(_slice = 0, 0, bits) AS _counted
FROM
(
    SELECT
        1 + intDiv(_offset, 64) AS _slice,
        _partition,
        toStartOfHour(timestamp) AS hour,
        customer_id,
        currency,
        count() AS orders,
        sum(total) AS revenue,
        max(total) AS largest,
        groupBitOr(bitShiftLeft(toUInt64(1), toUInt8(_offset % 64))) AS bits
    FROM orders
    WHERE event_type = 'paid' AND _partition >= 0
    GROUP BY GROUPING SETS ((hour, customer_id, currency), (_slice, _partition))
)
COMMENT 'Feeds customer_value_per_hour'
