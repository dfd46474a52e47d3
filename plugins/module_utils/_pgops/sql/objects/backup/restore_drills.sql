-- object: view pgops.restore_drills
CREATE OR REPLACE VIEW pgops.restore_drills AS
SELECT
    d.drill_id,
    d.node,
    d.host,
    d.generation,
    d.backup_id,
    d.backup_name,
    d.status,
    d.reason,
    d.error_message,
    d.started_at,
    d.completed_at,
    d.rto_seconds,
    (d.phases ->> 'plan')::double precision AS select_seconds,
    (d.phases ->> 'copy')::double precision AS copy_seconds,
    (d.phases ->> 'combine')::double precision AS combine_seconds,
    (d.phases ->> 'verify')::double precision + (d.phases ->> 'sync')::double precision AS verify_seconds,
    (d.phases ->> 'recover')::double precision AS replay_seconds,
    (d.phases ->> 'configure')::double precision + (d.phases ->> 'query')::double precision AS start_seconds,
    (d.phases ->> 'checks')::double precision AS checks_seconds,
    d.rpo_seconds,
    d.rpo_bytes,
    d.checks,
    d.place,
    d.timeline,
    d.reached_lsn,
    d.reached_time
FROM pgops.drill AS d;

REVOKE ALL ON pgops.restore_drills FROM PUBLIC;
GRANT SELECT ON pgops.restore_drills TO pgops, pgops_reader, pgops_operator;
