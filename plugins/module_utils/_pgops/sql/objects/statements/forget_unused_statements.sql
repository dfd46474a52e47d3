-- object: function pgops.forget_unused_statements()
-- requires: partitions
CREATE OR REPLACE FUNCTION pgops.forget_unused_statements()
RETURNS integer
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
-- Deletes intervals, statements and texts that no usage within the retention can refer to, statements also if their
-- usage was dropped early; returns how many statements.
DECLARE
    forgotten integer;
    keep_from date := current_date - 2
    - (SELECT s.value::integer FROM pgops.setting AS s WHERE s.name = 'retention_days');
BEGIN
    DELETE FROM pgops.query_interval AS i WHERE i.ended_at < keep_from;
    DELETE FROM pgops.query_text AS t WHERE t.last_used_on < keep_from;
    DELETE FROM pgops.query_plan AS p WHERE p.tried_at < keep_from;
    DELETE FROM pgops.statement AS k
    WHERE k.last_used_on < greatest(
        keep_from, (SELECT min(p.first_day) - 1 FROM pgops.partitions AS p WHERE p.kind = 'query_usage')
    );
    GET DIAGNOSTICS forgotten = ROW_COUNT;
    RETURN forgotten;
END
$$;

REVOKE ALL ON FUNCTION pgops.forget_unused_statements() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.forget_unused_statements() TO pgops;
