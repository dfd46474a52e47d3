-- object: function pgops.sample_steps(text, timestamp with time zone, timestamp with time zone, integer)
-- requires: began_again, statistics_lost
CREATE OR REPLACE FUNCTION pgops.sample_steps(
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
-- after p_to, on one node or on all. What is counted is the object, whatever its name was meanwhile: the growth belongs
-- to the series of the later sample. Samples more than two hours apart make no step where p_from lies between them.
-- If it was reset in between, that is what it has counted since. It was reset if it fell; if the server has restarted
-- and lost all its statistics (the first two words of the origin, and counters of databases that fell: a clean restart
-- and a reset of the shared statistics change the words as well); and if its reset time (the third) changed. The
-- latter is no proof for a database, whose time also changes if the counters of one table are reset: there another
-- counter of the same row, or of the whole database, must have fallen, too. If the statistics are other ones than
-- before, and yet older than the previous sample, the server is a copy of another: the growth is unknown.
    WITH counter AS (
        -- Each series with the first one of those that count the same: an object may have had several names. In an
        -- identity without a slash, which is a database's, the other names tell objects apart.
        SELECT
            s.series_id,
            s.table_name <> '' AND s.index_name = '' AS of_table,
            CASE
                WHEN s.identity = '' THEN s.series_id
                ELSE min(s.series_id) OVER (
                    PARTITION BY
                        s.metric_id,
                        s.node_id,
                        s.identity,
                        s.other,
                        CASE
                            WHEN s.identity !~ '/' THEN jsonb_build_array(s.schema_name, s.table_name, s.index_name)
                        END
                )
            END AS counter_id
        FROM pgops.metric AS m
        INNER JOIN pgops.series AS s ON s.metric_id = m.metric_id
        WHERE
            m.kind = 'counter'
            AND (p_metric IS NULL OR m.metric_name = p_metric)
            AND (p_node_id IS NULL OR s.node_id = p_node_id)
    ),

    sampled AS (
        -- Two shapes may have the same sample, if the retention changed before it was delivered a second time.
        SELECT DISTINCT ON (s.counter_id, r.collected_at)
            s.counter_id,
            s.series_id,
            s.of_table,
            r.shape_id,
            r.collected_at,
            r.sample_values[p.place] AS sample,
            e.origin
        FROM counter AS s
        INNER JOIN pgops.shape_series AS p ON p.series_id = s.series_id
        INNER JOIN pgops.round AS r ON r.shape_id = p.shape_id
        INNER JOIN pgops.epoch AS e ON e.epoch_id = r.epoch_id
        WHERE
            r.collected_at > p_from - interval '2 hours'
            AND r.collected_at <= p_to
            AND r.sample_values[p.place] IS NOT NULL
        ORDER BY s.counter_id ASC, r.collected_at ASC, r.shape_id DESC
    ),

    step AS (
        SELECT
            v.series_id,
            v.of_table,
            v.shape_id,
            v.collected_at,
            v.sample,
            v.origin,
            lag(v.collected_at) OVER steps AS collected_before,
            lag(v.sample) OVER steps AS sample_before,
            lag(v.origin) OVER steps AS origin_before
        FROM sampled AS v
        WINDOW steps AS (PARTITION BY v.counter_id ORDER BY v.collected_at)
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
                    AND pgops.statistics_lost(t.series_id, t.collected_before, t.collected_at)
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
        -- The sum of a table's index counters falls if an index is dropped.
        AND NOT (t.of_table AND t.sample < t.sample_before AND t.origin = t.origin_before)
        AND t.collected_at > p_from
        AND (
            split_part(t.origin, ' ', 1) = split_part(t.origin_before, ' ', 1)
            OR split_part(t.origin, ' ', 2) = split_part(t.origin_before, ' ', 2)
            OR split_part(t.origin, ' ', 2) COLLATE "C"
            > to_char(t.collected_before AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US')
        );
$$;

REVOKE ALL ON FUNCTION pgops.sample_steps(
    text, timestamp with time zone, timestamp with time zone, integer
) FROM PUBLIC;
