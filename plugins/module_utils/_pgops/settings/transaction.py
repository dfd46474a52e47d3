# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Apply settings all together, or not at all: write, reload, restart if needed, check, and restore the old ones if
the server rejects the new ones or does not come up."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

from ..errors import HostFailed, PgOpsError, SettingsRefused
from ..host import files
from ..host.files import Directory
from ..host.identity import as_user
from ..instance.layout import Layout
from ..plan import HostChange
from ..server import discovery, service
from ..server.service import Service
from ..server.session import Session, connect
from ..server.target import Target
from . import autoconf, journal, originals, present
from .journal import Journal
from .parameters import LISTS, elements
from .planning import HIDDEN, SettingsPlan
from .present import Current, same
from .writing import Setting, alter

WAIT_FOR_SERVER = 30
"""Seconds until a server must have reloaded its files, or accept connections after its start."""

FROM_FILES = ("configuration file", "default")
"""Sources of values that this session sees as the server has them, and not as set for a role or database."""

DISABLED = "(disabled)"
"""What the server shows for archive_command while archive_mode is off, whatever it is (show_archive_command)."""

SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"


@dataclass(frozen=True)
class Scene:
    """Where a transaction happens. With ``layout`` None nothing is recorded on the host; with ``service`` None the
    server is not restarted."""

    target: Target
    capability: str
    layout: Layout | None = None
    service: Service | None = None


def sessions(session: Session) -> int:
    """The number of other client sessions that a restart would end."""
    return int(session.value(SESSIONS))


def apply(
    scene: Scene, session: Session, current: Current, settings: SettingsPlan, recorded: originals.Originals
) -> None:
    """Carry a plan out; ``recorded`` are the originals to record.

    Raises SettingsRefused with the server's log lines, after the old settings were restored.
    """
    undo = Undo(scene, _journal(scene, current, settings))
    undo.record()
    marked = service.mark(scene.service, current.setting("log_directory")) if scene.service else None
    try:
        if scene.layout:
            originals.write(scene.layout.before, scene.capability, recorded)
        for change in settings.written:
            change.apply(session)
        reload(session)
        if settings.restarts and scene.service:
            undo.restarting()
            for restart in settings.restarts:
                restart.apply(session, scene.service)
        _check(scene, settings)
    except (PgOpsError, KeyboardInterrupt) as error:
        log = service.log_since(scene.service, marked) if scene.service and marked else ""
        undo.restore(_refused(settings, error, log, "could not be restored"))
        raise _refused(settings, error, log, "were restored") from error
    undo.discard()


def _journal(scene: Scene, current: Current, settings: SettingsPlan) -> Journal:
    """What to restore: the state before this run, or before a killed run that this one completes."""
    found = journal.read(scene.layout.journal) if scene.layout else None
    recorded: originals.Originals = originals.read(scene.layout.before, scene.capability) if scene.layout else {}
    names = {setting.parameter.name for setting in settings.settings}
    if settings.restarts:
        names |= {str(one["name"]) for one in settings.pending}
    values = {name: last_good(current, name) for name in sorted(names)}
    if found and found.capability == scene.capability:
        recorded = found.originals
    return Journal({**values, **(found.values if found else {})}, scene.capability, recorded, scene.service)


def last_good(current: Current, name: str) -> str | None:
    """The value in postgresql.auto.conf, or None for no line, with which the server is known to run.

    A value there that waits for a restart has never been tried.
    """
    automatic = current.automatic(name)
    found = current.running.get(name.lower())
    if found is None or not found.parameter.restarts or same(found.parameter, current.configured(name), found.value):
        return automatic
    other = current.entry(name, automatic=False)
    below = other.value if other else found.default
    return None if same(found.parameter, below, found.value) else found.parameter.human(found.value)


def _refused(settings: SettingsPlan, error: BaseException, log: str, outcome: str) -> PgOpsError:
    values = {change.setting.parameter.name: change.after for change in settings.written}
    named = ", ".join(f"{name} = {value}" for name, value in values.items()) or "its settings"
    hidden = [name for name, value in values.items() if value == HIDDEN]
    lines = [line for line in log.splitlines() if not any(name in line for name in hidden)]
    quoted = " From the server's log:\n" + "\n".join(lines) if lines else ""
    return SettingsRefused(
        f"The server does not run with {named}: {error} The old settings {outcome}.{quoted}",
        "Correct the value, then retry.",
    )


# --- carrying out


def reload(session: Session) -> None:
    """Reload the server, and wait until this session has the new values.

    Raises HostFailed if it does not get them.
    """
    loaded = session.value("SELECT pg_conf_load_time()")
    session.value("SELECT pg_reload_conf()")
    deadline = time.monotonic() + WAIT_FOR_SERVER
    while session.value("SELECT pg_conf_load_time()") == loaded:
        if time.monotonic() > deadline:
            raise HostFailed(
                f"The server did not reload its settings within {WAIT_FOR_SERVER} s.", "Look into its log."
            )
        time.sleep(0.02)


def _check(scene: Scene, settings: SettingsPlan) -> None:
    """Raises HostFailed if the server does not answer, and SettingsRefused if it runs with another value."""
    names = [setting.parameter.name for setting in settings.settings]
    with answering(scene) as session:
        now = present.read(session, names, {})
        restarted = bool(settings.restarts)
        wrong = [words for setting in settings.settings for words in _other_value(now, setting, restarted)]
    if wrong:
        raise SettingsRefused(f"{'; '.join(wrong)}.")


