-- collector: sequences
-- scope: database
-- interval: 1200
-- timeout: 20
-- role: primary
-- rights: all_data
-- metric: sequence_used_percent unit=% kind=gauge category=capacity direction=above warning=75 critical=90
--   Share of its range that a sequence has used, up to its limit or that of the column's type, whichever is lower;
--   the 20 worst. At 100 inserts fail: change the column to bigint in time. A sequence set with setval(..., false)
--   counts as unused until the next nextval().
-- metric: sequences_used_percent_max unit=% kind=gauge category=capacity direction=above warning=75 critical=90
--   The highest share of all sequences that were read, up to 500 for each database. For the others, see
--   sequences_deferred.
-- metric: sequences_unread category=availability direction=above warning=0
--   Sequences that were due, but locked.
-- metric: sequences_deferred category=availability
--   Sequences left for later runs. Each run reads 500: the 250 that are probably the fullest (by the rows and use of
--   their tables), and 250 of the others in turn, whose values may therefore be old.
WITH RECURSIVE filled AS (
    SELECT
        d.objid AS seqrelid,
        d.refobjid AS relid,
        d.refobjsubid::smallint AS attnum
    FROM pg_sequence AS s
    INNER JOIN pg_depend AS d ON s.seqrelid = d.objid
    WHERE
        d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass
        AND d.deptype IN ('a', 'i') AND d.refobjsubid > 0
    -- Mostly the same columns.
    UNION DISTINCT
    SELECT
        d.refobjid AS seqrelid,
        f.adrelid AS relid,
        f.adnum AS attnum
    FROM pg_sequence AS s
    INNER JOIN pg_depend AS d ON s.seqrelid = d.refobjid
    INNER JOIN pg_attrdef AS f ON d.objid = f.oid
    WHERE d.classid = 'pg_attrdef'::regclass AND d.refclassid = 'pg_class'::regclass
),

-- A domain can be one over another.
domain AS (
    SELECT
        t.oid,
        t.typbasetype AS base
    FROM pg_type AS t
    WHERE t.typtype = 'd'
    UNION ALL
    SELECT
        d.oid,
        t.typbasetype AS base
    FROM domain AS d
    INNER JOIN pg_type AS t ON d.base = t.oid
    WHERE t.typtype = 'd'
),

typed AS (
    SELECT
        f.seqrelid,
        min(
            CASE coalesce(d.base, a.atttypid)
                WHEN 'smallint'::regtype THEN 32767 WHEN 'integer'::regtype THEN 2147483647
            END
        ) AS most,
        max(c.reltuples)::float8 AS live
    FROM filled AS f
    INNER JOIN pg_attribute AS a ON f.relid = a.attrelid AND f.attnum = a.attnum
    LEFT JOIN domain AS d ON a.atttypid = d.oid
    LEFT JOIN pg_class AS c ON f.relid = c.oid AND c.relkind IN ('r', 'p')
    GROUP BY f.seqrelid
),

-- Reading a sequence takes a lock on it until the transaction ends, which would queue behind these.
held AS (
    SELECT l.relation
    FROM pg_locks AS l
    WHERE
        l.locktype = 'relation'
        AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
        AND l.database = (
            SELECT d.oid FROM pg_database AS d
            WHERE d.datname = current_database()
        )
),

candidate AS (
    SELECT
        n.nspname,
        c.relname,
        s.*,
        t.live,
        least(s.seqmax, t.most) AS most,
        greatest(s.seqmin, -1 - t.most) AS lowest
    FROM pg_sequence AS s
    INNER JOIN pg_class AS c ON s.seqrelid = c.oid AND c.relkind = 'S'
    INNER JOIN pg_namespace AS n ON c.relnamespace = n.oid
    LEFT JOIN typed AS t ON s.seqrelid = t.seqrelid
    WHERE
        c.relpersistence <> 't'
        AND NOT (s.seqcycle AND (t.most IS NULL OR s.seqmax <= t.most))
),

-- Estimated without reading it: nextval() reads the block once for as many values as are cached.
ranked AS (
    SELECT
        c.*,
        row_number() OVER (
            ORDER BY
                greatest(
                    c.live, abs(c.seqincrement::float8) * c.seqcache * pg_stat_get_blocks_fetched(c.seqrelid)
                ) / (c.most::float8 - c.lowest + 1) DESC,
                c.seqrelid ASC
        ) <= 250 AS foremost
    FROM candidate AS c
),

placed AS (
    SELECT
        r.*,
        row_number() OVER others - 1 AS place,
        count(*) OVER (PARTITION BY r.foremost) AS places
    FROM ranked AS r
    WINDOW others AS (PARTITION BY r.foremost ORDER BY r.seqrelid ASC)
),

-- Steps of the golden section reach all places, whatever the interval is: whole numbers would skip some forever if
-- both have a common factor.
turn AS (
    SELECT (x.steps - floor(x.steps))::float8 AS start
    FROM (SELECT floor(extract(EPOCH FROM now()) / 1200)::numeric * 0.61803398874989485 AS steps) AS x
),

-- Each sequence read is locked until the transaction ends, and the server's lock table is limited: 500 take up to
-- 30 ms of a new session. has_sequence_privilege() is NULL for one that was dropped meanwhile.
found AS MATERIALIZED (
    SELECT
        p.*,
        l.held AS unread,
        CASE
            WHEN l.held THEN NULL
            WHEN has_sequence_privilege(p.seqrelid, 'SELECT')
                -- In floating point: a start at the end of bigint's range has no next value in bigint.
                THEN coalesce(pg_sequence_last_value(p.seqrelid)::float8, p.seqstart::float8 - sign(p.seqincrement))
        END AS last
    FROM placed AS p
    CROSS JOIN turn AS t
    CROSS JOIN LATERAL (SELECT p.seqrelid IN (SELECT h.relation FROM held AS h) AS held) AS l
    WHERE p.foremost OR mod(p.place + p.places - floor(t.start * p.places)::bigint, p.places) < 250
),

used AS (
    SELECT
        f.nspname,
        f.relname,
        f.seqrelid,
        f.unread,
        100 * CASE
            WHEN f.seqincrement > 0 THEN f.last - f.lowest + 1
            ELSE f.most - f.last + 1
        END / (f.most::float8 - f.lowest + 1) AS percent
    FROM found AS f
),

worst AS (
    SELECT
        u.nspname,
        u.relname,
        u.percent
    FROM used AS u
    WHERE u.percent IS NOT NULL
    ORDER BY floor(u.percent) DESC, u.seqrelid ASC
    LIMIT 20
)

SELECT
    current_database() AS database,
    w.nspname AS schema,
    w.relname AS sequence,
    w.percent AS sequence_used_percent,
    NULL::float8 AS sequences_used_percent_max,
    NULL::bigint AS sequences_unread,
    NULL::bigint AS sequences_deferred
FROM worst AS w
UNION ALL
SELECT
    current_database() AS database,
    NULL AS schema,
    NULL AS sequence,
    NULL AS sequence_used_percent,
    max(u.percent) AS sequences_used_percent_max,
    count(*) FILTER (WHERE u.unread) AS sequences_unread,
    (SELECT count(*) FROM candidate) - count(*) AS sequences_deferred
FROM used AS u
