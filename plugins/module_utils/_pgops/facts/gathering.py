# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""All facts of a host under one contract, which docs/facts.md documents."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..errors import InvalidInput
from ..instance import endpoints
from ..instance.configuration import Configuration
from ..server import discovery
from ..server.target import Target
from ..version import VERSION
from . import agent, host, instance, size

CONTRACT = 1
"""Increased when a key is removed or changes its meaning, not for new keys."""

LOOPBACK = ("localhost", "127.0.0.1", "::1")


def gather(target: Target, params: Mapping[str, Any]) -> dict[str, Any]:
    """What pg_ops_facts returns; ``params`` are its arguments. A ``target`` with port 0 and without a host
    stands for all local instances.

    Raises InvalidInput.
    """
    if target.statement_timeout < 0.001:
        raise InvalidInput("statement_timeout must be at least 0.001 s; without a limit a query could hang.")
    sections = subset(params["gather_subset"])
    wanted = instance.Wanted(sections, params["database"], params["database_sizes"], params["prefix"])
    facts: dict[str, Any] = {
        "contract": CONTRACT,
        "collection_version": VERSION,
        "gathered_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "sections": list(sections),
        "host": {**host.read(), "agents": agent.installed(params["prefix"])},
        "instances": [instance.read(found, at, wanted) for found, at in places(target, params["prefix"])],
    }
    return {"changed": False, "ansible_facts": {"pg_ops": size.limit(facts, params["max_bytes"])}}


def subset(words: Sequence[str]) -> tuple[str, ...]:
    """The sections that ``gather_subset`` names, in their order: ``all``, ``min``, a section, or ``!section``
    to exclude one.

    Raises InvalidInput.
    """
    known = {"all", "min", *instance.SECTIONS}
    unknown = sorted(word for word in words if word.lstrip("!") not in known or word == "!min")
    if unknown:
        raise InvalidInput(
            f"gather_subset: unknown sections {', '.join(unknown)}.",
            f"Valid are all, min, {', '.join(instance.SECTIONS)}; '!' before a section excludes it.",
        )
    included = {word for word in words if not word.startswith("!")}
    excluded = {word[1:] for word in words if word.startswith("!")}
    everything = ("all" in included or not included) and "all" not in excluded
    return tuple(
        section for section in instance.SECTIONS if (everything or section in included) and section not in excluded
    )


def places(target: Target, prefix: str) -> list[tuple[discovery.Instance, Target]]:
    """The instances to read, each with its target. The remote ones of an agent are read with the agent's login."""
    known = discovery.instances() if target.local or target.host in LOOPBACK else []
    if not target.host and target.port == "0":
        here = [(found, replace(target, host=found.socket_directory, port=str(found.port))) for found in known]
        return here + [_remote(one, target) for one in agent.remote(prefix)]
    at = replace(target, port=str(discovery.DEFAULT_PORT)) if target.port == "0" else target
    same = [found for found in known if str(found.port) == at.port]
    names = [one.instance for one in agent.remote(prefix) if (one.host, str(one.port)) == (at.host, at.port)]
    name = names[0] if names else f"port-{at.port}"
    unknown = discovery.Instance(name, int(at.port), at.host if at.local else "", socket=False)
    return [(replace(same[0] if same else unknown, asked=True), at)]


def _remote(settings: Configuration, target: Target) -> tuple[discovery.Instance, Target]:
    at = replace(
        endpoints.agent(settings, "facts"),
        application_name=target.application_name,
        connect_timeout=target.connect_timeout,
        statement_timeout=target.statement_timeout,
        lock_timeout=target.lock_timeout,
    )
    return discovery.Instance(settings.instance, settings.port, "", socket=False, asked=True), at
