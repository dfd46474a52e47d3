# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The names of our roles on a server, their mark, those of databases that we fill, and of a setting of our sessions.
Apart, since who needs a name needs no driver."""

from __future__ import annotations

MARK = "Managed by pgops.fleet"
"""The comment of a role that we created."""
OWNER, READER, AGENT = "pgops_owner", "pgops_reader", "pgops"
OPERATOR = "pgops_operator"
"""Its members may ask for backups and make recovery points; the role can do nothing else."""
EXPLAINER = "pgops_explain"
BACKUP = "pgops_backup"
OPTIONAL = (EXPLAINER, BACKUP)
"""Those that exist where a capability is on."""
RESTORING = "pgops_restoring_"
"""What the names of databases begin with that are filled from a dump, until they are complete."""
UNREADABLE = "pgops.unreadable"
"""The setting with the tablespaces that queries leave out: their OIDs, each between commas."""
