-- Rows of the table of orders, made inside ClickHouse: {rows} events from {first} on, 26 ms apart since {start_ms}, so that 100 million span a
-- month. An order is created, then paid or (one of eight) cancelled, shipped, and delivered or (one of sixteen) refunded,
-- a thousand events apart each. Few customers and products make most of the sales.
INSERT INTO orders
(
    event_id, event_type, timestamp, order_id, customer_id, currency, total, coupon, channel, shipping_country, shipping_city,
    `items.sku`, `items.quantity`, `items.unit_price`, `items.category`, `items.brand`,
    customer_segment, customer_country, customer_signup_date, _partition, _offset, _ingested_at
)
WITH
    ['DE', 'FR', 'GB', 'US', 'SE', 'PL', 'JP', 'BR', 'IN', 'ES'] AS countries,
    ['EUR', 'EUR', 'GBP', 'USD', 'SEK', 'PLN', 'JPY', 'BRL', 'INR', 'EUR'] AS currencies,
    ['books', 'kitchen', 'garden', 'toys', 'office', 'clothing', 'electronics', 'sports', 'music', 'health', 'grocery', 'pets'] AS categories,
    intDiv(number, 4000) * 1000 + number % 1000 AS order_number,
    intDiv(number % 4000, 1000) AS nth,
    cityHash64(order_number) AS h,
    1 + (h % 100) % 10 AS place,
    toUInt32(floor(pow((bitShiftRight(h, 8) % 1000000) / 1000000, 4) * 100000)) AS customer,
    cityHash64(customer) AS c,
    arrayMap(i -> cityHash64(h, i), range(3 + bitShiftRight(h, 16) % 7)) AS drawn,
    arrayMap(d -> toUInt32(floor(pow((d % 1000000) / 1000000, 4) * 10000)), drawn) AS products,
    arrayMap((p, d) -> toDecimal64(1 + cityHash64(p) % 10000, 2) / 10, products, drawn) AS prices,
    arrayMap(d -> toInt32(1 + (bitShiftRight(d, 24) % 4 = 0) * (bitShiftRight(d, 32) % 4)), drawn) AS quantities,
    fromUnixTimestamp64Milli({start_ms} + toInt64(number) * 26 + toInt64(h % 50), 'UTC') AS at
SELECT
    reinterpretAsUUID(concat(reinterpretAsFixedString(cityHash64(number, 1)), reinterpretAsFixedString(cityHash64(number, 2)))),
    multiIf(nth = 0, 'created', nth = 1, if(h % 8 = 0, 'cancelled', 'paid'), nth = 2, 'shipped', h % 16 = 1, 'refunded', 'delivered'),
    at,
    concat('ord-', lower(hex(h))),
    concat('customer-', leftPad(toString(customer), 8, '0')),
    currencies[place],
    toDecimal64(arraySum((p, q) -> p * q, prices, quantities), 2),
    if(h % 5 = 0, ['WELCOME10', 'SPRING-25', 'FREESHIP', 'VIP'][1 + bitShiftRight(h, 40) % 4], NULL),
    ['web', 'web', 'web', 'mobile', 'mobile', 'mobile', 'store', 'marketplace'][1 + bitShiftRight(h, 32) % 8],
    countries[place],
    concat(countries[place], '-city-', toString(bitShiftRight(h, 48) % 4)),
    arrayMap(p -> concat('sku-', categories[1 + p % 12], '-', leftPad(toString(p), 5, '0')), products),
    quantities,
    prices,
    arrayMap(p -> categories[1 + p % 12], products),
    arrayMap(p -> concat('brand-', toString(p % 16)), products),
    ['consumer', 'consumer', 'student', 'business', 'enterprise'][1 + c % 5],
    countries[1 + bitShiftRight(c, 8) % 10],
    toDate32('2015-01-01') + c % 4018,
    toInt32(number % 12),
    toInt64(intDiv(number, 12)),
    at + INTERVAL 400 MILLISECOND
FROM numbers({first}, {rows})
WHERE NOT (nth > 1 AND h % 8 = 0)
