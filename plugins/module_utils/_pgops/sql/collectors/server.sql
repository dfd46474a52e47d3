-- collector: server
-- scope: instance
-- interval: 60
-- metric: server_in_recovery unit=count category=availability
--   1 on a standby, or while a server recovers: a change is a failover, or a promotion.
-- metric: server_uptime_seconds unit=s category=availability
--   Time since the server was started; that all sessions were restarted after a crash of one is no start.
-- metric: settings_pending_restart unit=count category=availability direction=above warning=0
--   Settings whose new value in the configuration files takes effect with the next restart only.
SELECT
    pg_is_in_recovery()::integer AS server_in_recovery,
    extract(EPOCH FROM clock_timestamp() - pg_postmaster_start_time()) AS server_uptime_seconds,
    count(*) FILTER (WHERE s.pending_restart) AS settings_pending_restart
FROM pg_settings AS s
