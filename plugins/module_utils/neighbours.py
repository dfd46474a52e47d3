# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Other managers of a server, which must not be worked against."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from .server import Session

# The function below pg_stat_activity, and to_regrole(): the views' joins would cost more than all the rest.
READ = """
SELECT CASE WHEN pg_has_role('pg_read_all_settings', 'USAGE') THEN current_setting('data_directory') END
           AS data_directory,
       EXISTS (SELECT FROM pg_stat_get_activity(NULL) AS a
               WHERE a.application_name LIKE 'Patroni%'
                 AND EXISTS (SELECT FROM pg_roles AS r
                             WHERE r.oid = a.usesysid AND (r.rolsuper OR r.rolreplication))) AS patroni,
       EXISTS (SELECT FROM pg_extension WHERE extname = 'repmgr') AS repmgr,
       EXISTS (SELECT FROM pg_extension WHERE extname = 'pgautofailover')
           OR to_regrole('pgautofailover_replicator') IS NOT NULL AS pg_auto_failover,
       CASE WHEN to_regrole('rds_superuser') IS NOT NULL THEN 'Amazon RDS'
            WHEN to_regrole('cloudsqlsuperuser') IS NOT NULL THEN 'Google Cloud SQL'
            WHEN to_regrole('azure_pg_admin') IS NOT NULL THEN 'Azure Database' END AS service
"""


def manager(session: Session) -> str:
    """Who manages the server besides: Patroni, repmgr, pg_auto_failover, a managed service, or nobody ('')."""
    return recognised(session.rows(READ)[0], session.target.local)


def recognised(row: Mapping[str, Any], local: bool) -> str:
    """The same from what READ gave; the data directory is looked into where it is ``local``."""
    if row["patroni"] or (local and patroni_file(row["data_directory"])):
        return "Patroni"
    if row["repmgr"]:
        return "repmgr"
    return "pg_auto_failover" if row["pg_auto_failover"] else row["service"] or ""


def patroni_file(data_directory: str | None) -> bool:
    """Whether Patroni keeps its copy of the cluster's configuration in the data directory."""
    return bool(data_directory) and os.path.exists(os.path.join(str(data_directory), "patroni.dynamic.json"))
