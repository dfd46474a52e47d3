-- The users' own replication. Last of all, since the role is the sign that a primary is finished.
SELECT pg_create_physical_replication_slot(slot) FROM unnest(string_to_array(:'standbys', ',')) AS s (slot);
CREATE ROLE replicator LOGIN REPLICATION PASSWORD 'replicator';
