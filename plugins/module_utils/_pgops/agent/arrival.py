# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The proof that what a standby measures arrives in its cluster's ops database: the agent collects once, as its timer
would. It is made once for each configuration, and again where that changes."""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import json
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import NotDelivered
from ..host import commands, documents, files
from ..instance.layout import Layout

FORMAT = 1
PATIENCE = 15
"""Seconds until roles and database of a new cluster have been replayed on a standby, and another collection ends."""
OUTCOMES = (0, 1, 75)
"""Exit codes of a collection that says what came of it."""
HINT = (
    "Check that this host reaches the other nodes there (pgops_address, pgops_port), that their pg_hba.conf lets it "
    "in, and that they have TLS (docs/start.md, Standbys)."
)
NOBODY = (
    "Instance {instance} is a standby, and no other node of its cluster is known: what it measures is kept in a file "
    "of limited size, and then lost. Name its nodes: by an inventory group with the name of the cluster, by "
    "pgops_cluster_hosts, or by peers in pgops_instances."
)
LOOPBACK = (
    "Instance {instance} is a standby, and is to find another node of its cluster at {places}, which is this host "
    "itself. Set pgops_address of that node's host to an address that others reach."
)
UNPROVEN = (
    "Instance {instance}: nothing can be collected on this standby yet, so it is not proven that its samples arrive: "
    "{why} The next run tries it again."
)


def warnings(instance: str, places: Sequence[str] | None) -> list[str]:
    """What cannot work, or hardly, of the ``places`` (host:port) to which a standby delivers; None is for no
    standby."""
    if places is None:
        return []
    if not places:
        return [NOBODY.format(instance=instance)]
    own = [place for place in places if _loopback(place.rpartition(":")[0])]
    return [LOOPBACK.format(instance=instance, places=", ".join(own))] if own else []


def _loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host.lower() in ("localhost", "localhost.localdomain")


def prove(layout: Layout, places: Sequence[str]) -> list[str]:
    """Have the agent of a standby collect, unless that has been proven for its configuration; returns warnings, for
    what cannot be proven yet.

    Raises NotDelivered where nothing arrives at any of the ``places``.
    """
    wanted = {"configuration": _fingerprint(layout)}
    if documents.read(layout.delivered, FORMAT, "Delete it.") == wanted:
        return []
    deadline = time.monotonic() + PATIENCE
    while True:
        outcome = _collected(layout)
        if outcome.get("delivered"):
            documents.write(layout.delivered, FORMAT, wanted)
            return []
        if time.monotonic() > deadline:
            return _failed(layout, places, outcome)
        time.sleep(1)


def _fingerprint(layout: Layout) -> str:
    """Changes with the configuration and with the password."""
    found = files.read(layout.agent_file)
    with contextlib.suppress(OSError):
        changed = os.stat(layout.passfile).st_mtime_ns
        return hashlib.sha256((found.content if found else b"") + str(changed).encode()).hexdigest()
    return ""


def _collected(layout: Layout) -> Mapping[str, Any]:
    prefix = [] if layout.prefix == "/" else ["--prefix", layout.prefix]
    said = commands.run([layout.launcher, "--instance", layout.instance, *prefix, "collect"], accepted=OUTCOMES)
    with contextlib.suppress(ValueError, IndexError):
        outcome = json.loads(said.splitlines()[-1])
        return outcome if isinstance(outcome, dict) else {}
    return {}


def _failed(layout: Layout, places: Sequence[str], outcome: Mapping[str, Any]) -> list[str]:
    if "sink" not in outcome:
        why = str(outcome.get("error") or "The collection said nothing.")
        return [UNPROVEN.format(instance=layout.instance, why=why)]
    why = " ".join(str(error) for error in outcome.get("errors", ()) if "not delivered" in str(error))
    raise NotDelivered(
        f"Instance {layout.instance}: what this standby measures does not arrive at {', '.join(places)}: {why}", HINT
    )
