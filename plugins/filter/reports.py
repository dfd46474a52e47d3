# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a playbook makes of the reports of its hosts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.pgops.fleet.plugins.module_utils._pgops.errors import PgOpsError
from ansible_collections.pgops.fleet.plugins.module_utils._pgops.reports import fleet, listing, page
from ansible_collections.pgops.fleet.plugins.module_utils._pgops.reports.fleet import Host
from ansible_collections.pgops.fleet.plugins.module_utils._pgops.reports.packing import unpacked

NO_JMESPATH = (
    "A query needs the Python package jmespath on the controller: install it with pip, or python3-jmespath of Debian."
)


def fleet_report(results: Mapping[str, Any], made_at: str, query: str = "") -> dict[str, Any]:
    """The page, the JSON and the table of a fleet, its worst status, and the answer to a JMESPath ``query``.
    ``results`` are what pg_ops_report returned with ``packed``, by the host's name.

    Raises AnsibleFilterError.
    """
    document = fleet.document([_host(name, result or {}) for name, result in results.items()], made_at)
    try:
        return {
            "page": page.page(document),
            "json": json.dumps(document, ensure_ascii=False) + "\n",
            "table": listing.lines(document),
            "status": fleet.worst(document),
            "levels": list(fleet.LEVELS),
            "answer": answer(document, query) if query else None,
        }
    except PgOpsError as error:
        raise AnsibleFilterError(str(error)) from error


def _host(name: str, result: Mapping[str, Any]) -> Host:
    if result.get("failed") or result.get("unreachable") or "report" not in result:
        word = "Unreachable" if result.get("unreachable") else "Failed"
        return Host(str(name), None, f"{word}: {result.get('msg') or 'nothing was returned'}")
    try:
        return Host(str(name), unpacked(str(result["report"])))
    except ValueError as error:
        return Host(str(name), None, f"Failed: what it returned is not a report: {error}")


def answer(document: Mapping[str, Any], query: str) -> Any:
    """What a JMESPath query finds in a document.

    Raises AnsibleFilterError for one that is not valid, or without jmespath.
    """
    try:
        import jmespath
    except ImportError as error:
        raise AnsibleFilterError(NO_JMESPATH) from error
    try:
        return jmespath.search(query, document)
    except jmespath.exceptions.JMESPathError as error:
        raise AnsibleFilterError(f"The query is not valid JMESPath: {error}") from error


class FilterModule:
    """Ansible's entry."""

    def filters(self) -> dict[str, Any]:
        """The filters of this file."""
        return {"fleet_report": fleet_report}
