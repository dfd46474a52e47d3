-- object: view pgops.installed_objects
-- Functions, views and tables as installed: the SHA-256 of each definition as that major version prints it, and the
-- transactions that had written its rows of the catalogue.
CREATE OR REPLACE VIEW pgops.installed_objects AS
SELECT
    f.object,
    f.sha256,
    f.server_major,
    f.mark
FROM pgops.fingerprint AS f;

REVOKE ALL ON pgops.installed_objects FROM PUBLIC;
GRANT SELECT ON pgops.installed_objects TO pgops, pgops_reader;
