# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The agent on a host: its versions, its user, and the configuration of each instance."""

from __future__ import annotations

import contextlib
import grp
import hashlib
import importlib.util
import json
import os
import pwd
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from . import collectors, commands, credentials, files, target
from .configuration import Configuration, Peer
from .errors import DriverMissing, HostFailed, InvalidInput
from .files import Directory, Entry, File, Found, Link
from .layout import Layout
from .plan import Change, Plan, changes
from .sources import Sources, below, gather, unpack
from .version import VERSION

USER_COMMENT = "pgops.fleet agent"
USERADD = (
    *("useradd", "--system", "--user-group", "--no-create-home"),
    *("--shell", "/usr/sbin/nologin", "--comment", USER_COMMENT),
)
KEPT_VERSIONS = 2
"""The one in use and the one before, which a run that began before the switch may still be reading."""

NOT_THE_AGENTS = ("reporting.py",)
"""Library files that only modules use: they import Ansible."""

LAUNCHER = """#!{python} -I
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from pgops.cli import main

sys.exit(main())
"""


@dataclass(frozen=True)
class Desired:
    """What the agent of an instance is to be."""

    configuration: Configuration
    sources: Sources = field(repr=False)
    user: str = "pgops"
    group: str = "pgops"
    python: str = sys.executable
    password: str | None = field(default=None, repr=False)
    collectors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Current:
    """What is there. ``versions`` maps an installed version to the SHA-256 of its files; ``newest_first`` are their
    names; ``user`` is the comment of the operating system's user, or None."""

    found: Mapping[str, Found | None]
    versions: Mapping[str, str] = field(default_factory=dict)
    newest_first: tuple[str, ...] = ()
    user: str | None = None
    instances: tuple[str, ...] = ()
    stray_collectors: tuple[str, ...] = ()


def program(desired: Desired) -> dict[str, str]:
    """The files of one version of the agent, by their path below its directory."""
    library = {path: text for path, text in desired.sources.items() if path not in NOT_THE_AGENTS}
    launcher = LAUNCHER.format(python=desired.python)
    return {**{f"pgops/{path}": text for path, text in library.items()}, "bin/pgops": launcher}


def digest(program_files: Mapping[str, str]) -> str:
    """SHA-256 over names and texts."""
    return hashlib.sha256(json.dumps(dict(program_files), sort_keys=True).encode()).hexdigest()


def version_name(program_files: Mapping[str, str]) -> str:
    """The directory's name: another for every content, so that no file ever changes under a run."""
    return f"{VERSION}-{digest(program_files)[:12]}"


# --- reading


def read(layout: Layout, desired: Desired) -> Current:
    """What a plan needs of the host.

    Raises HostFailed.
    """
    entries = wanted(layout, desired, version_name(program(desired)))
    paths = [entry.path for entry in entries]
    shipped = {entry.path for entry in entries}
    present = sorted(gather(layout.collectors, (".sql",)))
    stray = [path for path in (os.path.join(layout.collectors, name) for name in present) if path not in shipped]
    versions = _versions(layout)
    return Current(
        found={path: files.read(path) for path in [*paths, *stray, layout.passfile]},
        versions={name: digest(_installed(layout, name)) for name in versions},
        newest_first=tuple(versions),
        user=user_comment(desired.user),
        instances=tuple(instances(layout)),
        stray_collectors=tuple(stray),
    )


def _versions(layout: Layout) -> list[str]:
    """Installed versions, the one switched to last first; what a killed run left half made is not among them."""
    folder = os.path.join(layout.library, "versions")
    if not os.path.isdir(folder):
        return []
    names = [name for name in os.listdir(folder) if not name.startswith(".")]
    return sorted(names, key=lambda name: os.stat(os.path.join(folder, name)).st_mtime, reverse=True)


def _installed(layout: Layout, name: str) -> dict[str, str]:
    return gather(os.path.join(layout.library, "versions", name), (".py", ".sql", "bin/pgops", "pgops"))


def user_comment(user: str) -> str | None:
    """The comment of an operating system's user; None where there is no such user."""
    try:
        return pwd.getpwnam(user).pw_gecos
    except KeyError:
        return None


def primary_group(user: str) -> str:
    """The group of an operating system's user; one that is yet to be made gets a group of its own name."""
    try:
        return grp.getgrgid(pwd.getpwnam(user).pw_gid).gr_name
    except KeyError:
        return user


def instances(layout: Layout) -> list[str]:
    """The instances that have a configuration on this host."""
    folder = layout.configurations
    return sorted(os.listdir(folder)) if os.path.isdir(folder) else []


# --- planning


