-- object: function pgops.counter_shares(timestamp with time zone)
-- requires: sample_steps, series_labels
CREATE OR REPLACE FUNCTION pgops.counter_shares(p_at timestamptz)
RETURNS TABLE (node_id integer, metric_name text, labels jsonb, derived double precision)
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
-- Shares of what two counters have counted lately, in percent. No value where both together have counted too little to
-- tell: an idle database is neither well nor ill.
    WITH wanted (share, counter, is_part, window_length, at_least) AS (
        VALUES
        ('cache_hit_recent_percent', 'blocks_hit', TRUE, interval '5 minutes', 10000),
        ('cache_hit_recent_percent', 'blocks_read', FALSE, interval '5 minutes', 10000),
        ('rollback_recent_percent', 'transactions_rolled_back', TRUE, interval '5 minutes', 100),
        ('rollback_recent_percent', 'transactions_committed', FALSE, interval '5 minutes', 100),
        ('checkpoints_requested_percent', 'checkpoints_requested', TRUE, interval '30 minutes', 3),
        ('checkpoints_requested_percent', 'checkpoints_timed', FALSE, interval '30 minutes', 3)
    ),

    grown AS MATERIALIZED (
        SELECT
            w.share, w.counter, w.is_part, w.at_least, s.node_id, pgops.series_labels(s, NULL) AS labels,
            sum(t.increase) AS increase
        FROM wanted AS w
        CROSS JOIN LATERAL pgops.sample_steps(w.counter, p_at - w.window_length, p_at) AS t
        INNER JOIN pgops.series AS s ON s.series_id = t.series_id
        GROUP BY w.share, w.counter, w.is_part, w.at_least, s.series_id
    )

    SELECT g.node_id, g.share, g.labels, 100 * sum(g.increase) FILTER (WHERE g.is_part) / sum(g.increase)
    FROM grown AS g
    GROUP BY g.node_id, g.share, g.labels, g.at_least
    HAVING count(*) = 2 AND sum(g.increase) >= g.at_least;
$$;

REVOKE ALL ON FUNCTION pgops.counter_shares(timestamp with time zone) FROM PUBLIC;
