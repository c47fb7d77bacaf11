-- What was paid per minute, by currency, country shipped to and segment of the customer. Sums are exact to the cent, and
-- currencies are never added up.
--
-- param minutes UInt32 = 60: How many minutes back from the newest one
-- param country String = : Only this country, ISO 3166-1 alpha-2; all if empty
-- param segment String = : Only this segment; all if empty
--
-- example
-- minute               currency  country  segment   orders  revenue
-- 2026-01-01 00:00:00  EUR       DE       consumer  2       1234.50
SELECT minute, currency, country, segment, sum(orders) AS orders, sum(revenue) AS revenue
FROM orders_revenue_per_minute
WHERE _slice = 0
    AND minute > (SELECT max(minute) FROM orders_revenue_per_minute WHERE _slice = 0) - toIntervalMinute({minutes:UInt32})
    AND ({country:String} = '' OR country = {country:String})
    AND ({segment:String} = '' OR segment = {segment:String})
GROUP BY minute, currency, country, segment
ORDER BY minute, currency, country, segment
LIMIT 100000
