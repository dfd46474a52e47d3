# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which servers of the host run a program of ours, by their configuration files: one that is down counts too, since
it may be started."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..errors import HostFailed
from ..host.identity import as_user, user
from . import discovery, disks
from .discovery import Settings
from .target import Target

UNREAD = "perhaps one of the settings (they cannot be read)"


@dataclass(frozen=True)
class Use:
    """A server whose ``settings`` name a program; UNREAD where they cannot be read."""

    instance: str
    data_directory: str
    settings: tuple[str, ...]


def uses(program: str, known: Mapping[str, str], root: str = "/", others: str = "") -> list[Use]:
    """The servers of the host whose settings name a program, or have the text ``others`` in them.

    ``known`` are data directories of instances by their names, besides what is found on the host, whose files begin
    at ``root``.
    """
    found: dict[str, Use] = {}
    for name, data, configuration in _places(known, root):
        settings = _naming(tuple(filter(None, (program, others))), data, configuration)
        if settings:
            found.setdefault(os.path.realpath(data), Use(name, data, settings))
    return list(found.values())


def _places(known: Mapping[str, str], root: str) -> Iterator[tuple[str, str, str]]:
    """Name, data directory and main configuration file of each server."""
    for one in discovery.instances(root):
        if one.data_directory:
            version, _dash, cluster = one.name.partition("-")
            folder = os.path.join(root, discovery.DEBIAN[1:], version, cluster)
            yield one.name, one.data_directory, os.path.join(folder, "postgresql.conf")
            continue
        data = next(iter(disks.real_paths(Target(one.socket_directory, str(one.port)))), "")
        if data:
            yield one.name, data, os.path.join(data, "postgresql.conf")
    for name, data in known.items():
        yield name, data, os.path.join(data, "postgresql.conf")


def _naming(texts: Sequence[str], data: str, configuration: str) -> tuple[str, ...]:
    """The parameters of a server whose values have one of some texts, read as the server's user."""
    try:
        owner = os.stat(data).st_uid
        if not _runs_servers(owner):
            return ()
        return tuple(as_user(owner, lambda: _values(texts, data, configuration), discovery.READING))
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except (OSError, HostFailed):
        return (UNREAD,) if os.geteuid() == 0 else ()


def _runs_servers(owner: int) -> bool:
    """Whether it can be a server's user: not root, as of where a file system is to be mounted, nor who is gone."""
    try:
        return os.geteuid() != 0 or user(owner).uid == owner
    except HostFailed:
        return False


def _values(texts: Sequence[str], data: str, configuration: str) -> list[str]:
    settings = Settings()
    settings.read(configuration)
    settings.read(os.path.join(data, "postgresql.auto.conf"))
    return sorted(name for name, value in settings.values.items() if any(text in value for text in texts))
