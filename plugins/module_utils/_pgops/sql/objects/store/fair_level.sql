-- object: function pgops.fair_level(bigint[], bigint)
CREATE OR REPLACE FUNCTION pgops.fair_level(p_wanted bigint[], p_room bigint)
RETURNS bigint
LANGUAGE sql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
-- The most that each may have so that all together have p_room at most; NULL if there is enough. Who wants less than an
-- equal share gets it, and leaves the rest to the others (fairness.py does the same).
    SELECT greatest(o.share, 0)
    FROM (
        SELECT
            u.amount,
            u.place,
            (
                p_room - coalesce(
                    sum(u.amount) OVER (ORDER BY u.amount, u.place ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0
                )
            )::bigint / (1 + count(*) OVER () - row_number() OVER (ORDER BY u.amount, u.place)) AS share
        FROM unnest(p_wanted) WITH ORDINALITY AS u (amount, place)
    ) AS o
    WHERE o.amount > o.share
    ORDER BY o.amount, o.place
    LIMIT 1;
$$;

REVOKE ALL ON FUNCTION pgops.fair_level(bigint[], bigint) FROM PUBLIC;
