-- Revenue per minute: what was paid, by currency, country shipped to and segment of the customer.
--
-- Fed by orders_revenue_per_minute_mv. Every rollup keeps a ledger of what it has counted, in the same part as the figures:
-- rows with _slice > 0 say, bit by bit, which Kafka offsets are in; figures have _slice = 0. A view is not
-- atomic with its table: a server that dies between the two leaves rows that are in the table and not in the rollup.
-- Whoever takes a Kafka partition over finds them by the ledger and counts them; docs/analytics.md tells why that is exact.
--
-- No partitions, so that figures and ledger of an insert are one part, which lands whole or not at all. To let old rows go:
--   ALTER TABLE orders_revenue_per_minute MODIFY TTL minute + INTERVAL 25 MONTH DELETE WHERE _slice = 0;
CREATE TABLE IF NOT EXISTS orders_revenue_per_minute
(
    _slice Int64 COMMENT '0 for figures; a row of the ledger, which has no figures, is about the 64 Kafka offsets below 64 * _slice' CODEC(Delta(8), LZ4),
    _partition Int32 COMMENT 'In the ledger: Kafka partition; 0 for figures' CODEC(LZ4),
    minute DateTime('UTC') COMMENT 'Minute in which it was paid, by the clock of the publishing service' CODEC(Delta(4), LZ4),
    currency LowCardinality(String) COMMENT 'ISO 4217 code of revenue' CODEC(LZ4),
    country LowCardinality(String) COMMENT 'Country shipped to, ISO 3166-1 alpha-2' CODEC(LZ4),
    segment LowCardinality(String) COMMENT 'Segment of the customer; unknown if it was not known at the time' CODEC(LZ4),
    orders SimpleAggregateFunction(sum, UInt64) COMMENT 'Orders paid' CODEC(LZ4),
    revenue SimpleAggregateFunction(sum, Decimal(38, 2)) COMMENT 'Sum of their totals, in currency' CODEC(LZ4),
    _counted SimpleAggregateFunction(groupBitOr, UInt64) COMMENT 'In the ledger: bit n is set if offset 64 * (_slice - 1) + n is counted; 0 for figures' CODEC(LZ4)
)
ENGINE = AggregatingMergeTree
ORDER BY (_slice, _partition, minute, currency, country, segment)
SETTINGS non_replicated_deduplication_window = 10000, merge_selector_base = 10
COMMENT 'Revenue of paid orders per minute, by currency, country and segment; read WHERE _slice = 0'
