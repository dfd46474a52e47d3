# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The queries of views of the ops database that need nothing of it, for a server that has none, or whose ops database
takes no session."""

from __future__ import annotations

import functools
import os
import re

from .. import sources
from ..errors import InvalidInput

VIEW = re.compile(r"^CREATE OR REPLACE VIEW pgops\.\w+ AS\n(.*?);\n", re.DOTALL | re.MULTILINE)


@functools.cache
def query(name: str) -> str:
    """The SELECT of the view ``name`` in the folder `read`.

    Raises HostFailed, InvalidInput for a library that was changed by hand.
    """
    path = os.path.join("sql", "objects", "read", f"{name}.sql")
    text = sources.gather(sources.LIBRARY, (f"{name}.sql",), os.path.dirname(path)).get(path, "")
    found = VIEW.search(text)
    if found is None:
        raise InvalidInput(f"{path} has no view.", "Run site.yml on this host: it installs the agent anew.")
    return found.group(1)
