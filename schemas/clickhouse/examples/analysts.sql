-- Analysts who may read the rollups and the orders of their own countries, but nothing of the pipeline itself, and who
-- cannot take the server from it. Put your own names, and run it as an administrator in the database of the tables.
--
-- Whether users without a row policy see all rows of a table that has one is a setting of the server
-- (users_without_row_policies_can_read_rows); the policies `everything` leave it to nobody. The pipeline's user matters
-- most: it reads back ids, and an event whose row it may not see would land twice.
CREATE ROLE IF NOT EXISTS analysts SETTINGS readonly = 2, max_memory_usage = 2000000000 MIN 1 MAX 2000000000, max_execution_time = 60 MIN 1 MAX 60;

GRANT SELECT ON orders TO analysts;

GRANT SELECT ON orders_current TO analysts;

GRANT SELECT ON orders_revenue_per_minute TO analysts;

GRANT SELECT ON orders_steps TO analysts;

GRANT SELECT ON orders_skus_per_day TO analysts;

GRANT SELECT ON customer_value_per_hour TO analysts;

CREATE ROW POLICY IF NOT EXISTS dach ON orders FOR SELECT USING shipping_country IN ('DE', 'AT', 'CH') TO analysts;

CREATE ROW POLICY IF NOT EXISTS dach ON orders_revenue_per_minute FOR SELECT USING country IN ('DE', 'AT', 'CH') TO analysts;

CREATE ROW POLICY IF NOT EXISTS everything ON orders FOR SELECT USING 1 TO ALL EXCEPT analysts;

CREATE ROW POLICY IF NOT EXISTS everything ON orders_revenue_per_minute FOR SELECT USING 1 TO ALL EXCEPT analysts;

CREATE QUOTA IF NOT EXISTS analysts KEYED BY user_name FOR INTERVAL 1 MINUTE MAX queries = 120, execution_time = 60, FOR INTERVAL 1 HOUR MAX read_rows = 20000000000 TO analysts;
