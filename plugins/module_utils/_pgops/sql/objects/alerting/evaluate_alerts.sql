-- object: function pgops.evaluate_alerts()
-- requires: derive_metrics, evaluate_alerts_at
CREATE OR REPLACE FUNCTION pgops.evaluate_alerts()
RETURNS integer
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
-- Evaluates every enabled rule once, now; returns how many alerts began to fire. The job `alerts` does the same each
-- minute, and for each minute in which it did not run.
DECLARE
    moment constant timestamptz := clock_timestamp();
BEGIN
    PERFORM pgops.derive_metrics(moment);
    RETURN pgops.evaluate_alerts_at(moment);
END
$$;

REVOKE ALL ON FUNCTION pgops.evaluate_alerts() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.evaluate_alerts() TO pgops;
