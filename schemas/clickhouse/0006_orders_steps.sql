-- The funnel: how many orders took which step, by hour and channel. An order takes a step once; a second event of the same
-- step, with an id of its own, counts again. What the ledger is for, and why there are no partitions, says
-- 0005_orders_revenue_per_minute.sql. To let old rows go:
--   ALTER TABLE orders_steps MODIFY TTL hour + INTERVAL 25 MONTH DELETE WHERE _slice = 0;
CREATE TABLE IF NOT EXISTS orders_steps
(
    _slice Int64 COMMENT '0 for figures; a row of the ledger, which has no figures, is about the 64 Kafka offsets below 64 * _slice' CODEC(Delta(8), LZ4),
    _partition Int32 COMMENT 'In the ledger: Kafka partition; 0 for figures' CODEC(LZ4),
    hour DateTime('UTC') COMMENT 'Hour of the step, by the clock of the publishing service' CODEC(Delta(4), LZ4),
    step LowCardinality(String) COMMENT 'created, paid, shipped, delivered, cancelled, refunded, unknown, and what newer schemas add' CODEC(LZ4),
    channel LowCardinality(String) COMMENT 'Where it was ordered: web, mobile, store, marketplace' CODEC(LZ4),
    orders SimpleAggregateFunction(sum, UInt64) COMMENT 'Orders that took the step' CODEC(LZ4),
    _counted SimpleAggregateFunction(groupBitOr, UInt64) COMMENT 'In the ledger: bit n is set if offset 64 * (_slice - 1) + n is counted; 0 for figures' CODEC(LZ4)
)
ENGINE = AggregatingMergeTree
ORDER BY (_slice, _partition, hour, step, channel)
SETTINGS non_replicated_deduplication_window = 10000, merge_selector_base = 10
COMMENT 'Orders by the step that they took, per hour and channel; read WHERE _slice = 0'
