-- Letting old rows go. The pipeline reads ids back from the table: rows have to stay for longer than dedup.window (`millrace
-- check` looks at the TTL). Rows of rollups stay as long as you like; the ledger (_slice > 0) stays with them, for without it
-- a backfill would count again what is counted: a bit for each event, so 13 MB for 100 million.
--
-- Whole months by TTL: parts are dropped and nothing is rewritten.
ALTER TABLE orders MODIFY TTL toDateTime(timestamp) + INTERVAL 25 MONTH;

ALTER TABLE orders MODIFY SETTING ttl_only_drop_parts = 1;

-- Rollups outlive the rows that they were made of.
ALTER TABLE orders_skus_per_day MODIFY TTL day + INTERVAL 60 MONTH DELETE WHERE _slice = 0;

-- By hand: first the months of which every row was inserted before the window began (here 7 days), then drop them.
SELECT partition, max(modification_time) AS newest, sum(rows) AS rows FROM system.parts WHERE active AND database = currentDatabase() AND table = 'orders' GROUP BY partition HAVING newest < now() - INTERVAL 7 DAY ORDER BY partition;

ALTER TABLE orders DROP PARTITION 202401;
