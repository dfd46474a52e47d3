# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The agent on a host: its versions, its user, and the configuration of each instance."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import pwd
import secrets
import site
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import Conflict, DriverMissing, HostFailed, InvalidInput, LoginRefused
from ..host import commands, files
from ..host.files import Directory, Entry, File, Found, Link
from ..instance import endpoints
from ..instance import passfile as credentials
from ..instance.configuration import Configuration, Peer, parse
from ..instance.layout import Layout
from ..metrics import collectors
from ..plan import Change, Plan, changes
from ..server import discovery, disks, target
from ..settings import originals
from ..sources import Sources, below, unpack
from . import program as versions
from .program import Installed, NewVersion, OldVersion, Program

USER_COMMENT = "pgops.fleet agent"
USERADD = (
    *("useradd", "--system", "--user-group", "--no-create-home"),
    *("--shell", "/usr/sbin/nologin", "--comment", USER_COMMENT),
)


@dataclass(frozen=True)
class Desired:
    """What the agent of an instance is to be. ``keeper`` is the operating system's user that runs the server, and the
    jobs that need it."""

    configuration: Configuration
    sources: Sources = field(repr=False)
    user: str = "pgops"
    group: str = "pgops"
    python: str = sys.executable
    password: str | None = field(default=None, repr=False)
    collectors: tuple[str, ...] = ()
    keeper: str = ""

    @property
    def program(self) -> Program:
        """The agent's program as this version of the collection ships it."""
        return versions.program(self.sources, self.python)


@dataclass(frozen=True)
class Current:
    """What is there. ``user`` is the comment of the operating system's user, or None; ``stray_collectors`` and
    ``misowned`` are paths: the user's collectors that are wanted no more, and files of another user in the state.
    ``textfile`` is our link for node_exporter, '' where there is none."""

    found: Mapping[str, Found | None]
    installed: Installed = field(default_factory=Installed)
    user: str | None = None
    stray_collectors: tuple[str, ...] = ()
    misowned: tuple[str, ...] = ()
    textfile: str = ""


# --- reading


def read(layout: Layout, desired: Desired) -> Current:
    """What a plan needs of the host.

    Raises HostFailed.
    """
    version = desired.program.version
    textfile = linked(layout)
    paths = {entry.path for entry in [*wanted(layout, desired, version, None), *exported(layout, desired, None)]}
    collectors_now = [os.path.join(layout.collectors, name) for name in sorted(listed(layout.collectors))]
    stray = [path for path in collectors_now if path not in paths and path.endswith(".sql")]
    found = {path: files.read(path) for path in [*paths, *stray, layout.passfile, *filter(None, [textfile])]}
    return Current(
        found=found,
        installed=versions.read(layout, version),
        user=user_comment(desired.user),
        stray_collectors=tuple(stray),
        misowned=tuple(_misowned(layout.state, _owners(layout, desired)[1])),
        textfile=textfile,
    )


def linked(layout: Layout) -> str:
    """The link for node_exporter that the installed configuration tells of; '' where none is there, or not ours.

    Raises HostFailed.
    """
    present = _configured(layout)
    path = layout.textfile(present.textfile_directory) if present and present.textfile_directory else ""
    link = files.read(path) if path else None
    return path if link and link.to == layout.exported else ""


def _configured(layout: Layout) -> Configuration | None:
    """The installed configuration; None where there is none that can be understood."""
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
    return [path for path in paths for found in [files.read(path)] if found is not None and found.owner != user]


def user_comment(user: str) -> str | None:
    """The comment of an operating system's user; None where there is no such user."""
    try:
        return pwd.getpwnam(user).pw_gecos
    except KeyError:
        return None


def primary_group(user: str) -> str:
    """The group of an operating system's user, its number where it has no name; a user that is yet to be made gets
    a group of its own name."""
    try:
        number = pwd.getpwnam(user).pw_gid
    except KeyError:
        return user
    return files.group_name(number)


def instances(layout: Layout) -> list[str]:
    """The instances that have a configuration on this host."""
    return sorted(listed(layout.configurations))


