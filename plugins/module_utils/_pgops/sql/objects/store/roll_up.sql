-- object: function pgops.roll_up(integer, timestamp with time zone)
-- requires: create_partition, sample_steps
CREATE OR REPLACE FUNCTION pgops.roll_up(p_node_id integer, p_started_at timestamptz)
RETURNS integer
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
-- Creates the rollups of a node's hour, or replaces them if rounds came late; returns how many series it has.
DECLARE
    ended_at constant timestamptz := p_started_at + interval '1 hour';
    instant constant interval := interval '1 microsecond';
    rolled integer;
BEGIN
    IF p_started_at <> date_trunc('hour', p_started_at) OR ended_at > now() THEN
        RAISE EXCEPTION 'no complete hour starts at %', p_started_at
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- First: a session that stores a round of this hour now waits for this to end, and then marks the hour anew.
    DELETE FROM pgops.rollup_due AS d WHERE d.node_id = p_node_id AND d.started_at = p_started_at;
    PERFORM pgops.create_partition('rollup', p_started_at::date);
    -- If rounds of this hour, or those before it, are gone, the rest is worth less than the rollups of all of them.
    DELETE FROM pgops.rollup AS u
    USING pgops.shape AS h, pgops.round_class AS c
    WHERE
        u.started_at = p_started_at
        AND h.shape_id = u.shape_id
        AND h.node_id = p_node_id
        AND c.keep_days = h.keep_days
        AND c.gone_before < p_started_at;

    WITH sampled AS (
        SELECT
            r.shape_id,
            p.place,
            p.series_id,
            count(*) AS weight,
            min(r.sample_values[p.place]) AS minimum,
            -- Without values that would spoil a sum.
            avg(r.sample_values[p.place]) FILTER (WHERE abs(r.sample_values[p.place]) < 1e290) AS average,
            max(r.sample_values[p.place]) AS maximum,
            (array_agg(r.sample_values[p.place] ORDER BY r.collected_at DESC))[1] AS last
        FROM pgops.shape AS h
        INNER JOIN pgops.round_class AS c ON c.keep_days = h.keep_days
        INNER JOIN pgops.round AS r ON r.shape_id = h.shape_id
        INNER JOIN pgops.shape_series AS p ON p.shape_id = h.shape_id
        WHERE
            h.node_id = p_node_id
            AND c.gone_before < p_started_at
            AND r.collected_at >= p_started_at
            AND r.collected_at < ended_at
            AND r.sample_values[p.place] IS NOT NULL
        GROUP BY r.shape_id, p.place, p.series_id
    ),

    rated AS (
        SELECT
            t.shape_id,
            t.series_id,
            sum(t.seconds) AS weight,
            min(t.increase / t.seconds) AS minimum,
            sum(t.increase) / sum(t.seconds) AS average,
            max(t.increase / t.seconds) AS maximum
        FROM (
            SELECT o.*, extract(epoch FROM o.ended_at - o.started_at)::double precision AS seconds
            FROM pgops.sample_steps(NULL, p_started_at - instant, ended_at - instant, p_node_id) AS o
        ) AS t
        WHERE t.increase < 1e290
        GROUP BY t.shape_id, t.series_id
    ),

    inserted AS (
        INSERT INTO pgops.rollup (shape_id, started_at, statistic, sample_values)
        SELECT p.shape_id, p_started_at, v.statistic, array_agg(v.amount ORDER BY p.place)
        FROM pgops.shape_series AS p
        INNER JOIN pgops.series AS s ON s.series_id = p.series_id
        INNER JOIN pgops.metric AS m ON m.metric_id = s.metric_id
        LEFT JOIN sampled AS d ON d.shape_id = p.shape_id AND d.place = p.place
        LEFT JOIN rated AS c ON c.shape_id = p.shape_id AND c.series_id = p.series_id
        CROSS JOIN LATERAL (
            VALUES
            ('minimum', CASE m.kind WHEN 'counter' THEN c.minimum ELSE d.minimum END),
            ('average', CASE m.kind WHEN 'counter' THEN c.average ELSE d.average END),
            ('maximum', CASE m.kind WHEN 'counter' THEN c.maximum ELSE d.maximum END),
            ('weight', CASE m.kind WHEN 'counter' THEN c.weight ELSE d.weight END),
            ('last', d.last)
        ) AS v (statistic, amount)
        WHERE p.shape_id IN (SELECT k.shape_id FROM sampled AS k)
        GROUP BY p.shape_id, v.statistic
    )

    SELECT count(*) INTO rolled FROM sampled AS d;
    RETURN rolled;
END
$$;

REVOKE ALL ON FUNCTION pgops.roll_up(integer, timestamp with time zone) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.roll_up(integer, timestamp with time zone) TO pgops;
