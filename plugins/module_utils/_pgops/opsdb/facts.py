# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The section ``schema`` of the facts: what is installed in the ops database."""

from __future__ import annotations

from ..capabilities import Section
from .fingerprints import present

# Another major version of the server writes definitions differently: then drift is unknown.
SCHEMA = f"""
WITH installed AS MATERIALIZED (
    SELECT f.object, f.sha256, f.server_major FROM pgops.installed_objects AS f
),

comparison AS (
    SELECT NOT EXISTS (
        SELECT FROM installed AS i WHERE i.server_major <> current_setting('server_version_num')::integer / 10000
    ) AS possible
)

SELECT
    current_database() AS database,
    true AS installed,
    s.migration,
    s.collection_version,
    s.migrated_at,
    s.retention_days,
    CASE WHEN c.possible THEN (
        SELECT coalesce(json_agg(coalesce(i.object, o.object) ORDER BY coalesce(i.object, o.object)), '[]')
        FROM installed AS i FULL JOIN ({present("pgops.installed_objects")}) AS o ON i.object = o.object
        WHERE i.sha256 IS DISTINCT FROM o.sha256
    ) END AS drifted
FROM comparison AS c LEFT JOIN pgops.schema_status AS s ON true
"""

SECTION = Section(
    "schema",
    SCHEMA,
    ("database", "migration", "collection_version", "migrated_at", "retention_days", "drifted"),
    fixed={"installed": False},
)
