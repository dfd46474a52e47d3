-- collector: drills
-- scope: instance
-- interval: 60
-- role: primary
-- metric: recovery_proof_age_seconds unit=s category=availability
--   Time since a recovery drill last passed. No value where no drills are declared (pgops_drill), or none has passed.
-- metric: recovery_proof_late_ratio category=availability
--   The same in intervals (pgops_drill_interval_hours); where none has passed, since drills were declared. No value
--   where they are not.
-- metric: recovery_proven_seconds unit=s category=availability
--   Time that the last drill that passed took to restore the newest backup, to replay all WAL and to answer the first
--   query (RTO).
-- metric: recovery_proven_loss_seconds unit=s category=availability
--   What would have been lost at most, by that drill, if the server had ended when it began (RPO).
-- metric: drill_failed unit=count category=availability direction=above warning=0 critical=0
--   1 if the last drill that could be made failed: the newest backup cannot be restored, or is not what it should be.
-- metric: drills_not_run unit=count category=availability
--   Drills since then that could not be made, and prove nothing.
WITH proof AS (
    SELECT
        p.*,
        (
            SELECT (r.status = 'failed')::integer FROM pgops.restore_drills AS r
            WHERE r.drill_id = p.last_drill_id
        ) AS failed
    FROM pgops.recovery_proof AS p
    WHERE p.interval_hours > 0
)

SELECT
    extract(EPOCH FROM clock_timestamp() - p.proven_at) AS recovery_proof_age_seconds,
    extract(EPOCH FROM clock_timestamp() - coalesce(p.proven_at, p.declared_at))
    / (p.interval_hours * 3600) AS recovery_proof_late_ratio,
    p.rto_seconds AS recovery_proven_seconds,
    p.rpo_seconds AS recovery_proven_loss_seconds,
    p.failed AS drill_failed,
    p.not_run AS drills_not_run
FROM proof AS p
