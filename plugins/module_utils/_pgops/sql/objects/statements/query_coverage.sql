-- object: view pgops.query_coverage
CREATE OR REPLACE VIEW pgops.query_coverage AS
SELECT
    n.node,
    i.started_at,
    i.ended_at,
    i.coverage,
    i.evictions,
    i.statements
FROM pgops.query_interval AS i
INNER JOIN pgops.node AS n ON i.node_id = n.node_id;

COMMENT ON VIEW pgops.query_coverage IS
'The times between two readings of pg_stat_statements, and how much of each is accounted for.';
COMMENT ON COLUMN pgops.query_coverage.coverage IS
'In %: at least so much of the time that statements took is in top_queries. 100 where nothing can be missing.';
COMMENT ON COLUMN pgops.query_coverage.evictions IS
'How often the server dropped its rarest statements for want of room, 5 % each time; NULL where it was reset.';
COMMENT ON COLUMN pgops.query_coverage.statements IS
'How many were stored, one by one or as the row of all others.';

REVOKE ALL ON pgops.query_coverage FROM PUBLIC;
GRANT SELECT ON pgops.query_coverage TO pgops_reader;
