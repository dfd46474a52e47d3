# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The agent's configuration: one JSON file an instance, written by pg_ops_agent, read by every job."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import HostFailed, InvalidInput
from .layout import Layout

FORMAT = 1
REMOTE_FORMAT = 2
"""Of a remote instance: an agent that knows of none would take the server at the local socket for it."""


@dataclass(frozen=True)
class Peer:
    """Another node of the cluster, as this one reaches it."""

    host: str
    port: int = 5432


@dataclass(frozen=True)
class Configuration:
    """What an agent knows of its instance.

    ``collectors`` maps a collector's name to what differs from its file: interval and timeout in seconds, enabled.
    ``spool_bytes`` bounds the file of rounds that could not be delivered. ``repository`` is the cluster's, '' where
    it has none; ``superuser`` is who looks after it logs in as, '' for the role of the server's own user.
    ``retention`` maps a metric's name to the days that its samples are kept, where these are not the usual ones.
    ``query_texts`` says whether the texts of statements are stored; ``slow_query_ms`` is how many milliseconds an
    execution takes that is noted one by one, negative: none is; ``explain`` whether plans are made of them.
    ``textfile_directory`` is where node_exporter finds the newest values, '' where it is not to. ``real_paths`` are
    the server's directories without links, by its own names for them: the agent may not be able to look.
    ``host`` is where a remote instance is reached over TCP with the password in ``passfile``; both are '' for one of
    this host, which is reached by its socket.
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
    collectors: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    retention: Mapping[str, int] = field(default_factory=dict)
    time_budget: float = 45.0
    spool_bytes: int = 32 * 1024 * 1024
    repository: str = ""
    superuser: str = ""
    query_texts: bool = True
    slow_query_ms: float = 1000.0
    explain: bool = False
    textfile_directory: str = ""
    real_paths: Mapping[str, str] = field(default_factory=dict)
    host: str = ""
    passfile: str = ""

    def text(self) -> str:
        """As the file holds it."""
        number = REMOTE_FORMAT if self.host else FORMAT
        return json.dumps({"format": number, **asdict(self)}, indent=2, sort_keys=True) + "\n"


def parse(text: str, path: str) -> Configuration:
    """The configuration of a file's text; keys of a newer agent are left out.

    Raises InvalidInput.
    """
    try:
        data = json.loads(text)
        if data.pop("format") not in (FORMAT, REMOTE_FORMAT):
            raise InvalidInput(f"{path} has another format than this agent reads.", "Run site.yml on this host.")
        known = {key: value for key, value in data.items() if key in Configuration.__dataclass_fields__}
        known["peers"] = tuple(Peer(peer["host"], peer["port"]) for peer in known.get("peers", ()))
        return Configuration(**known)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidInput(f"{path} cannot be read: {error!r}.", "Run site.yml here: it makes it anew.") from error


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
            "Run this as root or as the agent's user; is the instance's name right, and was site.yml run here?",
        ) from error
