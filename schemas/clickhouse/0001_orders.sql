-- Order events, one row per event, enriched with what the customers and products topics said.
--
-- Codecs are chosen for the insert path: LZ4 throughout, because ZSTD would cost the server more CPU per row
-- than all the rest of an insert, and a background merge can be told to recompress old partitions instead.
--   event_id       random bits: any codec would only burn CPU, hence NONE
--   timestamp      sorted inside a part, so Delta leaves small numbers for LZ4
--   _offset        nearly sequential per insert, the same
-- Nested columns are written out as arrays of equal length, which is what Nested is on disk, because only so
-- can each have its comment.
--
-- non_replicated_deduplication_window is off by default on a plain MergeTree; without it a retried insert
-- would land twice. 10,000 block ids cover more than an hour of inserts at two a second.
--
-- Parts below 128 MiB are compact, one file for all columns: an insert of 50,000 rows into these 22 columns would else
-- write some 60 files, to be merged away soon after. The demo lands 123,000 events/s with it, 110,000/s with the default
-- of 10 MiB (means of two runs, live, two cores). Merged parts grow wide.
--
-- Merges are twice as wide as by default (5), so that a row is written again less often: ClickHouse takes 3.3 instead of
-- 3.6 us for a row in all while a backlog is drained. There are more parts at a time for it, some dozens.
--
-- To let old rows expire (keep it well longer than the deduplication window of the configuration, for the
-- consumer reads back ids of that window from this table):
--   ALTER TABLE orders MODIFY TTL toDateTime(timestamp) + INTERVAL 25 MONTH;
--   ALTER TABLE orders MODIFY SETTING ttl_only_drop_parts = 1;
CREATE TABLE IF NOT EXISTS orders
(
    event_id UUID COMMENT 'Identifies the event; unique in this table' CODEC(NONE),
    event_type Enum8('created' = 1, 'paid' = 2, 'shipped' = 3, 'delivered' = 4, 'cancelled' = 5, 'refunded' = 6, 'unknown' = 7) COMMENT 'Step in the life of the order; unknown if it is newer than the schema that the event was read with' CODEC(LZ4),
    timestamp DateTime64(3, 'UTC') COMMENT 'When it happened, by the clock of the publishing service' CODEC(Delta(8), LZ4),
    order_id String COMMENT 'The order' CODEC(LZ4),
    customer_id String COMMENT 'The customer who ordered' CODEC(LZ4),
    currency LowCardinality(String) COMMENT 'ISO 4217 code of total and of the prices' CODEC(LZ4),
    total Decimal(18, 2) COMMENT 'Sum of the order' CODEC(LZ4),
    coupon Nullable(String) COMMENT 'Coupon code, if one was used' CODEC(LZ4),
    channel LowCardinality(String) COMMENT 'Where it was ordered: web, mobile, store, marketplace' CODEC(LZ4),
    shipping_country LowCardinality(String) COMMENT 'Country shipped to, ISO 3166-1 alpha-2' CODEC(LZ4),
    shipping_city LowCardinality(String) COMMENT 'City shipped to' CODEC(LZ4),
    `items.sku` Array(String) COMMENT 'Per item: the product' CODEC(LZ4),
    `items.quantity` Array(Int32) COMMENT 'Per item: how many' CODEC(LZ4),
    `items.unit_price` Array(Decimal(18, 2)) COMMENT 'Per item: price of one' CODEC(LZ4),
    `items.category` Array(LowCardinality(Nullable(String))) COMMENT 'Per item: category of the product; null if it was not known at the time' CODEC(LZ4),
    `items.brand` Array(LowCardinality(Nullable(String))) COMMENT 'Per item: brand of the product; null if it was not known at the time' CODEC(LZ4),
    customer_segment LowCardinality(Nullable(String)) COMMENT 'Segment of the customer; null if not known at the time' CODEC(LZ4),
    customer_country LowCardinality(Nullable(String)) COMMENT 'Home country of the customer, ISO 3166-1 alpha-2; null if not known at the time' CODEC(LZ4),
    customer_signup_date Nullable(Date32) COMMENT 'When the customer signed up; null if not known at the time' CODEC(LZ4),
    _partition Int32 COMMENT 'Kafka partition that the event was read from' CODEC(LZ4),
    _offset Int64 COMMENT 'Kafka offset in that partition' CODEC(Delta(8), LZ4),
    _ingested_at DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'When the row was inserted, by the clock of the server' CODEC(LZ4),
    INDEX ingested_at_minmax _ingested_at TYPE minmax GRANULARITY 1,
    INDEX order_id_bloom order_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(timestamp)
ORDER BY (toStartOfHour(timestamp), event_type, timestamp)
SETTINGS non_replicated_deduplication_window = 10000, min_bytes_for_wide_part = 134217728, merge_selector_base = 10
COMMENT 'Order events, one row per event, enriched; landed exactly once by Millrace'
