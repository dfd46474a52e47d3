# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is there of the agent on a host."""

from __future__ import annotations

import os
import pwd
import secrets
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import InvalidInput
from ..host import files
from ..host.files import Found
from ..instance.configuration import Configuration, parse
from ..instance.layout import Layout
from . import program as versions
from .declared import Desired, Instance
from .entries import any_layout, directories, exported, instance_files, shared_directories, shared_files
from .program import Installed


@dataclass(frozen=True)
class Present:
    """What is there of an instance: what is ``found`` at paths; ``stray_collectors`` and ``misowned`` are paths of
    the user's collectors that are not declared any more, and of files in the state that another user owns.
    ``textfile`` is our link for node_exporter, '' where there is none, ``drawn`` a password for a remote instance
    that has none."""

    found: Mapping[str, Found | None]
    stray_collectors: tuple[str, ...] = ()
    misowned: tuple[str, ...] = ()
    textfile: str = ""
    drawn: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Current:
    """What is there on the host. ``found`` is what is at the paths that all instances share, ``user`` the comment of
    the operating system's user, or None, ``retired`` our links for node_exporter of retired instances."""

    found: Mapping[str, Found | None]
    installed: Installed = field(default_factory=Installed)
    user: str | None = None
    instances: Mapping[str, Present] = field(default_factory=dict)
    retired: Mapping[str, Found | None] = field(default_factory=dict)


def read(desired: Desired) -> Current:
    """What a plan needs of the host.

    Raises HostFailed.
    """
    shared = [entry.path for entry in (*shared_directories(desired), *shared_files(desired))]
    links = [path for name in desired.retired for path in [linked(desired.layout(name))] if path]
    return Current(
        found={path: files.read(path) for path in shared},
        installed=versions.read(any_layout(desired), desired.program.version),
        user=user_comment(desired.user),
        instances={one.name: _present(desired, one) for one in desired.instances},
        retired={path: files.read(path) for path in links},
    )


def _present(desired: Desired, one: Instance) -> Present:
    layout = desired.layout(one.name)
    textfile = linked(layout)
    wanted = (*directories(desired, one), *instance_files(desired, one, None, None), *exported(desired, one, None))
    paths = {*(entry.path for entry in wanted), layout.agent_file, layout.registration}
    collectors_now = [os.path.join(layout.collectors, name) for name in sorted(listed(layout.collectors))]
    stray = [path for path in collectors_now if path not in paths and path.endswith(".sql")]
    found = {path: files.read(path) for path in [*paths, *stray, layout.passfile, *filter(None, [textfile])]}
    return Present(
        found=found,
        stray_collectors=tuple(stray),
        misowned=tuple(_misowned(layout.state, desired.owners[1])),
        textfile=textfile,
        drawn=None if found.get(layout.passfile) else secrets.token_urlsafe(32),
    )


def linked(layout: Layout) -> str:
    """The link for node_exporter that the installed configuration tells of; '' where none is there, or not ours.

    Raises HostFailed.
    """
    present = configured(layout)
    path = layout.textfile(present.textfile_directory) if present and present.textfile_directory else ""
    link = files.read(path) if path else None
    return path if link and link.to == layout.exported else ""


def configured(layout: Layout) -> Configuration | None:
    """The installed configuration; None where there is none that can be understood.

    Raises HostFailed.
    """
    present = files.read(layout.agent_file)
    try:
        return parse(present.content.decode(), layout.agent_file) if present else None
    except (InvalidInput, ValueError):
        return None


def listed(folder: str) -> list[str]:
    """Names in a directory; none where it is not there.

    Raises HostFailed.
    """
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise files.failure(error, f"{folder} cannot be read") from error


def _misowned(folder: str, user: str | None) -> list[str]:
    """The files of the agent's state that another user owns, as after the agent got another one."""
    if user is None:
        return []
    paths = [os.path.join(folder, name) for name in sorted(listed(folder))]
    return [path for path in paths if _is_anothers(path, user)]


def _is_anothers(path: str, user: str) -> bool:
    """Whether a file belongs to another user. One that has other names, too, is not the agent's."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise files.failure(error, f"{path} cannot be read") from error
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and files.user_name(found.st_uid) != user


def user_comment(user: str) -> str | None:
    """The comment of an operating system's user; None where there is no such user."""
    try:
        return pwd.getpwnam(user).pw_gecos
    except KeyError:
        return None


def instances(configurations: str) -> Sequence[str]:
    """The instances that have a configuration below a directory.

    Raises HostFailed.
    """
    return sorted(listed(configurations))
