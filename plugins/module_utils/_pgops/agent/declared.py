# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is declared of a host's agent: the program, its user, and the configuration of each instance."""

from __future__ import annotations

import contextlib
import os
import pwd
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .. import spelling
from ..errors import InvalidInput, PgOpsError
from ..host import files
from ..host.identity import is_root
from ..instance.configuration import Configuration, Peer, checked_parts
from ..instance.layout import Layout
from ..metrics import collectors as headers
from ..metrics.collectors import Collector
from ..metrics.options import options
from ..sources import Sources, below
from .program import Program, program


@dataclass(frozen=True)
class Instance:
    """An instance as it is declared. ``owner`` is the operating system's user that runs the server, and the jobs that
    need it, with its group; '' for a remote instance."""

    configuration: Configuration
    password: str | None = field(default=None, repr=False)
    owner: str = ""
    owner_group: str = ""

    @property
    def name(self) -> str:
        """As it stands in the names of files and units."""
        return self.configuration.instance


@dataclass(frozen=True)
class Desired:
    """The agent of a host: what its ``instances`` share, and each of them. ``collectors`` are texts of the user's
    own; ``retired`` are instances whose place others have taken: node_exporter is to read nothing of them."""

    instances: tuple[Instance, ...]
    sources: Sources = field(repr=False)
    user: str = "pgops"
    group: str = "pgops"
    python: str = sys.executable
    collectors: tuple[str, ...] = ()
    retired: tuple[str, ...] = ()
    prefix: str = "/"

    @property
    def program(self) -> Program:
        """The agent's program as this version of the collection ships it."""
        return program(self.sources, self.python)

    @property
    def archiver(self) -> bytes:
        """The program that archives, b'' where no instance has a repository; it needs nothing else of the agent."""
        if not any(one.configuration.repository for one in self.instances):
            return b""
        return f"#!{self.python} -IS\n{self.sources['repository/archiver.py']}".encode()

    @property
    def runners(self) -> tuple[str, ...]:
        """The operating system's users that run the program; none below another prefix, where who installs it is
        the only one."""
        return (
            tuple(dict.fromkeys([self.user, *(one.owner for one in self.instances if one.owner)]))
            if self.owners[0]
            else ()
        )

    @property
    def archiving(self) -> tuple[str, ...]:
        """Those of them that run the program that archives."""
        owners = (one.owner for one in self.instances if one.owner and one.configuration.repository)
        return tuple(dict.fromkeys(owners)) if self.owners[0] else ()

    @property
    def own_collectors(self) -> list[Collector]:
        """The user's own collectors.

        Raises InvalidInput for one that cannot be read.
        """
        return [headers.parse(text, f"collector {place}") for place, text in enumerate(self.collectors, 1)]

    @property
    def owners(self) -> tuple[str | None, str | None, str | None]:
        """Names of root, the agent's user and its group; None where no host is its own (another prefix than /)."""
        return ("root", self.user, self.group) if self.prefix == "/" else (None, None, None)

    def layout(self, instance: str) -> Layout:
        """The paths of an instance."""
        return Layout(instance, self.prefix)


def desired(params: Mapping[str, Any]) -> Desired:
    """What the arguments of pg_ops_agent ask for.

    Raises InvalidInput.
    """
    spelling.refuse_repeated("Instance", [str(one["name"]) for one in params["instances"]])
    _refuse_root("user", params["user"])
    wanted = Desired(
        instances=tuple(_instance(one, params) for one in params["instances"]),
        sources=params["sources"],
        user=params["user"],
        group=primary_group(params["user"]),
        python=_interpreter(params["python"] or sys.executable),
        collectors=tuple(params["collectors"]),
        retired=tuple(params["retired"]),
        prefix=Layout("any", params["prefix"]).prefix,
    )
    _check_collectors(wanted)
    return wanted


@contextlib.contextmanager
def naming(instance: str) -> Iterator[None]:
    """Errors name the instance that they are about."""
    try:
        yield
    except PgOpsError as error:
        error.message = f"Instance {instance}: {error.message}"
        raise


