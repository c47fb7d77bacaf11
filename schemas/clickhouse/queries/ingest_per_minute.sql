-- How many rows were inserted into the table of orders per minute, by the clock of the server.
--
-- param minutes UInt32 = 60: How many minutes back from now
--
-- example
-- minute               rows
-- 2026-01-01 12:00:00  600000
SELECT toStartOfMinute(_ingested_at) AS minute, count() AS rows
FROM orders
WHERE _ingested_at > now64(3) - toIntervalMinute({minutes:UInt32})
GROUP BY minute
ORDER BY minute
LIMIT 100000