# --- planning


def wanted(layout: Layout, desired: Desired, version: str, passfile: Found | None) -> list[Entry]:
    """Everything of the instance but the version itself, in the order in which it is made.

    ``passfile`` is the present one: without a new password it keeps its content.
    """
    root, user, group = _owners(layout, desired)
    entries: list[Entry] = [
        Directory(layout.library, 0o755, root, root),
        Directory(layout.versions, 0o755, root, root),
        Directory(layout.configurations, 0o755, root, root),
        Directory(layout.configuration, 0o755, root, root),
        Directory(layout.collectors, 0o750, root, group),
        Directory(os.path.dirname(layout.data), 0o755, root, root),
        Directory(layout.data, 0o755, root, root),
        Directory(layout.state, 0o750, user, group),
    ]
    if desired.keeper:
        keeper = desired.keeper if root else None
        entries.append(Directory(layout.keeping, 0o750, keeper, primary_group(desired.keeper) if root else None))
        entries.append(Directory(layout.inspection, 0o750, keeper, group))
    if layout.prefix != "/":
        entries.append(Directory(os.path.dirname(layout.command), 0o755, root, root))
    entries += [
        File(os.path.join(layout.collectors, f"{name}.sql"), text.encode(), 0o640, root, group)
        for name, text in named_collectors(desired)
    ]
    settings, kept = desired.configuration, credentials.password(passfile.content.decode()) if passfile else None
    password = desired.password if desired.password is not None else kept
    if password is not None:
        # Nodes reach each other's ops database only; a remote instance has all its databases looked at.
        database = "" if settings.host else settings.database
        secret = credentials.passfile(database, settings.role, password).encode()
        entries.append(File(layout.passfile, secret, 0o600, user, group, secret=True))
    # Also the server's user reads it, for the jobs that keep the repository.
    entries.append(File(layout.agent_file, settings.text().encode(), 0o644, root, root))
    entries.append(Link(layout.current, os.path.join("versions", version)))
    entries.append(Link(layout.command, layout.launcher))
    return entries


def exported(layout: Layout, desired: Desired, present: Found | None) -> list[Entry]:
    """What node_exporter reads. Its directory is root's, and the agent is not: it writes to one of its own, to which
    a link leads. node_exporter takes a link to nothing for an error, hence an empty file at first.

    ``present`` is the present file, which keeps its content.
    """
    folder = desired.configuration.textfile_directory
    if not folder:
        return []
    _root, user, group = _owners(layout, desired)
    return [
        Directory(layout.export, 0o755, user, group),
        File(layout.exported, present.content if present else b"", 0o644, user, group),
        Link(layout.textfile(folder), layout.exported),
    ]


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
    """What brings the agent to what is desired: user, directories, version, configuration, and the switch last.

    Raises Conflict where something of somebody else's is in the way.
    """
    program = desired.program
    if desired.configuration.host and desired.password is None and not current.found.get(layout.passfile):
        desired = replace(desired, password=secrets.token_urlsafe(32))
    exporting = exported(layout, desired, current.found.get(layout.exported))
    entries = [*wanted(layout, desired, program.version, current.found.get(layout.passfile)), *exporting]
    _check_command(layout, current.found.get(layout.command))
    wanted_links = {entry.path for entry in exporting if isinstance(entry, Link)}
    for path in wanted_links:
        _check_textfile(layout, path, current.found.get(path))
    return changes(
        _user(layout, current, desired),
        files.plan((entry for entry in entries if isinstance(entry, Directory)), current.found),
        (_given(path, desired) for path in current.misowned),
        versions.plan(layout, current.installed, program),
        files.removal([*current.stray_collectors, *({current.textfile} - wanted_links)], current.found),
        files.plan((entry for entry in entries if not isinstance(entry, Directory)), current.found),
        versions.outdated(layout, current.installed, program.version),
    )


