-- How fresh the table of orders is, by Kafka partition: the newest event, when the newest row was inserted, and the last
-- offset, of the events that happened within these hours.
--
-- param hours UInt32 = 1: How many hours back from the newest event
--
-- example
-- partition  newest_event             newest_row               last_offset
-- 0          2026-01-01 12:00:00.000  2026-01-01 12:00:00.420  41999
SELECT _partition AS partition, max(timestamp) AS newest_event, max(_ingested_at) AS newest_row, max(_offset) AS last_offset
FROM orders
WHERE timestamp > (SELECT max(timestamp) FROM orders) - toIntervalHour({hours:UInt32})
GROUP BY partition
ORDER BY partition
LIMIT 10000
