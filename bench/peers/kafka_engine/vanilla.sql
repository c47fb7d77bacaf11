-- ClickHouse's Kafka engine with its defaults. Columns are those of the Avro schema and no others: given one column that
-- the schema lacks, the engine (26.7) rebalances for ever. Names in @…@ are filled in by the runner.
CREATE TABLE orders_queue
(
    event_id UUID,
    event_type Enum8('created' = 1, 'paid' = 2, 'shipped' = 3, 'delivered' = 4, 'cancelled' = 5, 'refunded' = 6, 'unknown' = 7),
    timestamp DateTime64(3, 'UTC'),
    `data.order_id` String,
    `data.customer_id` String,
    `data.currency` LowCardinality(String),
    `data.total` Decimal(18, 2),
    `data.coupon` Nullable(String),
    `data.channel` LowCardinality(String),
    `data.shipping.country` LowCardinality(String),
    `data.shipping.city` LowCardinality(String),
    `data.items` Array(Tuple(sku String, quantity Int32, unit_price Decimal(18, 2)))
)
ENGINE = Kafka
SETTINGS
    kafka_broker_list = '@BROKERS@',
    kafka_topic_list = '@TOPIC@',
    kafka_group_name = '@GROUP@',
    kafka_format = 'AvroConfluent',
    format_avro_schema_registry_url = '@REGISTRY@';

CREATE MATERIALIZED VIEW orders_mv TO orders AS
SELECT
    event_id,
    event_type,
    timestamp,
    `data.order_id` AS order_id,
    `data.customer_id` AS customer_id,
    `data.currency` AS currency,
    `data.total` AS total,
    `data.coupon` AS coupon,
    `data.channel` AS channel,
    `data.shipping.country` AS shipping_country,
    `data.shipping.city` AS shipping_city,
    `data.items`.sku AS `items.sku`,
    `data.items`.quantity AS `items.quantity`,
    `data.items`.unit_price AS `items.unit_price`,
    arrayResize([CAST(NULL, 'Nullable(String)')], length(`data.items`)) AS `items.category`,
    arrayResize([CAST(NULL, 'Nullable(String)')], length(`data.items`)) AS `items.brand`,
    toInt32(_partition) AS _partition,
    toInt64(_offset) AS _offset
FROM orders_queue;
