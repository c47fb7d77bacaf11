-- The categories of products that brought the most in each currency: pieces of paid orders and what they cost before coupons.
--
-- param days UInt32 = 7: How many days back from the newest one
-- param limit UInt32 = 10: How many categories of each currency
--
-- example
-- currency  category  quantity  revenue
-- EUR       books     4711      23456.78
SELECT currency, category, sum(quantity) AS quantity, sum(revenue) AS revenue
FROM orders_skus_per_day
WHERE _slice = 0
    AND day > (SELECT max(day) FROM orders_skus_per_day WHERE _slice = 0) - toIntervalDay({days:UInt32})
GROUP BY currency, category
ORDER BY currency, revenue DESC, category
LIMIT {limit:UInt32} BY currency
LIMIT 10000
