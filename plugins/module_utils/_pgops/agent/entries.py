# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The agent's files, directories and links as they are to be. Pure."""

from __future__ import annotations

import os

from .. import secrecy
from ..host.files import Directory, Entry, File, Found, Link
from ..instance import passfile as credentials
from ..instance.layout import Layout
from .declared import Desired, Instance
from .program import Executable


def any_layout(desired: Desired) -> Layout:
    """The paths that all instances of a host share."""
    return Layout("any", desired.prefix)


def shared_directories(desired: Desired) -> list[Entry]:
    """The directories that all instances share."""
    root, layout = desired.owners[0], any_layout(desired)
    paths = [layout.library, layout.versions, layout.configurations, os.path.dirname(layout.data)]
    if layout.prefix != "/":
        paths.append(os.path.dirname(layout.command))
    return [Directory(path, 0o755, root, root) for path in paths]


def shared_files(desired: Desired) -> list[Entry]:
    """The files and links that all instances share; the link that switches to the version is among the last."""
    root, layout = desired.owners[0], any_layout(desired)
    archiver = Executable(
        layout.archiver, desired.archiver, 0o755, root, root, users=desired.archiving, trial=("check",)
    )
    return [
        *([archiver] if desired.archiver else []),
        Link(layout.current, os.path.join("versions", desired.program.version)),
        Link(layout.command, layout.launcher),
    ]


def directories(desired: Desired, one: Instance) -> list[Entry]:
    """The directories of an instance."""
    (root, user, group), layout = desired.owners, desired.layout(one.name)
    entries: list[Entry] = [
        Directory(layout.configuration, 0o755, root, root),
        Directory(layout.collectors, 0o750, root, group),
        Directory(layout.data, 0o755, root, root),
        Directory(layout.state, 0o750, user, group),
    ]
    if one.owner:
        owner, owner_group = (one.owner, one.owner_group) if root else (None, None)
        entries.append(Directory(layout.keeping, 0o750, owner, owner_group))
        entries.append(Directory(layout.inspection, 0o750, owner, group))
    return entries


def instance_files(desired: Desired, one: Instance, passfile: Found | None, drawn: str | None) -> list[Entry]:
    """The files of an instance but its configuration. ``passfile`` is the present one: without a new password it
    keeps its content. ``drawn`` is the password of a remote instance that has none."""
    (root, user, group), layout, settings = desired.owners, desired.layout(one.name), one.configuration
    entries: list[Entry] = [
        File(
            os.path.join(layout.collectors, f"{own.name}.sql"),
            text.encode(),
            0o640,
            root,
            group,
            secrecy.mentioned(text),
        )
        for own, text in zip(desired.own_collectors, desired.collectors)
    ]
    kept = credentials.password(passfile.content.decode()) if passfile else None
    password = next(
        (word for word in (one.password, kept, drawn if settings.host else None) if word is not None), None
    )
    if password is not None:
        # Nodes reach each other's ops database only; a remote instance has all its databases looked at.
        database = "" if settings.host else settings.database
        secret = credentials.passfile(database, settings.role, password).encode()
        entries.append(File(layout.passfile, secret, 0o600, user, group, secret=True))
    return entries


def registration(desired: Desired, one: Instance, present: Found | None) -> list[Entry]:
    """What tells the program that archives that this instance may: a copy of a data directory, which has the
    archive_command of its original, may not.

    The repositories of the ``present`` file stay: the server archives into one of them until its settings change.
    """
    root, layout, settings = desired.owners[0], desired.layout(one.name), one.configuration
    if not settings.repository or not settings.data_directory:
        return []
    _data, *known = present.content.decode("utf-8", "surrogateescape").splitlines() if present else [""]
    repositories = dict.fromkeys([settings.repository, *known])
    text = "".join(f"{line}\n" for line in (settings.data_directory, *repositories))
    return [File(layout.registration, text.encode("utf-8", "surrogateescape"), 0o644, root, root)]


def configuration_file(desired: Desired, one: Instance) -> File:
    """The configuration of an instance. Also the server's user reads it, for its jobs."""
    root = desired.owners[0]
    return File(desired.layout(one.name).agent_file, one.configuration.text().encode(), 0o644, root, root)


def exported(desired: Desired, one: Instance, present: Found | None) -> list[Entry]:
    """What node_exporter reads. Its directory is root's, and the agent is not: it writes to one of its own, to which
    a link leads. node_exporter takes a link to nothing for an error, hence an empty file at first.

    ``present`` is the present file, which keeps its content.
    """
    folder = one.configuration.textfile_directory
    if not folder:
        return []
    (_root, user, group), layout = desired.owners, desired.layout(one.name)
    return [
        Directory(layout.export, 0o755, user, group),
        File(layout.exported, present.content if present else b"", 0o644, user, group),
        Link(layout.textfile(folder), layout.exported),
    ]
