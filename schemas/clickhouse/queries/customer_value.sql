-- The customers who paid the most in each currency.
--
-- param hours UInt32 = 24: How many hours back from the newest one
-- param limit UInt32 = 10: How many customers of each currency
--
-- example
-- currency  customer_id        orders  revenue  largest
-- EUR       customer-00012345  3       987.65   500.00
SELECT currency, customer_id, sum(orders) AS orders, sum(revenue) AS revenue, max(largest) AS largest
FROM customer_value_per_hour
WHERE _slice = 0
    AND hour > (SELECT max(hour) FROM customer_value_per_hour WHERE _slice = 0) - toIntervalHour({hours:UInt32})
GROUP BY currency, customer_id
ORDER BY currency, revenue DESC, customer_id
LIMIT {limit:UInt32} BY currency
LIMIT 10000
