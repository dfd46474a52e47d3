-- collector: temporary_files
-- scope: instance
-- interval: 60
-- timeout: 5
-- metric: temp_files_now_mb unit=MB kind=gauge category=capacity
--   Size of the temporary files that queries have now, by tablespace: temp_bytes hears of them once a query ends.
--   Those that the processes of a parallel query share are not shown by the server. Find the query, give it more
--   work_mem, or set temp_file_limit.
SELECT
    t.spcname AS tablespace,
    coalesce(sum(f.size), 0) / 1048576.0 AS temp_files_now_mb
FROM pg_tablespace AS t
LEFT JOIN LATERAL pg_ls_tmpdir(t.oid) AS f ON TRUE
WHERE t.spcname <> 'pg_global'
GROUP BY t.spcname
