-- object: function pgops.counter_steps(text, timestamp with time zone, timestamp with time zone, integer)
-- requires: began_again, hours_gone
CREATE OR REPLACE FUNCTION pgops.counter_steps(
    p_metric text, p_from timestamptz, p_to timestamptz, p_node_id integer DEFAULT NULL
)
RETURNS TABLE (
    series_id integer,
    shape_id integer,
    started_at timestamptz,
    ended_at timestamptz,
    increase double precision
)
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
-- By how much a counter (NULL: every one) grew from each sample to the next, of the steps that end after p_from and not
-- after p_to, on one node or on all. Where the samples are gone, an hour is a step, as long as what was measured in it.
-- Where it began again in between, that is what it has counted since. It did if it fell; if the server has started
-- again and lost all its statistics (the first two words of the origin); and if it counts since another time (the
-- third). The latter says little about a database: its time also changes where one table's counters are reset. There
-- something else of the same row, or of the whole database, must have fallen, too. A server whose statistics are not
-- its own of before, and yet older than the sample before, was copied from another: how much it grew is not known.
    WITH sampled AS (
        SELECT
            s.series_id,
            r.shape_id,
            (c.gone_before + interval '1 hour') AT TIME ZONE 'UTC' AS known_since,
            r.collected_at,
            r.sample_values[p.place] AS sample,
            e.origin
        FROM pgops.metric AS m
        INNER JOIN pgops.series AS s ON s.metric_id = m.metric_id
        INNER JOIN pgops.shape_series AS p ON p.series_id = s.series_id
        INNER JOIN pgops.shape AS h ON h.shape_id = p.shape_id
        INNER JOIN pgops.round_class AS c ON c.keep_days = h.keep_days
        INNER JOIN pgops.round AS r ON r.shape_id = p.shape_id
        INNER JOIN pgops.epoch AS e ON e.epoch_id = r.epoch_id
        WHERE
            m.kind = 'counter'
            AND (p_metric IS NULL OR m.metric_name = p_metric)
            AND (p_node_id IS NULL OR s.node_id = p_node_id)
            AND r.collected_at > p_from - interval '2 hours'
            AND r.collected_at <= p_to
            AND r.sample_values[p.place] IS NOT NULL
    ),

    step AS (
        SELECT
            v.series_id,
            v.shape_id,
            v.known_since,
            v.collected_at,
            v.sample,
            v.origin,
            lag(v.collected_at) OVER steps AS collected_before,
            lag(v.sample) OVER steps AS sample_before,
            lag(v.origin) OVER steps AS origin_before
        FROM sampled AS v
        WINDOW steps AS (PARTITION BY v.series_id ORDER BY v.collected_at)
    )

    SELECT
        t.series_id,
        t.shape_id,
        t.collected_before,
        t.collected_at,
        CASE
            WHEN
                t.sample < t.sample_before
                OR (
                    split_part(t.origin, ' ', 1) <> split_part(t.origin_before, ' ', 1)
                    AND split_part(t.origin, ' ', 2) <> split_part(t.origin_before, ' ', 2)
                )
                OR (
                    split_part(t.origin, ' ', 3) <> split_part(t.origin_before, ' ', 3)
                    AND pgops.began_again(t.series_id, t.collected_before, t.collected_at)
                )
                THEN t.sample
            ELSE t.sample - t.sample_before
        END
    FROM step AS t
    WHERE
        t.sample_before IS NOT NULL
        AND t.collected_at > p_from
        AND t.collected_at >= t.known_since
        AND (
            split_part(t.origin, ' ', 1) = split_part(t.origin_before, ' ', 1)
            OR split_part(t.origin, ' ', 2) = split_part(t.origin_before, ' ', 2)
            OR split_part(t.origin, ' ', 2) COLLATE "C"
            > to_char(t.collected_before AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US')
        )
    UNION ALL
    SELECT
        o.series_id,
        o.shape_id,
        o.ended_at - make_interval(secs => o.weight),
        o.ended_at,
        o.average * o.weight
    FROM pgops.hours_gone(p_metric, p_from, p_to) AS o
    WHERE o.kind = 'counter' AND o.weight > 0 AND (p_node_id IS NULL OR o.node_id = p_node_id);
$$;

REVOKE ALL ON FUNCTION pgops.counter_steps(
    text, timestamp with time zone, timestamp with time zone, integer
) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.counter_steps(
    text, timestamp with time zone, timestamp with time zone, integer
) TO pgops, pgops_reader;
