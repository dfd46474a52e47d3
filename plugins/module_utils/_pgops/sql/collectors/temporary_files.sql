-- collector: temporary_files
-- scope: instance
-- interval: 60
-- timeout: 5
-- metric: temp_files_now_mb unit=MB kind=gauge category=capacity
--   Size of the temporary files that queries have now, by tablespace: temp_bytes hears of them once a query ends.
--   Those that the processes of a parallel query share are not shown by the server. Find the query, give it more
--   work_mem, or set temp_file_limit. No value for a tablespace that the server cannot read.
SELECT
    t.spcname AS tablespace,
    coalesce(sum(f.size), 0) / 1048576.0 AS temp_files_now_mb
FROM (
    SELECT
        s.spcname,
        CASE
            WHEN strpos(current_setting('pgops.unreadable', TRUE), ',' || s.oid || ',') > 0 THEN NULL
            ELSE s.oid
        END AS oid
    FROM pg_tablespace AS s
    WHERE s.spcname <> 'pg_global'
) AS t
LEFT JOIN LATERAL pg_ls_tmpdir(t.oid) AS f ON TRUE
WHERE t.oid IS NOT NULL
GROUP BY t.spcname
