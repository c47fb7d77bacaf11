-- Feeds orders_skus_per_day: its figures, and its ledger. They leave as one block; the keys of the other set of
-- groups have their defaults, so that _slice is 0 in figures.
CREATE MATERIALIZED VIEW IF NOT EXISTS orders_skus_per_day_mv TO orders_skus_per_day AS
SELECT
    _slice,
    _partition,
    day, currency, category, sku,
    if(_slice = 0, quantity, 0) AS quantity,
    if(_slice = 0, revenue, 0) AS revenue,
    if(_slice = 0, 0, bits) AS _counted
FROM
(
    SELECT
        1 + intDiv(_offset, 64) AS _slice,
        _partition,
        toDate(timestamp) AS day,
        currency,
        ifNull(item_category, 'unknown') AS category,
        sku,
        sum(item_quantity) AS quantity,
        sum(item_price * item_quantity) AS revenue,
        groupBitOr(bitShiftLeft(toUInt64(1), toUInt8(_offset % 64))) AS bits
    FROM orders
    ARRAY JOIN
        `items.sku` AS sku,
        `items.quantity` AS item_quantity,
        `items.unit_price` AS item_price,
        `items.category` AS item_category
    WHERE event_type = 'paid' AND _partition >= 0
    GROUP BY GROUPING SETS ((day, currency, category, sku), (_slice, _partition))
)
COMMENT 'Feeds orders_skus_per_day'