def _other_value(now: Current, setting: Setting, restarted: bool) -> list[str]:
    name = setting.parameter.name
    found = now.running.get(name.lower())
    if setting.text is None:
        return []
    if found is None:
        return [f"it has no setting {name}"]
    entry = now.entry(name)
    if found.value == DISABLED:
        return []
    waits = found.parameter.restarts and not restarted
    if entry is not None and entry.error and not found.pending:
        return [f"{entry.file}, line {entry.line}: {name}: {entry.error}"]
    if waits or found.source not in FROM_FILES or same(found.parameter, found.value, setting.text):
        return []
    return [f"{name} is still {found.parameter.human(found.value)}"]


def answering(scene: Scene) -> Session:
    """A session with the server where it listens now: its port may have changed.

    Waits for a server that recovers as long as a start may take. Raises the last error if it does not accept
    connections in time.
    """
    began = time.monotonic()
    deadline = began + WAIT_FOR_SERVER
    while True:
        try:
            return connect(_now(scene))
        except PgOpsError:
            now = time.monotonic()
            if scene.service and discovery.starting(scene.service.data_directory, scene.service.owner):
                deadline = min(now + WAIT_FOR_SERVER, began + service.LONGEST_START)
            if now > deadline:
                raise
            time.sleep(0.1)


def _now(scene: Scene) -> Target:
    found = scene.service
    at = discovery.listening_at(found.data_directory, found.owner) if found else None
    if at is None or not scene.target.local:
        return scene.target
    return replace(scene.target, port=str(at[0]), host=at[1])


# --- restoring


@dataclass
class Undo:
    """Restores the old settings, however far the transaction got."""

    scene: Scene
    journal: Journal

    def record(self) -> None:
        """Write the journal, before anything is changed."""
        if self.scene.layout:
            files.apply([Directory(self.scene.layout.data, 0o755)])
            journal.write(self.scene.layout.journal, self.journal)

    def restarting(self) -> None:
        """Note that from now on the server may be down."""
        self.journal = replace(self.journal, restarting=True)
        self.record()

    def discard(self) -> None:
        """The transaction is complete: delete the journal."""
        if self.scene.layout:
            files.discard(self.scene.layout.journal)

    def restore(self, otherwise: PgOpsError) -> None:
        """Restore the old settings, and have the server run with them.

        Raises SettingsRefused, with the message of ``otherwise``, if that is not possible; then the journal stays for
        the next run.
        """
        try:
            if self.journal.restarting and self.journal.service:
                restore(self.journal.service, self.journal.values)
                answering(self.scene).close()
            else:
                with answering(self.scene) as session:
                    _unwrite(session, self.journal.values)
            if self.scene.layout:
                originals.write(self.scene.layout.before, self.journal.capability, self.journal.originals)
        except PgOpsError as error:
            raise SettingsRefused(
                f"{otherwise.message} While restoring: {error}",
                "Look into the server's log and at the end of its postgresql.auto.conf, then retry.",
            ) from error
        self.discard()


def _unwrite(session: Session, values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        words = elements(value) if value and LISTS.get(name.lower()) else None
        session.execute(alter(name, value, words))
    reload(session)


def restore(found: Service, values: Mapping[str, str | None]) -> None:
    """Restore values in postgresql.auto.conf, and start the server with them, whether it runs or not.

    Raises HostFailed.
    """
    as_user(found.owner, lambda: _put_back(os.path.join(found.data_directory, autoconf.NAME), values))
    service.restart(found)


def _put_back(path: str, values: Mapping[str, str | None]) -> None:
    """As the server's user: it is that user's file, in a place where nobody else should write."""
    old = files.read(path)
    if old is None or old.kind != "file":
        raise HostFailed(f"{path} does not exist, or is not a file.", "Is the data directory mounted?")
    text = autoconf.replaced(old.content.decode("utf-8", "surrogateescape"), values)
    files.rewrite(path, old.content, text.encode("utf-8", "surrogateescape"))


@dataclass(frozen=True)
class Repair(HostChange):
    """The settings that a killed run changed are restored, and the server that it stopped is started."""

    verb: ClassVar[str] = "start"

    layout: Layout = field(repr=False, compare=False)
    journal: Journal = field(repr=False, compare=False)
    service: Service = field(repr=False, compare=False)

    def apply(self) -> None:
        """The journal is deleted last: until then the next run finds it."""
        restore(self.service, self.journal.values)
        originals.write(self.layout.before, self.journal.capability, self.journal.originals)
        files.discard(self.layout.journal)


def interrupted(layout: Layout) -> tuple[Repair, ...]:
    """The start of a server that a killed run has left stopped, as a change; none if there is no such server.

    Raises HostFailed.
    """
    found = journal.read(layout.journal)
    if found is None or found.service is None or not found.restarting:
        return ()
    if discovery.postmaster(found.service.data_directory, found.service.owner) is not None:
        return ()
    before_it = {"state": "stopped by a run that was killed"}
    after_it = {"state": "running with its old settings"}
    return (Repair("server", before_it, after_it, layout, found, found.service),)
