-- collector: sequences
-- scope: database
-- interval: 600
-- timeout: 20
-- role: primary
-- rights: all_data
-- metric: sequence_used_percent unit=% kind=gauge category=capacity direction=above warning=75 critical=90
--   How much of its range a sequence has used, up to its own limit or that of the type of the column it fills,
--   whichever comes first; of the 20 worst. At 100 inserts fail: change the column to bigint in time. One whose
--   value was set with setval(..., false) counts as unused until its first nextval().
-- metric: sequences_used_percent_max unit=% kind=gauge category=capacity direction=above warning=75 critical=90
--   The most that any sequence of the database has used.
-- metric: sequences_unread category=availability direction=above warning=0
--   Sequences that were not read: locked, or beyond the 500 of one run (those with the smallest ranges go first).
WITH filled AS (
    SELECT
        d.objid AS seqrelid,
        d.refobjid AS relid,
        d.refobjsubid::integer AS attnum
    FROM pg_sequence AS s
    INNER JOIN pg_depend AS d ON s.seqrelid = d.objid
    WHERE
        d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass
        AND d.deptype IN ('a', 'i') AND d.refobjsubid > 0
    UNION ALL
    SELECT
        d.refobjid AS seqrelid,
        f.adrelid AS relid,
        f.adnum::integer AS attnum
    FROM pg_sequence AS s
    INNER JOIN pg_depend AS d ON s.seqrelid = d.refobjid
    INNER JOIN pg_attrdef AS f ON d.objid = f.oid
    WHERE d.classid = 'pg_attrdef'::regclass AND d.refclassid = 'pg_class'::regclass
),

typed AS (
    SELECT
        f.seqrelid,
        min(
            CASE coalesce(nullif(t.typbasetype, 0), t.oid)
                WHEN 'smallint'::regtype THEN 32767 WHEN 'integer'::regtype THEN 2147483647
            END
        ) AS most
    FROM filled AS f
    INNER JOIN pg_attribute AS a ON f.relid = a.attrelid AND f.attnum = a.attnum
    INNER JOIN pg_type AS t ON a.atttypid = t.oid
    GROUP BY f.seqrelid
),

-- To read a sequence takes a lock on it until the transaction ends, which would queue behind these.
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
        least(s.seqmax, t.most) AS most,
        greatest(s.seqmin, -1 - t.most) AS lowest,
        row_number() OVER (ORDER BY least(s.seqmax, t.most) ASC, s.seqrelid ASC) AS place
    FROM pg_sequence AS s
    INNER JOIN pg_class AS c ON s.seqrelid = c.oid
    INNER JOIN pg_namespace AS n ON c.relnamespace = n.oid
    LEFT JOIN typed AS t ON s.seqrelid = t.seqrelid
    WHERE
        c.relpersistence <> 't'
        AND NOT (s.seqcycle AND (t.most IS NULL OR s.seqmax <= t.most))
),

-- Each is a lock, and the server's table of locks has an end. has_sequence_privilege() is NULL for one that was
-- dropped meanwhile.
found AS MATERIALIZED (
    SELECT
        c.*,
        c.place > 500 OR EXISTS (
            SELECT 1 FROM held AS h
            WHERE h.relation = c.seqrelid
        ) AS unread,
        CASE
            WHEN c.place > 500 OR EXISTS (
                SELECT 1 FROM held AS h
                WHERE h.relation = c.seqrelid
            ) THEN NULL
            WHEN has_sequence_privilege(c.seqrelid, 'SELECT')
                -- In floating point: a start at the end of bigint's range has no neighbour in bigint.
                THEN coalesce(pg_sequence_last_value(c.seqrelid)::float8, c.seqstart::float8 - sign(c.seqincrement))
        END AS last
    FROM candidate AS c
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
    NULL::bigint AS sequences_unread
FROM worst AS w
UNION ALL
SELECT
    current_database() AS database,
    NULL AS schema,
    NULL AS sequence,
    NULL AS sequence_used_percent,
    max(u.percent) AS sequences_used_percent_max,
    count(*) FILTER (WHERE u.unread) AS sequences_unread
FROM used AS u
