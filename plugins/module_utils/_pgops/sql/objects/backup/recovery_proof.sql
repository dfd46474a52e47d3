-- object: view pgops.recovery_proof
-- requires: server_generation, restore_drills
CREATE OR REPLACE VIEW pgops.recovery_proof AS
-- What is proven of the recovery of the generation that the server archives into.
SELECT
    g.name AS generation,
    p.drill_id,
    p.completed_at AS proven_at,
    p.rto_seconds,
    p.rpo_seconds,
    f.drill_id AS last_drill_id,
    (
        SELECT count(*) FROM pgops.restore_drills AS n
        WHERE
            n.status = 'not_run' AND coalesce(n.generation, g.name) = g.name
            AND n.completed_at > coalesce(f.completed_at, '-infinity')
    ) AS not_run,
    CASE f.status WHEN 'passed' THEN 'proven' WHEN 'failed' THEN 'failed' ELSE 'unproven' END AS recovery,
    -- 0 where no drills are declared.
    coalesce((
        SELECT s.value::double precision FROM pgops.setting AS s
        WHERE s.name = 'drill_interval_hours'
    ), 0) AS interval_hours,
    (
        SELECT s.valid_since FROM pgops.setting AS s
        WHERE s.name = 'drill_interval_hours'
    ) AS declared_at
FROM (SELECT pgops.server_generation() AS name) AS g
LEFT JOIN LATERAL (
    SELECT r.* FROM pgops.restore_drills AS r
    WHERE r.generation = g.name AND r.status = 'passed'
    ORDER BY r.completed_at DESC
    LIMIT 1
) AS p ON TRUE
LEFT JOIN LATERAL (
    SELECT r.* FROM pgops.restore_drills AS r
    WHERE r.generation = g.name AND r.status IN ('passed', 'failed')
    ORDER BY r.completed_at DESC
    LIMIT 1
) AS f ON TRUE;

REVOKE ALL ON pgops.recovery_proof FROM PUBLIC;
GRANT SELECT ON pgops.recovery_proof TO pgops, pgops_reader;
