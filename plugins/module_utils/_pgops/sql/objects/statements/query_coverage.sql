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
'Intervals between two readings of pg_stat_statements, and how much of each is accounted for.';
COMMENT ON COLUMN pgops.query_coverage.coverage IS
'Share in % of the time that sessions were active which top_queries accounts for; a lower bound. NULL if unknown.';
COMMENT ON COLUMN pgops.query_coverage.evictions IS
'How often the server dropped its least used statements to make space, 5 % each time; NULL after a reset.';
COMMENT ON COLUMN pgops.query_coverage.statements IS
'Number of statements stored, one by one or in the row of all others.';

REVOKE ALL ON pgops.query_coverage FROM PUBLIC;
GRANT SELECT ON pgops.query_coverage TO pgops, pgops_reader;
