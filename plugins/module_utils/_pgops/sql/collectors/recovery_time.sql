-- collector: recovery_time
-- scope: instance
-- interval: 60
-- role: primary
-- metric: recovery_time_seconds unit=s category=availability
--   Predicted time of a restore to the newest archived WAL, from the newest good backup (RTO), as of the last run of
--   the job catalogue. No value where the cluster cannot be recovered to it, or nothing is known. The view
--   recovery_status has its parts, and what each is known by.
-- metric: recovery_time_guessed_seconds unit=s category=availability
--   The part of it that no restore has measured, on any host. 0 if all of it has been measured.
-- metric: recovery_part_seconds unit=s category=availability
--   The same by part: select, copy or combine, verify, replay, start.
WITH own AS (
    SELECT
        s.recovery_seconds,
        s.recovery_parts
    FROM pgops.recovery_status AS s
    WHERE s.generation = pgops.server_generation() AND s.backed_up AND s.recovery_seconds IS NOT NULL
),

parts AS (
    SELECT
        e.part ->> 'part' AS part,
        (e.part ->> 'seconds')::double precision AS seconds,
        e.part ->> 'basis' AS basis
    FROM own AS o
    CROSS JOIN LATERAL jsonb_array_elements(o.recovery_parts) AS e (part)
)

SELECT
    NULL AS part,
    o.recovery_seconds AS recovery_time_seconds,
    (
        SELECT coalesce(sum(p.seconds), 0) FROM parts AS p
        WHERE p.basis NOT IN ('here', 'elsewhere')
    ) AS recovery_time_guessed_seconds,
    NULL::double precision AS recovery_part_seconds
FROM own AS o
UNION ALL
SELECT
    p.part,
    NULL AS recovery_time_seconds,
    NULL AS recovery_time_guessed_seconds,
    p.seconds AS recovery_part_seconds
FROM parts AS p
