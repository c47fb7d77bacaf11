-- Events that could not be read, by topic and reason. Only where a table of dead letters is named in [topics.dead_letters].
--
-- param hours UInt32 = 24: How many hours back from now
--
-- example
-- topic   reason     letters  newest
-- orders  truncated  12       2026-01-01 12:00:00.000
SELECT source_topic AS topic, reason, count() AS letters, max(written_at) AS newest
FROM orders_dead FINAL
WHERE written_at > now64(3) - toIntervalHour({hours:UInt32})
GROUP BY topic, reason
ORDER BY letters DESC, topic, reason
LIMIT 1000
