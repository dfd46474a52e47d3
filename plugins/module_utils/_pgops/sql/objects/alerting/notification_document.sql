-- object: function pgops.notification_document(pgops.notification)
-- requires: alert_document
CREATE OR REPLACE FUNCTION pgops.notification_document(p_notification pgops.notification)
RETURNS jsonb
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
-- A message as senders read it: its rule's template, how many alerts there are of each event, and at most 20 of these,
-- the new ones first.
    WITH said AS MATERIALIZED (
        SELECT
            a AS alert, m.event,
            row_number() OVER (
                ORDER BY
                    array_position(ARRAY['firing', 'passed', 'resolved', 'repeated'], m.event), a.fired_at, a.alert_id
            ) AS place
        FROM pgops.notification_alert AS m
        INNER JOIN pgops.alert AS a ON a.alert_id = m.alert_id
        WHERE m.notification_id = p_notification.notification_id
    )

    SELECT jsonb_build_object(
        'notification_id', p_notification.notification_id,
        'cluster', p_notification.cluster,
        'template', (
            SELECT r.notification_template FROM pgops.alert_rule AS r WHERE r.rule_id = p_notification.rule_id
        ),
        'events', (
            SELECT coalesce(jsonb_object_agg(e.event, e.alerts), '{}')
            FROM (
                SELECT
                    s.event, CASE s.event WHEN 'repeated' THEN p_notification.still_firing ELSE count(*) END AS alerts
                FROM said AS s
                GROUP BY s.event
            ) AS e
        ),
        'alerts', (
            SELECT coalesce(jsonb_agg(pgops.alert_document(s.alert, s.event) ORDER BY s.place), '[]')
            FROM said AS s WHERE s.place <= 20
        )
    );
$$;

REVOKE ALL ON FUNCTION pgops.notification_document(pgops.notification) FROM PUBLIC;
