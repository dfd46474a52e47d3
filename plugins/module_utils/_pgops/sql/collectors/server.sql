-- collector: server
-- scope: instance
-- interval: 60
-- metric: server_in_recovery unit=count category=availability
--   1 on a standby, or while a server recovers. A change means a failover or a promotion.
-- metric: server_uptime_seconds unit=s category=availability
--   Time since the start of the server. A crash recovery that only restarts the sessions does not count as a start.
-- metric: settings_pending_restart unit=count category=availability direction=above warning=0
--   Settings whose new value in the configuration files takes effect only with the next restart.
SELECT
    pg_is_in_recovery()::integer AS server_in_recovery,
    extract(EPOCH FROM clock_timestamp() - pg_postmaster_start_time()) AS server_uptime_seconds,
    count(*) FILTER (WHERE s.pending_restart) AS settings_pending_restart
FROM pg_settings AS s
