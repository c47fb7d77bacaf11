-- Who may insert rows of which Kafka partition. A consumer appends a claim with a higher epoch when it is assigned a
-- partition; every insert checks inside the server that its claim still is the highest, so a consumer that lost the
-- partition cannot write, however long it slept. The holder is argMax(owner, (epoch, owner)).
--
-- A few rows per rebalance, read by every insert: no partitions, and no TTL (an expired claim
-- would let an older owner in again).
CREATE TABLE IF NOT EXISTS claims
(
    topic LowCardinality(String) COMMENT 'Kafka topic',
    partition Int32 COMMENT 'Kafka partition',
    epoch UInt64 COMMENT 'Number of the claim on this partition; the highest holds',
    owner String COMMENT 'Consumer instance that claims it',
    claimed_at DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'When it was claimed, by the clock of the server'
)
ENGINE = MergeTree
ORDER BY (topic, partition, epoch, owner)
COMMENT 'Which consumer holds which Kafka partition; written by Millrace, never by hand'
