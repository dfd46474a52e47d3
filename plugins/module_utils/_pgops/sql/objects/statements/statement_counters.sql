-- object: function pgops.statement_counters()
-- requires: statements_extension
CREATE OR REPLACE FUNCTION pgops.statement_counters()
RETURNS TABLE (
    dbid oid, userid oid, queryid bigint, toplevel boolean,
    calls bigint, exec_ms double precision, plan_ms double precision, max_exec_ms double precision,
    row_count bigint, shared_blks_hit bigint, shared_blks_read bigint, shared_blks_dirtied bigint,
    shared_blks_written bigint, local_blks_read bigint, local_blks_written bigint, temp_blks_read bigint,
    temp_blks_written bigint, read_ms double precision, write_ms double precision,
    wal_bytes bigint, wal_records bigint, wal_fpi bigint, stats_since timestamptz
)
LANGUAGE plpgsql
SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
-- Rows of all statements, twice: without a temporary file for as many as a server usually keeps.
SET work_mem = '32MB'
AS $$
-- pg_stat_statements without its texts, in one form for all versions of the extension: columns that a version does
-- not have are NULL. Block times cover data files and temporary tables, but not temporary files.
DECLARE
    source record;
    select_list text;
BEGIN
    SELECT e.* INTO source FROM pgops.statements_extension() AS e;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the database % has no extension pg_stat_statements', current_database()
            USING ERRCODE = 'undefined_object',
            HINT = 'Set pgops_statements to true and run site.yml (docs/settings.md).';
    END IF;
    select_list := (
        SELECT string_agg(format('(%s)::%s', coalesce(found.expression, w.otherwise), w.type), ', ' ORDER BY w.place)
        FROM (
            VALUES
            (1, '{dbid}', 'oid', 'NULL'),
            (2, '{userid}', 'oid', 'NULL'),
            (3, '{queryid}', 'bigint', 'NULL'),
            (4, '{toplevel}', 'boolean', 'true'),
            (5, '{calls}', 'bigint', 'NULL'),
            (6, '{total_exec_time,total_time}', 'double precision', 'NULL'),
            (7, '{total_plan_time}', 'double precision', 'NULL'),
            (8, '{max_exec_time,max_time}', 'double precision', 'NULL'),
            (9, '{rows}', 'bigint', 'NULL'),
            (10, '{shared_blks_hit}', 'bigint', 'NULL'),
            (11, '{shared_blks_read}', 'bigint', 'NULL'),
            (12, '{shared_blks_dirtied}', 'bigint', 'NULL'),
            (13, '{shared_blks_written}', 'bigint', 'NULL'),
            (14, '{local_blks_read}', 'bigint', 'NULL'),
            (15, '{local_blks_written}', 'bigint', 'NULL'),
            (16, '{temp_blks_read}', 'bigint', 'NULL'),
            (17, '{temp_blks_written}', 'bigint', 'NULL'),
            (18, '{blk_read_time,shared_blk_read_time,local_blk_read_time}', 'double precision', 'NULL'),
            (19, '{blk_write_time,shared_blk_write_time,local_blk_write_time}', 'double precision', 'NULL'),
            (20, '{wal_bytes}', 'bigint', 'NULL'),
            (21, '{wal_records}', 'bigint', 'NULL'),
            (22, '{wal_fpi}', 'bigint', 'NULL'),
            (23, '{stats_since}', 'timestamptz', 'NULL')
        ) AS w (place, names, type, otherwise)
        CROSS JOIN LATERAL (
            SELECT string_agg(format('s.%I', c.name), ' + ') AS expression
            FROM unnest(w.names::text[]) AS c (name)
            WHERE c.name = ANY (source.columns)
        ) AS found
    );
    -- A role that may not see a statement gets its row without an identifier.
    RETURN QUERY EXECUTE format(
        'SELECT %s FROM %I.pg_stat_statements(false) AS s WHERE s.queryid IS NOT NULL',
        select_list, source.schema_name
    );
END
$$;

REVOKE ALL ON FUNCTION pgops.statement_counters() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.statement_counters() TO pgops;
