-- What was sold: items of the orders that were paid, by day and product. What the ledger is for, and why there are no
-- partitions, says 0005_orders_revenue_per_minute.sql. To let old rows go:
--   ALTER TABLE orders_skus_per_day MODIFY TTL day + INTERVAL 25 MONTH DELETE WHERE _slice = 0;
CREATE TABLE IF NOT EXISTS orders_skus_per_day
(
    _slice Int64 COMMENT '0 for figures; a row of the ledger, which has no figures, is about the 64 Kafka offsets below 64 * _slice' CODEC(Delta(8), LZ4),
    _partition Int32 COMMENT 'In the ledger: Kafka partition; 0 for figures' CODEC(LZ4),
    day Date COMMENT 'Day on which it was paid, UTC, by the clock of the publishing service' CODEC(Delta(2), LZ4),
    currency LowCardinality(String) COMMENT 'ISO 4217 code of revenue' CODEC(LZ4),
    category LowCardinality(String) COMMENT 'Category of the product; unknown if it was not known at the time' CODEC(LZ4),
    sku String COMMENT 'The product' CODEC(LZ4),
    quantity SimpleAggregateFunction(sum, Int64) COMMENT 'Pieces sold' CODEC(LZ4),
    revenue SimpleAggregateFunction(sum, Decimal(38, 2)) COMMENT 'Pieces times price, before coupons, in currency' CODEC(LZ4),
    _counted SimpleAggregateFunction(groupBitOr, UInt64) COMMENT 'In the ledger: bit n is set if offset 64 * (_slice - 1) + n is counted; 0 for figures' CODEC(LZ4)
)
ENGINE = AggregatingMergeTree
ORDER BY (_slice, _partition, day, currency, category, sku)
SETTINGS non_replicated_deduplication_window = 10000, merge_selector_base = 10
COMMENT 'Items of paid orders per day and product; read WHERE _slice = 0'
