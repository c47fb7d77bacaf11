-- What customers paid, by hour. What the ledger is for, and why there are no partitions, says
-- 0005_orders_revenue_per_minute.sql. To let old rows go:
--   ALTER TABLE customer_value_per_hour MODIFY TTL hour + INTERVAL 25 MONTH DELETE WHERE _slice = 0;
CREATE TABLE IF NOT EXISTS customer_value_per_hour
(
    _slice Int64 COMMENT '0 for figures; a row of the ledger, which has no figures, is about the 64 Kafka offsets below 64 * _slice' CODEC(Delta(8), LZ4),
    _partition Int32 COMMENT 'In the ledger: Kafka partition; 0 for figures' CODEC(LZ4),
    hour DateTime('UTC') COMMENT 'Hour in which it was paid, by the clock of the publishing service' CODEC(Delta(4), LZ4),
    customer_id String COMMENT 'The customer who ordered' CODEC(LZ4),
    currency LowCardinality(String) COMMENT 'ISO 4217 code of the sums' CODEC(LZ4),
    orders SimpleAggregateFunction(sum, UInt64) COMMENT 'Orders paid' CODEC(LZ4),
    revenue SimpleAggregateFunction(sum, Decimal(38, 2)) COMMENT 'Sum of their totals, in currency' CODEC(LZ4),
    largest SimpleAggregateFunction(max, Decimal(18, 2)) COMMENT 'Total of the largest of them, in currency' CODEC(LZ4),
    _counted SimpleAggregateFunction(groupBitOr, UInt64) COMMENT 'In the ledger: bit n is set if offset 64 * (_slice - 1) + n is counted; 0 for figures' CODEC(LZ4)
)
ENGINE = AggregatingMergeTree
ORDER BY (_slice, _partition, hour, customer_id, currency)
SETTINGS non_replicated_deduplication_window = 10000, merge_selector_base = 10
COMMENT 'What customers paid per hour, by currency; read WHERE _slice = 0'
