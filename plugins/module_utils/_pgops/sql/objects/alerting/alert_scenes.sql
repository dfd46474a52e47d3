-- object: view pgops.alert_scenes
CREATE OR REPLACE VIEW pgops.alert_scenes AS
SELECT
    s.alert_id,
    s.scene_id,
    c.cluster,
    c.node,
    c.is_primary,
    c.taken_at,
    p.part,
    p.seen -> 'rows' AS seen,
    (p.seen ->> 'left_out')::bigint AS left_out,
    p.seen ->> 'error' AS error
FROM pgops.alert_scene AS s
INNER JOIN pgops.scene AS c ON s.scene_id = c.scene_id
CROSS JOIN LATERAL pg_catalog.jsonb_each(c.parts) AS p (part, seen);

REVOKE ALL ON pgops.alert_scenes FROM PUBLIC;
GRANT SELECT ON pgops.alert_scenes TO pgops, pgops_reader;
