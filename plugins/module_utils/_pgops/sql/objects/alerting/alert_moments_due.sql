-- object: function pgops.alert_moments_due()
CREATE OR REPLACE FUNCTION pgops.alert_moments_due()
RETURNS TABLE (due_at timestamptz, left_out interval)
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
-- The moments to evaluate rules at, in their order: each minute since the last evaluation, and now. What is more than a
-- day ago is not evaluated any more; left_out is how long that is. Of a last evaluation in the future, by a clock that
-- was ahead, only now counts. None for two minutes after a start of a server that was down for longer: what its standbys
-- have measured meanwhile arrives only now, and no moment is evaluated twice.
    WITH last AS (
        SELECT
            coalesce((SELECT e.evaluated_at FROM pgops.alert_evaluation AS e), clock_timestamp()) AS evaluated_at,
            clock_timestamp() AS now_at
    ),

    begun AS (
        SELECT
            greatest(l.evaluated_at, l.now_at - interval '1 day') AS since, l.now_at,
            greatest(l.now_at - interval '1 day' - l.evaluated_at, '0') AS left_out
        FROM last AS l
        WHERE NOT (
            l.now_at - l.evaluated_at > interval '3 minutes'
            AND pg_postmaster_start_time() > l.now_at - interval '2 minutes'
            AND EXISTS (
                SELECT FROM pgops.node AS n
                WHERE NOT n.is_primary AND n.last_seen_at > l.evaluated_at - interval '1 hour'
            )
        )
    )

    SELECT m.at, b.left_out
    FROM begun AS b
    CROSS JOIN generate_series(
        b.since + interval '1 minute', b.now_at - interval '30 seconds', interval '1 minute'
    ) AS m (at)
    UNION ALL
    SELECT b.now_at, b.left_out FROM begun AS b
    ORDER BY 1;
$$;

REVOKE ALL ON FUNCTION pgops.alert_moments_due() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.alert_moments_due() TO pgops;