def _check_command(layout: Layout, present: Found | None) -> None:
    if present and present.to != layout.launcher:
        raise Conflict(f"{layout.command} is there already, and not of this collection.", "Move it out of the way.")


def _check_textfile(layout: Layout, path: str, present: Found | None) -> None:
    if present and present.to != layout.exported:
        raise Conflict(f"{path} is there already, and not of this collection.", "Move it out of the way.")


@dataclass(frozen=True)
class Given:
    """Step: give a file of the agent's state to its user."""

    path: str
    user: str
    group: str


def _given(path: str, desired: Desired) -> Change:
    step = Given(path, desired.user, desired.group)
    return Change(f"owner of {path}", {"owner": "another user"}, {"owner": desired.user}, step)


@dataclass(frozen=True)
class NewUser:
    """Step: make the operating system's user."""

    name: str
    home: str


def _user(layout: Layout, current: Current, desired: Desired) -> tuple[Change, ...]:
    if current.user is not None or layout.prefix != "/":
        return ()
    step = NewUser(desired.user, os.path.dirname(layout.data))
    return (Change(f"user {desired.user}", None, {"system": True, "shell": "/usr/sbin/nologin"}, step),)


# --- applying


def apply(made: Plan) -> None:
    """Carry a plan out in its order.

    Raises HostFailed; the agent in use is switched only after all else is in place.
    """
    for change in made:
        if isinstance(change.step, NewUser):
            commands.run([*USERADD, "--home-dir", change.step.home, change.step.name])
        elif isinstance(change.step, NewVersion):
            versions.install(change.step)
        elif isinstance(change.step, OldVersion):
            versions.remove(change.step)
        elif isinstance(change.step, Given):
            _give(change.step)
        elif callable(change.step):
            change.step()
        else:
            files.apply([change.step])


def _give(step: Given) -> None:
    try:
        files.own(step.path, step.user, step.group)
    except OSError as error:
        raise files.failure(error, f"{step.path} cannot be given to {step.user}") from error


# --- removal


def removal(layout: Layout, user: str, gone: Sequence[str] = ()) -> Plan:
    """What takes the instance away, and with the last instance of a host the agent itself and its user; ``gone`` are
    those that were removed by then."""
    # The link goes first: only the configuration tells of it.
    paths = [*filter(None, [linked(layout)]), layout.configuration, layout.data]
    left = {*instances(layout)} - {*gone}
    last = not left - {layout.instance} and bool(left or not gone)
    if last:
        paths += [layout.configurations, os.path.dirname(layout.data), layout.library]
        command = files.read(layout.command)
        paths += [layout.command] if command and command.to == layout.launcher else []
    made_here = last and layout.prefix == "/" and user_comment(user) == USER_COMMENT
    users = (Change(f"user {user}", {"system": True}, None, OldUser(user)),) if made_here else ()
    return changes(files.removal(paths, {path: files.read(path) for path in paths}), users)


@dataclass(frozen=True)
class OldUser:
    """Step: remove the operating system's user that we made."""

    name: str


def server_gone(layout: Layout, root: str = "/") -> bool:
    """Whether the instance's server exists no longer, as after pg_dropcluster: it is not found on the host, where one
    that is down is found too, and the data directory that the agent knew is not there. ``root`` is where the host's
    files begin.

    A data directory that may not be seen, or was never known, counts as there.
    """
    present = _configured(layout)
    known = present.real_paths if present else {}
    data = next((known[path] for path in known if os.path.join(path, "pg_wal") in known), None)
    if data is None or any(found.name == layout.instance for found in discovery.instances(root)):
        return False
    try:
        os.lstat(data)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        pass
    return False


