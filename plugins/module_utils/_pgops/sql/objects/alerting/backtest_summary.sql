-- object: function pgops.backtest_summary(jsonb, timestamp with time zone, timestamp with time zone)
-- requires: backtest_rule
CREATE OR REPLACE FUNCTION pgops.backtest_summary(p_rule jsonb, p_from timestamptz, p_to timestamptz)
RETURNS TABLE (series text, fired bigint, firing_seconds double precision)
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
-- How often and how long a rule, given by the columns of alert_rules, would have fired, by series: its labels in one
-- text. Those for which it would not have fired are left out.
    SELECT
        (SELECT string_agg(l.value, ', ' ORDER BY l.key <> 'node', l.key) FROM jsonb_each_text(c.labels) AS l),
        count(*) FILTER (WHERE c.began),
        sum(extract(EPOCH FROM c.until - c.changed_at)) FILTER (WHERE c.to_status IN ('firing', 'recovering'))
    FROM (
        SELECT
            b.node, b.labels, b.changed_at, b.to_status,
            b.to_status = 'firing' AND b.from_status IN ('inactive', 'pending') AS began,
            coalesce(lead(b.changed_at) OVER (PARTITION BY b.node, b.labels ORDER BY b.changed_at), p_to) AS until
        FROM pgops.backtest_rule(jsonb_populate_record(NULL::pgops.alert_rule, p_rule), p_from, p_to) AS b
    ) AS c
    GROUP BY c.node, c.labels
    HAVING count(*) FILTER (WHERE c.began) > 0
    ORDER BY 3 DESC, 1;
$$;

REVOKE ALL ON FUNCTION pgops.backtest_summary(
    jsonb, timestamp with time zone, timestamp with time zone
) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.backtest_summary(
    jsonb, timestamp with time zone, timestamp with time zone
) TO pgops, pgops_reader;
