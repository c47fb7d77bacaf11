-- Payments, one row per step of a payment, enriched with what the payment_methods topic said. Codecs, settings and the
-- columns that Millrace fills are those of orders; 0001_orders.sql says why.
--
-- The union `instrument` of the schema is a column for each field of its branches; those of one branch are set.
CREATE TABLE IF NOT EXISTS payments
(
    payment_id UUID COMMENT 'Identifies this step of the payment; unique in this table' CODEC(NONE),
    order_id String COMMENT 'The order that is paid for' CODEC(LZ4),
    status Enum8('authorized' = 1, 'captured' = 2, 'declined' = 3, 'refunded' = 4) COMMENT 'Step of the payment' CODEC(LZ4),
    occurred_at DateTime64(6, 'UTC') COMMENT 'When it happened, by the clock of the publishing service' CODEC(Delta(8), LZ4),
    amount Decimal(18, 2) COMMENT 'In currency; what is paid back is negative' CODEC(LZ4),
    currency LowCardinality(String) COMMENT 'ISO 4217 code of amount' CODEC(LZ4),
    method LowCardinality(String) COMMENT 'Payment method' CODEC(LZ4),
    method_family LowCardinality(Nullable(String)) COMMENT 'card, bank_transfer, wallet or cash; null if the method was not known at the time' CODEC(LZ4),
    method_fee_percent Nullable(Decimal(5, 2)) COMMENT 'What the provider keeps; null if the method was not known at the time' CODEC(LZ4),
    method_refundable Nullable(Bool) COMMENT 'Whether it can be paid back; null if the method was not known at the time' CODEC(LZ4),
    card_network LowCardinality(Nullable(String)) COMMENT 'Card network; null if not paid by card' CODEC(LZ4),
    card_last_digits Nullable(String) COMMENT 'Last four digits of the card; null if not paid by card' CODEC(LZ4),
    card_expires Nullable(Date32) COMMENT 'Last day on which the card is valid; null if not paid by card' CODEC(LZ4),
    bank LowCardinality(Nullable(String)) COMMENT 'Bank; null if not paid by bank transfer' CODEC(LZ4),
    bank_country LowCardinality(Nullable(String)) COMMENT 'Country of the bank, ISO 3166-1 alpha-2; null if not paid by bank transfer' CODEC(LZ4),
    wallet_provider LowCardinality(Nullable(String)) COMMENT 'Wallet; null if not paid by wallet' CODEC(LZ4),
    wallet_account Nullable(String) COMMENT 'Account at the wallet; null if not told, or not paid by wallet' CODEC(LZ4),
    attributes Map(String, String) COMMENT 'Whatever else the payment provider says' CODEC(LZ4),
    _partition Int32 COMMENT 'Kafka partition that the event was read from' CODEC(LZ4),
    _offset Int64 COMMENT 'Kafka offset in that partition' CODEC(Delta(8), LZ4),
    _ingested_at DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'When the row was inserted, by the clock of the server' CODEC(LZ4),
    INDEX ingested_at_minmax _ingested_at TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(occurred_at)
ORDER BY (toStartOfHour(occurred_at), method, occurred_at)
SETTINGS non_replicated_deduplication_window = 10000, min_bytes_for_wide_part = 134217728, merge_selector_base = 10
COMMENT 'Payments, one row per step, enriched; landed exactly once by Millrace'
