-- object: function pgops.forget_events()
CREATE OR REPLACE FUNCTION pgops.forget_events()
RETURNS integer
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
-- Deletes the events that are older than alerts are kept for, and all but the newest 100,000; returns how many.
DECLARE
    forgotten integer;
    kept constant interval := make_interval(days => coalesce(
        (SELECT s.value::integer FROM pgops.setting AS s WHERE s.name = 'alert_retention_days'), 400
    ));
BEGIN
    DELETE FROM pgops.event AS e
    WHERE e.occurred_at < greatest(
        -- What is younger than a day would be recorded again.
        least(now() - kept, now() - interval '2 days'),
        (SELECT o.occurred_at FROM pgops.event AS o ORDER BY o.occurred_at DESC OFFSET 100000 LIMIT 1)
    );
    GET DIAGNOSTICS forgotten = ROW_COUNT;
    RETURN forgotten;
END
$$;

REVOKE ALL ON FUNCTION pgops.forget_events() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.forget_events() TO pgops;
