-- Feeds orders_steps: its figures, and its ledger. They leave as one block; the keys of the other set of
-- groups have their defaults, so that _slice is 0 in figures.
CREATE MATERIALIZED VIEW IF NOT EXISTS orders_steps_mv TO orders_steps AS
SELECT
    _slice,
    _partition,
    hour, step, channel,
    if(_slice = 0, orders, 0) AS orders,
    if(_slice = 0, 0, bits) AS _counted
FROM
(
    SELECT
        1 + intDiv(_offset, 64) AS _slice,
        _partition,
        toStartOfHour(timestamp) AS hour,
        CAST(event_type, 'String') AS step,
        channel,
        count() AS orders,
        groupBitOr(bitShiftLeft(toUInt64(1), toUInt8(_offset % 64))) AS bits
    FROM orders
    WHERE _partition >= 0
    GROUP BY GROUPING SETS ((hour, step, channel), (_slice, _partition))
)
COMMENT 'Feeds orders_steps'
