-- How many orders stand where: orders that took a step within these hours, by the latest of those steps.
--
-- param hours UInt32 = 1: How many hours back from the newest event
--
-- example
-- status     orders
-- delivered  620
-- paid       80
SELECT CAST(latest, 'String') AS status, count() AS orders
FROM
(
    SELECT argMax(event_type, (timestamp, event_type)) AS latest
    FROM orders
    WHERE timestamp > (SELECT max(timestamp) FROM orders) - toIntervalHour({hours:UInt32})
    GROUP BY order_id
)
GROUP BY latest
ORDER BY orders DESC, status
LIMIT 100
