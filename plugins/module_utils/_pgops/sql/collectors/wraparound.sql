-- collector: wraparound
-- scope: instance
-- interval: 60
-- metric: xid_age unit=count kind=gauge category=availability
--   Transactions since the oldest unfrozen one of a database, template0 included.
-- metric: multixact_age unit=count kind=gauge category=availability
--   Multixacts since the oldest one of a database that is still needed.
-- metric: xid_wraparound_percent unit=% kind=gauge category=availability direction=above warning=50 critical=75
--   xid_age as a share of 2^31, at which the server refuses writes: vacuum the oldest tables of that database.
-- metric: multixact_wraparound_percent unit=% kind=gauge category=availability direction=above warning=50 critical=75
--   multixact_age as a share of 2^31.
-- metric: xid_freeze_lag_percent unit=% kind=gauge category=availability direction=above warning=110 critical=125
--   xid_age as a share of autovacuum_freeze_max_age. Well above 100, autovacuum does not keep up or is blocked.
-- metric: multixact_freeze_lag_percent unit=% kind=gauge category=availability
--   multixact_age as a share of autovacuum_multixact_freeze_max_age.
SELECT
    d.datname AS database,
    age(d.datfrozenxid) AS xid_age,
    mxid_age(d.datminmxid) AS multixact_age,
    100.0 * age(d.datfrozenxid) / 2147483648 AS xid_wraparound_percent,
    100.0 * mxid_age(d.datminmxid) / 2147483648 AS multixact_wraparound_percent,
    100.0 * age(d.datfrozenxid) / current_setting('autovacuum_freeze_max_age')::bigint AS xid_freeze_lag_percent,
    100.0 * mxid_age(d.datminmxid)
    / current_setting('autovacuum_multixact_freeze_max_age')::bigint AS multixact_freeze_lag_percent
FROM pg_database AS d
