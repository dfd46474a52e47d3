# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Settings put into force all together, or not at all: written, reloaded, restarted where need be, probed, and put
back where the server does not take them or does not come up."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

from ..errors import HostFailed, PgOpsError, SettingsRefused
from ..host import files
from ..host.files import Directory, File
from ..instance.layout import Layout
from ..plan import HostChange
from ..server import discovery, service
from ..server.service import Service
from ..server.session import Session, connect
from ..server.target import Target
from . import autoconf, journal, originals
from . import present as configured
from .journal import Journal
from .parameters import LISTS, elements
from .planning import HIDDEN, SettingsPlan
from .present import Current, same
from .writing import Setting, alter

PATIENCE = 30
"""Seconds until a server must have read its files again, or take connections after its start."""

FROM_FILES = ("configuration file", "default")
"""Where a value comes from that this session sees as the server has it, and not as a role or database has its own."""

DISABLED = "(disabled)"
"""What the server shows of archive_command while archive_mode is off, whatever it is (show_archive_command)."""

SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"


@dataclass(frozen=True)
class Scene:
    """Where a transaction happens. ``layout`` None keeps nothing on the host; ``service`` None is a server that is
    not restarted."""

    target: Target
    capability: str
    layout: Layout | None = None
    service: Service | None = None


def sessions(session: Session) -> int:
    """How many other clients' sessions a restart would end."""
    return int(session.value(SESSIONS))


def apply(scene: Scene, session: Session, current: Current, made: SettingsPlan, formers: originals.Formers) -> None:
    """Carry a plan out; ``formers`` is what is known afterwards of what was there before.

    Raises SettingsRefused with the server's own words, after the former settings are in force again.
    """
    undone = Undo(scene, _journal(scene, current, made))
    undone.keep()
    marked = service.mark(scene.service, current.setting("log_directory")) if scene.service else None
    try:
        if scene.layout:
            originals.write(scene.layout.before, scene.capability, formers)
        for change in made.written:
            change.apply(session)
        reload(session)
        if made.restarts and scene.service:
            undone.restarting()
            for restart in made.restarts:
                restart.apply(session, scene.service)
        _probe(scene, made)
    except (PgOpsError, KeyboardInterrupt) as error:
        said = service.log_since(scene.service, marked) if scene.service and marked else ""
        undone.undo(_refused(made, error, said, "could not be put back"))
        raise _refused(made, error, said, "are in force again") from error
    undone.forget()


def _journal(scene: Scene, current: Current, made: SettingsPlan) -> Journal:
    """What to put back: as it was before a killed run that this one finishes, where there was one."""
    found = journal.read(scene.layout.journal) if scene.layout else None
    kept: originals.Formers = originals.read(scene.layout.before, scene.capability) if scene.layout else {}
    names = {setting.parameter.name for setting in made.settings}
    if made.restarts:
        names |= {str(one["name"]) for one in made.pending}
    values = {name: last_good(current, name) for name in sorted(names)}
    if found and found.capability == scene.capability:
        kept = found.formers
    return Journal({**values, **(found.values if found else {})}, scene.capability, kept, scene.service)


def last_good(current: Current, name: str) -> str | None:
    """The value in postgresql.auto.conf, or None for no line, with which the server is known to run.

    What waits for a restart there has never been tried.
    """
    present = current.automatic(name)
    found = current.running.get(name.lower())
    if found is None or not found.parameter.restarts or same(found.parameter, current.configured(name), found.value):
        return present
    other = current.entry(name, automatic=False)
    below = other.value if other else found.default
    return None if same(found.parameter, below, found.value) else found.parameter.human(found.value)


def _refused(made: SettingsPlan, error: BaseException, said: str, former: str) -> PgOpsError:
    values = {change.setting.parameter.name: change.after for change in made.written}
    settings = ", ".join(f"{name} = {value}" for name, value in values.items()) or "its settings"
    hidden = [name for name, value in values.items() if value == HIDDEN]
    lines = [line for line in said.splitlines() if not any(name in line for name in hidden)]
    words = " The server says:\n" + "\n".join(lines) if lines else ""
    return SettingsRefused(
        f"The server does not run with {settings}: {error} The former settings {former}.{words}",
        "Correct the value and run this again.",
    )


# --- carrying out


def reload(session: Session) -> None:
    """Have the server read its files again, and wait until this session has.

    Raises HostFailed where it does not.
    """
    loaded = session.value("SELECT pg_conf_load_time()")
    session.value("SELECT pg_reload_conf()")
    deadline = time.monotonic() + PATIENCE
    while session.value("SELECT pg_conf_load_time()") == loaded:
        if time.monotonic() > deadline:
            raise HostFailed(f"The server has not read its settings again within {PATIENCE} s.", "See its log.")
        time.sleep(0.02)


def _probe(scene: Scene, made: SettingsPlan) -> None:
    """Raises HostFailed where the server does not answer, and SettingsRefused where it runs with another value."""
    names = [setting.parameter.name for setting in made.settings]
    with answering(scene) as session:
        now = configured.read(session, names, {})
        wrong = [words for setting in made.settings for words in _other_value(now, setting, bool(made.restarts))]
    if wrong:
        raise SettingsRefused(f"{'; '.join(wrong)}.")