def wanted(layout: Layout, desired: Desired, version: str) -> list[Entry]:
    """Everything of the instance but the version itself, in the order in which it is made."""
    root, user, group = _owners(layout, desired)
    entries: list[Entry] = [
        Directory(layout.library, 0o755, root, root),
        Directory(os.path.join(layout.library, "versions"), 0o755, root, root),
        Directory(layout.configurations, 0o755, root, root),
        Directory(layout.configuration, 0o750, root, group),
        Directory(layout.collectors, 0o750, root, group),
        Directory(os.path.dirname(layout.data), 0o755, root, root),
        Directory(layout.data, 0o755, root, root),
        Directory(layout.state, 0o750, user, group),
    ]
    if layout.prefix != "/":
        entries.append(Directory(os.path.dirname(layout.command), 0o755, root, root))
    entries += [
        File(os.path.join(layout.collectors, f"{name}.sql"), text.encode(), 0o640, root, group)
        for name, text in named_collectors(desired)
    ]
    if desired.password is not None:
        settings = desired.configuration
        secret = credentials.passfile(settings.database, settings.role, desired.password).encode()
        entries.append(File(layout.passfile, secret, 0o600, user, group, secret=True))
    entries.append(File(layout.agent_file, desired.configuration.text().encode(), 0o640, root, group))
    entries.append(Link(layout.current, os.path.join("versions", version)))
    entries.append(Link(layout.command, layout.launcher))
    return entries


def _owners(layout: Layout, desired: Desired) -> tuple[str | None, str | None, str | None]:
    """Root's name, the agent's and its group's; without a host of its own (another prefix), all is whose it is."""
    return ("root", desired.user, desired.group) if layout.prefix == "/" else (None, None, None)


def named_collectors(desired: Desired) -> list[tuple[str, str]]:
    """The user's own collectors by name.

    Raises InvalidInput for one that cannot be read, or whose name or metric is taken.
    """
    parsed = [collectors.parse(text, f"collector {place}") for place, text in enumerate(desired.collectors, 1)]
    shipped = [collectors.parse(text, file) for file, text in below(desired.sources, "sql/collectors").items()]
    collectors.adjusted(collectors.joined(shipped, parsed), desired.configuration.collectors)
    return [(found.name, text) for found, text in zip(parsed, desired.collectors)]


def plan(layout: Layout, current: Current, desired: Desired) -> Plan:
    """What brings the agent to what is desired: user, directories, version, configuration, and the switch last."""
    program_files = program(desired)
    version = version_name(program_files)
    entries = wanted(layout, desired, version)
    found = dict(current.found)
    first = [entry for entry in entries if isinstance(entry, Directory)]
    rest = [entry for entry in entries if not isinstance(entry, Directory)]
    return changes(
        _user(layout, current, desired),
        files.plan(first, found),
        _version(layout, current, program_files, version),
        files.removal(current.stray_collectors, found),
        files.plan(rest, found),
        _outdated(layout, current, version),
    )


@dataclass(frozen=True)
class NewUser:
    """Step: make the operating system's user."""

    name: str
    home: str


@dataclass(frozen=True)
class NewVersion:
    """Step: write a version's files, compile and try them, and move them into place at once."""

    path: str
    files: Mapping[str, str] = field(repr=False)


def _user(layout: Layout, current: Current, desired: Desired) -> tuple[Change, ...]:
    if current.user is not None or layout.prefix != "/":
        return ()
    step = NewUser(desired.user, os.path.dirname(layout.data))
    return (Change(f"user {desired.user}", None, {"system": True, "shell": "/usr/sbin/nologin"}, step),)


def _version(layout: Layout, current: Current, program_files: Mapping[str, str], version: str) -> tuple[Change, ...]:
    present = current.versions.get(version)
    wanted_digest = digest(program_files)
    if present == wanted_digest:
        return ()
    step = NewVersion(os.path.join(layout.library, "versions", version), program_files)
    before = {"sha256": present, "state": "edited by hand"} if present else None
    return (Change(f"agent {version}", before, {"sha256": wanted_digest, "state": "as shipped"}, step),)


def _outdated(layout: Layout, current: Current, version: str) -> tuple[Change, ...]:
    others = [name for name in current.newest_first if name != version]
    return tuple(
        Change(f"agent {name}", {"state": "installed"}, None, os.path.join(layout.library, "versions", name))
        for name in others[KEPT_VERSIONS - 1 :]
    )


# --- applying


def apply(made: Plan) -> None:
    """Carry a plan out in its order.

    Raises HostFailed; the agent in use is switched only after all else is in place.
    """
    for change in made:
        if isinstance(change.step, NewUser):
            commands.run([*USERADD, "--home-dir", change.step.home, change.step.name])
        elif isinstance(change.step, NewVersion):
            install(change.step)
        else:
            files.apply([change.step])


