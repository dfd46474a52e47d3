-- collector: prepared_transactions
-- scope: instance
-- interval: 60
-- metric: prepared_transactions unit=count kind=gauge category=availability
--   Prepared transactions (two-phase commit) that are not finished, by database.
-- metric: oldest_prepared_transaction_seconds unit=s category=availability direction=above warning=300 critical=1800
--   Age of the oldest of them, 0 if there is none. It holds its locks and prevents cleanup by VACUUM, across restarts
--   too.
SELECT
    d.datname AS database,
    count(p.gid) AS prepared_transactions,
    coalesce(extract(EPOCH FROM max(clock_timestamp() - p.prepared)), 0) AS oldest_prepared_transaction_seconds
FROM pg_database AS d
LEFT JOIN pg_prepared_xacts AS p ON d.datname = p.database
WHERE d.datallowconn OR NOT d.datistemplate
GROUP BY d.datname
