-- An order as it stands: its latest step, since when, and its total. What was inserted is seen at once.
--
-- param order_id String = : The order
--
-- example
-- order_id              status   since                    customer_id        currency  total   channel  shipping_country  events
-- ord-00d1f5a9c3b7e042  shipped  2026-01-01 12:00:00.000  customer-00012345  EUR       119.90  web      DE                3
SELECT order_id, toString(latest.2) AS status, latest.1 AS since, latest.3 AS customer_id, latest.4 AS currency,
    latest.5 AS total, latest.6 AS channel, latest.7 AS shipping_country, events
FROM
(
    SELECT
        order_id,
        argMax((timestamp, event_type, customer_id, currency, total, channel, shipping_country), (timestamp, event_type)) AS latest,
        count() AS events
    FROM orders
    WHERE order_id = {order_id:String}
    GROUP BY order_id
)
LIMIT 1
