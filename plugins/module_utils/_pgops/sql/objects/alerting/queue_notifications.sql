-- object: function pgops.queue_notifications()
-- requires: queue_notifications_at
CREATE OR REPLACE FUNCTION pgops.queue_notifications()
RETURNS integer
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
-- Writes the messages that are due now into the outbox; returns how many.
    SELECT pgops.queue_notifications_at(clock_timestamp());
$$;

REVOKE ALL ON FUNCTION pgops.queue_notifications() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.queue_notifications() TO pgops;
