-- Dead letters: the events that could not be read, for SQL beside their Kafka topic. Made only for topics that name such a
-- table in [topics.dead_letters]; each topic has its own.
--
-- They are written at least once, before the offset is committed. The key is where the event came from, so a letter that
-- is written again replaces itself: read with FINAL and each is there once. The timestamp is part of the key because the
-- offsets of a topic that is made anew begin at 0 again.
--
-- No partitions: a timestamp is the producer's word, and garbage may lie in any month. To let old letters go:
--   ALTER TABLE orders_dead MODIFY TTL toDateTime(written_at) + INTERVAL 90 DAY;
CREATE TABLE IF NOT EXISTS dead_letters
(
    source_topic LowCardinality(String) COMMENT 'Kafka topic that the event was read from',
    source_partition Int32 COMMENT 'Partition of that topic',
    source_offset Int64 COMMENT 'Offset in that partition',
    source_timestamp DateTime64(3, 'UTC') COMMENT 'Kafka timestamp of the event',
    reason LowCardinality(String) COMMENT 'Why it could not be read: a code of the closed list',
    error String COMMENT 'What was expected and what was found, with the byte',
    schema_id Nullable(UInt32) COMMENT 'Id in the header of the value; null if it has no whole header',
    key Nullable(String) COMMENT 'Original key, the bytes as they were',
    value Nullable(String) COMMENT 'Original value, the bytes as they were',
    headers Array(Tuple(name String, value Nullable(String))) COMMENT 'Original headers in order, the bytes as they were',
    version LowCardinality(String) COMMENT 'Version of Millrace that refused it',
    written_at DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'When the row was inserted, by the clock of the server'
)
ENGINE = ReplacingMergeTree
ORDER BY (source_topic, source_partition, source_offset, source_timestamp)
COMMENT 'Events that could not be read; written at least once by Millrace, once with FINAL'
