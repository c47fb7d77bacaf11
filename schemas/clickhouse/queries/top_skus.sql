-- The products that brought the most in each currency: pieces of paid orders and what they cost before coupons.
--
-- param days UInt32 = 7: How many days back from the newest one
-- param limit UInt32 = 10: How many products of each currency
--
-- example
-- currency  sku              category  quantity  revenue
-- EUR       sku-books-00421  books     17        339.83
SELECT currency, sku, category, sum(quantity) AS quantity, sum(revenue) AS revenue
FROM orders_skus_per_day
WHERE _slice = 0
    AND day > (SELECT max(day) FROM orders_skus_per_day WHERE _slice = 0) - toIntervalDay({days:UInt32})
GROUP BY currency, sku, category
ORDER BY currency, revenue DESC, sku, category
LIMIT {limit:UInt32} BY currency
LIMIT 10000
