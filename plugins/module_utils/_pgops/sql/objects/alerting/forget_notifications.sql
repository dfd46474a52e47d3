-- object: function pgops.forget_notifications()
CREATE OR REPLACE FUNCTION pgops.forget_notifications()
RETURNS integer
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
-- Forgets messages that were sent or given up 31 days ago with their attempts, or are not among the newest 100,000, and
-- silences that ended as long ago. Returns how many messages. What channels were told of an alert stays with this.
DECLARE
    forgotten integer;
BEGIN
    DELETE FROM pgops.notification AS n
    WHERE n.ended_at < greatest(
        now() - interval '31 days',
        (
            SELECT o.ended_at FROM pgops.notification AS o
            WHERE o.ended_at IS NOT NULL ORDER BY o.ended_at DESC OFFSET 100000 LIMIT 1
        )
    );
    GET DIAGNOSTICS forgotten = ROW_COUNT;
    DELETE FROM pgops.silence AS s WHERE s.ends_at < now() - interval '31 days' AND s.source = 'user';
    DELETE FROM pgops.notification_group AS g WHERE g.queued_at < now() - interval '32 days';
    RETURN forgotten;
END
$$;

REVOKE ALL ON FUNCTION pgops.forget_notifications() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.forget_notifications() TO pgops;