def _instance(declared: Mapping[str, Any], params: Mapping[str, Any]) -> Instance:
    with naming(declared["name"]):
        if not declared["cluster"] or not declared["node"]:
            raise InvalidInput("cluster and node are required with state present.")
        _check_place(declared)
        _refuse_root("owner", declared["owner"])
        remote, layout = bool(declared["host"]), Layout(declared["name"], params["prefix"])
        settings = Configuration(
            instance=layout.instance,
            cluster=declared["cluster"],
            node=declared["node"],
            port=declared["port"],
            socket_directory=declared["socket_directory"],
            database=declared["database"],
            peers=tuple(Peer(str(peer["host"]), int(peer["port"])) for peer in declared["peers"]),
            ssl_mode=declared["ssl_mode"],
            ca_cert=declared["ca_cert"] or "",
            # As pg_ops_archiving writes it into archive_command.
            repository=os.path.normpath(declared["repository"]) if declared["repository"] else "",
            superuser=declared["superuser"],
            textfile_directory=_absolute(params["textfile_directory"] or ""),
            host=declared["host"],
            passfile=layout.passfile if remote else "",
            parts=_parts(declared["capabilities"]),
        )
        if remote:
            return Instance(settings, declared["password"] or None)
        return Instance(settings, declared["password"] or None, declared["owner"], primary_group(declared["owner"]))


def _refuse_root(option: str, name: str) -> None:
    """Raises InvalidInput for a user of jobs who is root."""
    if is_root(name):
        raise InvalidInput(f"{option} is {name}, but neither the agent nor a server runs as root.", "Name its user.")


def _parts(declared: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The options of capabilities. What monitoring knows of its own is checked as it does.

    Raises InvalidInput.
    """
    parts = checked_parts(declared)
    own = parts.get("metrics", {})
    if "collectors" in own:
        own["collectors"] = headers.checked_settings(own["collectors"])
    if "retention" in own:
        own["retention"] = headers.checked_retention(own["retention"])
    threshold = parts.get("statements", {}).get("slow_query_ms", 0.0)
    if not abs(threshold) <= 1e12:  # also what is not a number
        raise InvalidInput(f"slow_query_ms must be a number of milliseconds, not {threshold}.")
    return parts


def _check_place(declared: Mapping[str, Any]) -> None:
    """Raises InvalidInput for a remote instance that cannot be reached, or that would send its data in the clear."""
    host = declared["host"]
    if host.startswith("/") or "," in host:
        raise InvalidInput(
            f"host is {host!r}, which is not the name or address of a single host.",
            "For a directory of sockets, use socket_directory.",
        )
    if host and (declared["socket_directory"] or declared["repository"]):
        raise InvalidInput("socket_directory and repository cannot be set for a remote instance.")
    if host and declared["capabilities"].get("statements", {}).get("explain"):
        raise InvalidInput("explain is not available for remote instances.", "Set explain to false.")
    if declared["ssl_mode"] == "disable" and (not host or declared["peers"]):
        raise InvalidInput("ssl_mode disable is only for a remote instance without peers.", "Set another ssl_mode.")


def _check_collectors(wanted: Desired) -> None:
    """Raises InvalidInput for a collector of the user's whose name or metric is taken, and for settings of unknown
    ones."""
    shipped = [headers.parse(text, file) for file, text in below(wanted.sources, "sql/collectors").items()]
    known = headers.joined(shipped, wanted.own_collectors)
    for one in wanted.instances:
        with naming(one.name):
            headers.adjusted(known, options(one.configuration).collectors)


def _absolute(folder: str) -> str:
    if folder and not os.path.isabs(folder):
        raise InvalidInput(f"textfile_directory must be an absolute path, not {folder!r}.")
    return os.path.normpath(folder) if folder else ""


def _interpreter(path: str) -> str:
    if not os.path.isabs(path) or any(character.isspace() for character in path):
        raise InvalidInput(f"The agent's Python {path!r} must be an absolute path without spaces.")
    return path


def primary_group(user: str) -> str:
    """The group of an operating system's user, its number where it has no name; a user that is yet to be created gets
    a group of its own name."""
    try:
        number = pwd.getpwnam(user).pw_gid
    except KeyError:
        return user
    return files.group_name(number)


def names(params: Mapping[str, Any]) -> Sequence[str]:
    """The names of the instances that pg_ops_agent is to remove.

    Raises InvalidInput.
    """
    return [Layout(str(one["name"]), params["prefix"]).instance for one in params["instances"]]