def install(step: NewVersion) -> None:
    """Write, compile, try, and rename a version into place.

    Raises HostFailed with nothing left behind.
    """
    folder = os.path.dirname(step.path)
    try:
        temporary = tempfile.mkdtemp(prefix=".new-", dir=folder)
    except OSError as error:
        raise files.failure(error, f"{folder} cannot be written") from error
    try:
        _fill(temporary, step.files)
        launcher = os.path.join(temporary, "bin", "pgops")
        python = step.files["bin/pgops"].splitlines()[0][2:].split()[0]
        commands.run([python, "-I", "-m", "compileall", "-q", temporary])
        commands.run([launcher, "version"])
        files.remove(step.path)
        os.rename(temporary, step.path)
        files.sync_directory(folder)
    except OSError as error:
        raise files.failure(error, f"{step.path} cannot be written") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _fill(folder: str, program_files: Mapping[str, str]) -> None:
    with files.umask(0o022):
        os.chmod(folder, 0o755)  # noqa: S103 - every user may run the command
        for path, text in program_files.items():
            target = os.path.join(folder, path)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            files.write(File(target, text.encode(), 0o755 if path == "bin/pgops" else 0o644))


# --- removal


def removal(layout: Layout, user: str) -> Plan:
    """What takes the instance away, and with the last instance of a host the agent itself and its user."""
    paths = [layout.configuration, layout.data]
    others = [name for name in instances(layout) if name != layout.instance]
    if not others:
        paths += [layout.configurations, os.path.dirname(layout.data), layout.command, layout.library]
    gone = files.removal(paths, {path: files.read(path) for path in paths})
    made_here = not others and layout.prefix == "/" and user_comment(user) == USER_COMMENT
    last = (Change(f"user {user}", {"system": True}, None, OldUser(user)),) if made_here else ()
    return changes(gone, last)


@dataclass(frozen=True)
class OldUser:
    """Step: remove the operating system's user that we made."""

    name: str


def remove(made: Plan) -> None:
    """Carry a removal out."""
    for change in made:
        if isinstance(change.step, OldUser):
            commands.run(["userdel", change.step.name])
        else:
            files.apply([change.step])


# --- all of it


@contextlib.contextmanager
def alone(layout: Layout) -> Iterator[None]:
    """Keep other runs on this host out.

    Raises Busy, HostFailed.
    """
    folder = "/run/lock" if layout.prefix == "/" else layout.prefix
    if not os.path.isdir(folder):
        raise HostFailed(f"{folder} is no directory.", "Create it, or give another prefix.")
    with files.exclusive(os.path.join(folder, "pgops.lock"), seconds=60):
        yield


def desired(params: Mapping[str, Any]) -> Desired:
    """What a module's arguments ask for.

    Raises InvalidInput.
    """
    peers = tuple(Peer(str(peer["host"]), int(peer["port"])) for peer in params["peers"])
    return Desired(
        configuration=Configuration(
            instance=params["instance"],
            cluster=params["cluster"],
            node=params["node"],
            port=params["port"],
            socket_directory=params["socket_directory"],
            database=params["database"],
            peers=peers,
            ssl_mode=params["ssl_mode"],
            ca_cert=params["ca_cert"] or "",
            collectors=checked_settings(params["collector_settings"]),
        ),
        sources=unpack(params["sources"]),
        user=params["user"],
        group=primary_group(params["user"]),
        python=params["python"] or sys.executable,
        password=params["password"],
        collectors=tuple(params["collectors"]),
    )


def checked_settings(given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The settings of collectors, typed.

    Raises InvalidInput.
    """
    checked: dict[str, dict[str, Any]] = {}
    for name, settings in given.items():
        if not isinstance(settings, dict) or set(settings) - {"interval", "timeout", "enabled"}:
            raise InvalidInput(f"The settings of collector {name} must be a mapping with interval, timeout, enabled.")
        types = {"interval": int, "timeout": float, "enabled": bool}
        try:
            checked[name] = {key: types[key](value) for key, value in settings.items()}
        except (TypeError, ValueError):
            raise InvalidInput(f"The settings of collector {name} are not numbers: {settings}.") from None
    return checked


def converge(params: Mapping[str, Any], check_mode: bool) -> dict[str, Any]:
    """Read, plan, and unless in check mode apply; what pg_ops_agent returns."""
    layout = Layout(params["instance"], params["prefix"])
    if params["state"] == "absent":
        made = removal(layout, params["user"])
        if made and not check_mode:
            with alone(layout):
                remove(made)
        return made.result()
    wish = desired(params)
    missing = driver_missing(wish.python)
    if missing and not check_mode:
        raise DriverMissing(missing, target.DRIVER_HINT)
    made = plan(layout, read(layout, wish), wish)
    if made and not check_mode:
        with alone(layout):
            made = plan(layout, read(layout, wish), wish)
            apply(made)
    return {**made.result(), "version": version_name(program(wish))}


def driver_missing(python: str) -> str:
    """Why the agent's Python cannot import psycopg 3; empty where it can."""
    if os.path.realpath(python) == os.path.realpath(sys.executable):
        # Not imported: the agent's jobs will, and it takes as long as the rest of this module.
        return "" if importlib.util.find_spec("psycopg") else f"{python} has no psycopg 3."
    try:
        commands.run([python, "-I", "-c", "import psycopg"])
    except HostFailed as error:
        return f"{python} cannot import psycopg 3: {error}"
    return ""
