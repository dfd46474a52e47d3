# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The agent's configuration: one JSON file an instance, written by pg_ops_agent, read by every job."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from .. import spelling
from ..capabilities import OPTIONS
from ..errors import HostFailed, InvalidInput
from .layout import Layout

FORMAT = 3
FLAT_FORMATS = (1, 2)
"""Of agents before parts: their options stand beside all else."""


@dataclass(frozen=True)
class Peer:
    """Another node of the cluster, as this one reaches it."""

    host: str
    port: int = 5432


@dataclass(frozen=True)
class Configuration:
    """What an agent knows of its instance.

    ``repository`` is the cluster's, '' where it has none; ``superuser`` is who the jobs of the server's user log in
    as, '' for the role of that user's name. ``textfile_directory`` is where node_exporter finds the newest values, ''
    where it is not to. ``real_paths`` are the server's directories without links, by its own names for them: the
    agent may not be able to look. ``host`` is where a remote instance is reached over TCP with the password in
    ``passfile``; both are '' for one of this host, which is reached by its socket. ``parts`` are the options of
    capabilities by their names, where they are not the defaults: only their owners know what they mean.
    """

    instance: str
    cluster: str
    node: str
    port: int = 5432
    socket_directory: str = ""
    database: str = "pgops"
    role: str = "pgops"
    peers: tuple[Peer, ...] = ()
    ssl_mode: str = "require"
    ca_cert: str = ""
    repository: str = ""
    superuser: str = ""
    textfile_directory: str = ""
    real_paths: Mapping[str, str] = field(default_factory=dict)
    host: str = ""
    passfile: str = ""
    parts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def text(self) -> str:
        """As the file holds it."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2, sort_keys=True) + "\n"

    @property
    def data_directory(self) -> str:
        """The server's data directory, by the server's own name for it; '' where it is not known."""
        return next((path for path in self.real_paths if f"{path.rstrip('/')}/pg_wal" in self.real_paths), "")

    def part(self, capability: str) -> dict[str, Any]:
        """The options of a capability, all of them; those of a newer agent are left out."""
        stored = self.parts.get(capability, {})
        return {name: stored.get(name, default) for name, default in OPTIONS[capability].items()}


def checked_parts(given: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Options of capabilities as the configuration takes them: known ones, of the types of their defaults.

    Raises InvalidInput.
    """
    unknown = spelling.unknown(given, OPTIONS)
    if unknown:
        raise InvalidInput(f"There are options of unknown capabilities: {unknown}.")
    for capability, options in given.items():
        unknown = spelling.unknown(options, OPTIONS[capability])
        if unknown:
            raise InvalidInput(f"Capability {capability} has no option {unknown}.")
        for name, value in options.items():
            _check_type(f"Option {name} of capability {capability}", value, OPTIONS[capability][name])
    return {capability: dict(options) for capability, options in given.items() if options}


def _check_type(what: str, value: Any, default: Any) -> None:
    kind = type(default)
    whole = kind is float and isinstance(value, int) and not isinstance(value, bool)
    if not (whole or (isinstance(value, kind) and isinstance(value, bool) == (kind is bool))):
        raise InvalidInput(f"{what} has to be of the type {kind.__name__}, and is {value!r}.")


def parse(text: str, path: str) -> Configuration:
    """The configuration of a file's text; keys of a newer agent are left out.

    Raises InvalidInput.
    """
    try:
        data = json.loads(text)
        number = data.pop("format")
        if number not in (FORMAT, *FLAT_FORMATS):
            raise InvalidInput(
                f"{path} has a format that this version of the agent cannot read.", "Run site.yml on this host."
            )
        if number in FLAT_FORMATS:
            data["parts"] = _parted(data)
        known = {key: value for key, value in data.items() if key in Configuration.__dataclass_fields__}
        known["peers"] = tuple(Peer(peer["host"], peer["port"]) for peer in known.get("peers", ()))
        return Configuration(**known)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidInput(
            f"{path} cannot be read: {error!r}.", "Run site.yml on this host: it writes the file."
        ) from error


def _parted(flat: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The options of capabilities among the keys of a file of FLAT_FORMATS."""
    return {
        capability: {name: flat[name] for name in options if name in flat} for capability, options in OPTIONS.items()
    }


def load(layout: Layout) -> Configuration:
    """The instance's configuration.

    Raises HostFailed, InvalidInput.
    """
    try:
        with open(layout.agent_file, encoding="utf-8", errors="replace") as file:
            return parse(file.read(), layout.agent_file)
    except OSError as error:
        raise HostFailed(
            f"{layout.agent_file} cannot be read: {error.strerror}.",
            "Run this as root or as the agent's user. Check the instance's name, and that site.yml has run here.",
        ) from error