def _forgotten(layout: Layout, check_mode: bool) -> tuple[str, ...]:
    """What a person should know of the settings that nobody can put back once the instance is removed.

    Raises Conflict where there still is a server to put them back on. Check mode only says so: it does not put them
    back either, which comes first in pgops.fleet.remove.
    """
    if not files.read(layout.before):
        return ()
    if server_gone(layout):
        names = ", ".join(originals.names(layout.before))
        return (f"The server of {layout.instance} is gone, and with it what was before it was set: {names}.",)
    holds = f"{layout.before} holds what server settings were before pgops.fleet changed them."
    if check_mode:
        return (f"{holds} A run refuses to remove it before they are put back, as pgops.fleet.remove does.",)
    raise Conflict(
        holds,
        "Put them back first: pgops.fleet.remove does, or pg_ops_settings, pg_ops_archiving and pg_ops_statements "
        "with state absent, of archive_command after a restart. "
        f"If its server is gone for good, delete {layout.before}.",
    )


def remove(made: Plan) -> None:
    """Carry a removal out."""
    for change in made:
        if isinstance(change.step, OldUser):
            commands.run(["userdel", change.step.name])
        else:
            files.apply([change.step])


# --- all of it


def desired(params: Mapping[str, Any]) -> Desired:
    """What a module's arguments ask for.

    Raises InvalidInput.
    """
    _check_place(params)
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
            collectors=collectors.checked_settings(params["collector_settings"]),
            repository=params["repository"] or "",
            superuser=params["superuser"],
            retention=collectors.checked_retention(params["metric_retention"]),
            query_texts=params["query_texts"],
            slow_query_ms=_milliseconds(params["slow_query_ms"]),
            explain=params["explain"],
            textfile_directory=_absolute(params["textfile_directory"] or ""),
            host=params["host"],
            passfile=Layout(params["instance"], params["prefix"]).passfile if params["host"] else "",
        ),
        sources=unpack(params["sources"]),
        user=params["user"],
        group=primary_group(params["user"]),
        python=_interpreter(params["python"] or sys.executable),
        password=params["password"],
        collectors=tuple(params["collectors"]),
        keeper="" if params["host"] else params["keeper"],
    )


def _check_place(params: Mapping[str, Any]) -> None:
    """Raises InvalidInput for a remote instance that cannot be meant, or that would send its data in the clear."""
    host = params["host"]
    if host.startswith("/") or "," in host:
        raise InvalidInput(f"{host!r} is no name of one host.", "A directory of sockets is the socket_directory.")
    if host and (params["socket_directory"] or params["repository"]):
        raise InvalidInput("A remote instance has neither a socket_directory nor a repository on this host.")
    if host and params["explain"]:
        raise InvalidInput("Of a remote instance no plans are made.", "Set explain to false.")
    if params["ssl_mode"] == "disable" and (not host or params["peers"]):
        raise InvalidInput("Only a remote instance without peers can do without TLS.", "Set another ssl_mode.")


def _absolute(folder: str) -> str:
    if folder and not os.path.isabs(folder):
        raise InvalidInput(f"The textfile directory {folder!r} is no absolute path.")
    return os.path.normpath(folder) if folder else ""


def _milliseconds(threshold: float) -> float:
    if not abs(threshold) <= 1e12:  # no number, too
        raise InvalidInput(f"slow_query_ms {threshold} is no number of milliseconds.")
    return threshold


def _interpreter(path: str) -> str:
    if not os.path.isabs(path) or any(character.isspace() for character in path):
        raise InvalidInput(f"The agent's Python {path!r} must be an absolute path without spaces.")
    return path


def converge(params: Mapping[str, Any], check_mode: bool) -> dict[str, Any]:
    """Read, plan, and unless in check mode apply; what pg_ops_agent returns."""
    layout = Layout(params["instance"], params["prefix"])
    # A run has found what it did for these before; check mode has to imagine it.
    earlier = params["after"] if check_mode else []
    if params["state"] == "absent":
        warnings = _forgotten(layout, check_mode)
        gone = _settle(layout, lambda: removal(layout, params["user"], earlier), remove, check_mode)
        return changes(gone, warnings=warnings).result()
    wish = _placed(layout, desired(params))
    missing = driver_missing(wish.python)
    if missing and not check_mode:
        raise DriverMissing(missing, target.DRIVER_HINT)
    warnings = _validated(layout, wish) if params["validate"] else ()
    made = _settle(layout, lambda: _planned(layout, wish, earlier), apply, check_mode)
    return {**changes(made, warnings=warnings).result(), "version": wish.program.version}


