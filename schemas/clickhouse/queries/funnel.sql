-- How many orders took each step, and what share that is of those that were created in the same hours.
--
-- param hours UInt32 = 24: How many hours back from the newest one
--
-- example
-- step     orders  share
-- created  1000    1
-- paid     870     0.87
-- shipped  750     0.75
SELECT step, sum(orders) AS orders, round(orders / nullIf(any(created), 0), 4) AS share
FROM orders_steps
CROSS JOIN
(
    SELECT sumIf(orders, step = 'created') AS created
    FROM orders_steps
    WHERE _slice = 0
        AND hour > (SELECT max(hour) FROM orders_steps WHERE _slice = 0) - toIntervalHour({hours:UInt32})
) AS entered
WHERE _slice = 0
    AND hour > (SELECT max(hour) FROM orders_steps WHERE _slice = 0) - toIntervalHour({hours:UInt32})
GROUP BY step
ORDER BY indexOf(['refunded', 'cancelled', 'delivered', 'shipped', 'paid', 'created'], step) DESC, step
LIMIT 100
