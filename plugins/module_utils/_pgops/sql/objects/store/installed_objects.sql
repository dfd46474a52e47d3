-- object: view pgops.installed_objects
-- Functions, views and tables as installed: the SHA-256 of each definition as that major version prints it.
CREATE OR REPLACE VIEW pgops.installed_objects AS
SELECT
    f.object,
    f.sha256,
    f.server_major
FROM pgops.fingerprint AS f;

REVOKE ALL ON pgops.installed_objects FROM PUBLIC;
GRANT SELECT ON pgops.installed_objects TO pgops, pgops_reader;