def _placed(layout: Layout, wish: Desired) -> Desired:
    """With where the server's directories really are, if they are on this host; where that is not to be seen, since
    it is down or a file system hangs, as they were."""
    settings = wish.configuration
    if settings.host:
        return wish
    present = _configured(layout)
    known = present.real_paths if present else {}
    seen = disks.real_paths(target.Target(settings.socket_directory, str(settings.port))) or known
    places = {path: real or known.get(path) for path, real in seen.items()}
    found = {path: real for path, real in places.items() if real}
    return replace(wish, configuration=replace(settings, real_paths=found))


def _validated(layout: Layout, wish: Desired) -> tuple[str, ...]:
    """Try the user's collectors on the server; what a person should know of them.

    Not where a killed run has left the server stopped, which is started later on: pg_ops_schema tries them then.

    Raises InvalidInput, Unreachable, DriverMissing.
    """
    if not wish.collectors or os.path.exists(layout.journal):
        return ()
    # Only now: it takes the driver along, which costs as much as all the rest.
    from ..metrics import trial
    from ..server.session import connect

    own = [collectors.parse(text, f"collector {place}") for place, text in enumerate(wish.collectors, 1)]
    settings = wish.configuration
    if settings.host:
        return _validated_afar(layout, wish, own)
    at = target.Target(
        settings.socket_directory, str(settings.port), settings.superuser, application_name="pgops deploy"
    )
    with connect(at) as session:
        return trial.validate(session, settings.database, own, trial.agent_at(at, wish.user))


def _validated_afar(layout: Layout, wish: Desired, own: list[collectors.Collector]) -> tuple[str, ...]:
    """Try them as the agent, once it is let in: until then they do not run, and pg_ops_schema tries them as well."""
    from ..metrics import trial
    from ..server.session import connect

    if not os.path.exists(layout.passfile):
        return ()
    try:
        with connect(endpoints.agent(wish.configuration, "deploy")) as session:
            return trial.validate(session, wish.configuration.database, own, session.target)
    except LoginRefused:
        return ()


def _planned(layout: Layout, wish: Desired, earlier: Sequence[str]) -> Plan:
    """Nothing can be done to a server that a killed run has left stopped, before it is started. What an ``earlier``
    instance of the host would get as well is done by then."""
    own = plan(layout, read(layout, wish), wish)
    shared: list[Change] = []
    for name in earlier:
        other = replace(layout, instance=name)
        with contextlib.suppress(Conflict):  # its own matter, which keeps it from anything
            shared += plan(other, read(other, wish), wish)
    return changes(_interrupted(layout), (change for change in own if change not in shared))


def _interrupted(layout: Layout) -> tuple[Change, ...]:
    if not os.path.exists(layout.journal):
        return ()
    # Only now: it takes the driver along, which costs as much as all the rest.
    from ..settings.transaction import interrupted, repair

    found = interrupted(layout)
    return tuple(replace(change, step=functools.partial(repair, change.step)) for change in found)


def _settle(layout: Layout, planned: Callable[[], Plan], carry_out: Callable[[Plan], None], check_mode: bool) -> Plan:
    """Plan, and carry out what is to be done; planned again once nobody else is at work on this host."""
    made = planned()
    if made and not check_mode:
        with files.exclusive(layout.lock, seconds=60):
            made = planned()
            carry_out(made)
    return made


def driver_missing(python: str) -> str:
    """Why the agent's Python cannot import psycopg 3; empty where it can."""
    if python == sys.executable:
        # Not imported: the agent's jobs will, and it takes as long as the rest of this module.
        found = importlib.util.find_spec("psycopg")
        if found and not str(found.origin).startswith(site.getusersitepackages()):
            return ""
    try:
        commands.run([python, "-I", "-c", "import psycopg"])
    except HostFailed as error:
        return f"{python} cannot import psycopg 3: {error}"
    return ""
