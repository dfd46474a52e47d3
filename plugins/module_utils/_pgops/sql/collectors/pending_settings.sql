-- collector: pending_settings
-- scope: instance
-- interval: 60
-- metric: setting_waits_for_restart unit=count category=availability
--   1 for each setting whose new value in the configuration files takes effect only with the next restart; at most 20
--   of them, by name. settings_pending_restart counts all.
SELECT
    s.name AS setting,
    1 AS setting_waits_for_restart
FROM pg_settings AS s
WHERE s.pending_restart
ORDER BY s.name
LIMIT 20