def _other_value(now: Current, setting: Setting, restarted: bool) -> list[str]:
    name = setting.parameter.name
    found = now.running.get(name.lower())
    if setting.text is None:
        return []
    if found is None:
        return [f"it has no parameter {name}"]
    entry = now.entry(name)
    if found.value == DISABLED:
        return []
    waits = found.parameter.restarts and not restarted
    if entry is not None and entry.error and not found.pending:
        return [f"{entry.file}, line {entry.line}: {name}: {entry.error}"]
    if waits or found.source not in FROM_FILES or same(found.parameter, found.value, setting.text):
        return []
    return [f"{name} is {found.parameter.human(found.value)} still"]


def answering(scene: Scene) -> Session:
    """A session with the server where it listens now: its port may be another since.

    A server that recovers is waited for as long as a start may take. Raises the last error where it takes no
    connections in time.
    """
    began = time.monotonic()
    deadline = began + PATIENCE
    while True:
        try:
            return connect(_now(scene))
        except PgOpsError:
            now = time.monotonic()
            if scene.service and discovery.starting(scene.service.data_directory):
                deadline = min(now + PATIENCE, began + service.LONGEST_START)
            if now > deadline:
                raise
            time.sleep(0.1)


def _now(scene: Scene) -> Target:
    at = discovery.listening_at(scene.service.data_directory) if scene.service else None
    if at is None or not scene.target.local:
        return scene.target
    return replace(scene.target, port=str(at[0]), host=at[1])


# --- putting back


@dataclass
class Undo:
    """What puts the former settings back, however far the transaction came."""

    scene: Scene
    journal: Journal

    def keep(self) -> None:
        """Write down what to put back before anything is changed."""
        if self.scene.layout:
            files.apply([Directory(self.scene.layout.data, 0o755)])
            journal.write(self.scene.layout.journal, self.journal)

    def restarting(self) -> None:
        """Note that from now on the server may be down."""
        self.journal = replace(self.journal, restarting=True)
        self.keep()

    def forget(self) -> None:
        """All is well: nothing is to be put back."""
        if self.scene.layout:
            files.discard(self.scene.layout.journal)

    def undo(self, otherwise: PgOpsError) -> None:
        """Put the former settings back, and have the server run with them.

        Raises SettingsRefused, with what is said ``otherwise``, where that is not possible; then the journal stays
        for the next run.
        """
        try:
            if self.journal.restarting and self.journal.service:
                put_back(self.journal.service, self.journal.values)
                answering(self.scene).close()
            else:
                with answering(self.scene) as session:
                    _unwrite(session, self.journal.values)
            if self.scene.layout:
                originals.write(self.scene.layout.before, self.journal.capability, self.journal.formers)
        except PgOpsError as error:
            raise SettingsRefused(
                f"{otherwise.message} Putting them back: {error}",
                "See the server's log and the end of its postgresql.auto.conf; then run this again.",
            ) from error
        self.forget()


def _unwrite(session: Session, values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        words = elements(value) if value and LISTS.get(name.lower()) else None
        session.execute(alter(name, value, words))
    reload(session)


def put_back(found: Service, values: Mapping[str, str | None]) -> None:
    """Put values back into postgresql.auto.conf, and start the server with them, whether it runs or not.

    Raises HostFailed.
    """
    path = os.path.join(found.data_directory, autoconf.NAME)
    present = files.read(path)
    if present is None or present.kind != "file":
        raise HostFailed(f"{path} is not there, or no file.", "Is the data directory mounted?")
    text = autoconf.replaced(present.content.decode("utf-8", "surrogateescape"), values)
    content = text.encode("utf-8", "surrogateescape")
    files.apply([File(path, content, present.mode, present.owner, present.group)])
    service.restart(found)


@dataclass(frozen=True)
class Repair(HostChange):
    """What a killed run has left is put back, and the server started that it has stopped."""

    verb: ClassVar[str] = "start"

    layout: Layout = field(repr=False, compare=False)
    journal: Journal = field(repr=False, compare=False)
    service: Service = field(repr=False, compare=False)

    def apply(self) -> None:
        """The journal goes last: until then the next run finds it."""
        put_back(self.service, self.journal.values)
        originals.write(self.layout.before, self.journal.capability, self.journal.formers)
        files.discard(self.layout.journal)


def interrupted(layout: Layout) -> tuple[Repair, ...]:
    """The start of a server that a killed run has left stopped, as a change; none where there is no such server.

    Raises HostFailed.
    """
    found = journal.read(layout.journal)
    if found is None or found.service is None or not found.restarting:
        return ()
    if discovery.postmaster(found.service.data_directory) is not None:
        return ()
    before_it = {"state": "stopped by a run that was killed while it changed settings"}
    after_it = {"state": "running with its former settings"}
    return (Repair("server", before_it, after_it, layout, found, found.service),)
