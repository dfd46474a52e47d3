# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Apply settings all together, or not at all: write, reload, restart if needed, check, and restore the old ones if
the server rejects the new ones or does not come up."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from .. import secrecy
from ..errors import HostFailed, PgOpsError, QueryFailed, SettingsRefused
from ..host import files
from ..host.files import Directory
from ..host.identity import as_user
from ..instance.layout import Layout
from ..plan import HostChange
from ..server import discovery, service, tls
from ..server.service import Service
from ..server.session import Session, connect
from ..server.target import Target
from . import autoconf, journal, originals, present, trial
from .journal import Journal
from .originals import Started
from .parameters import LISTS, elements, truth
from .planning import SettingsPlan
from .present import Current, Entry, Running, same
from .writing import Setting, SettingChange, alter, by_file

WAIT_FOR_SERVER = 30
"""Seconds until a server must have reloaded its files, or accept connections after its start."""

FROM_FILES = ("configuration file", "default")
"""Sources of values that this session sees as the server has them, and not as set for a role or database."""

DOWN = "The server is down: it does not start with its old settings either."
RUNS_ON = "The server runs on, but its old settings could not be restored."
HINT = "Look at the end of the server's postgresql.auto.conf, correct what is wrong, then retry."
AFTERWARDS = "Correct the settings, or what they name, then run this again: it starts the server."
EVERYWHERE = {"*": "localhost", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
BEGAN = "SELECT extract(epoch FROM pg_postmaster_start_time())"
NOT_USED = re.compile(
    r"(could not (load|open|access|read|set|create|parse)|invalid value|private key file|was not reloaded"
    r"|disabling automatic rotation)"
)
"""What a server logs that goes on without what a setting says (in English: in other languages it is not seen)."""

CLIENTS_OWN = re.compile(r"\bERROR:  |\bFATAL:  invalid value")
"""What is wrong with what a client asks for: of its own settings the server says LOG."""

DISABLED = "(disabled)"
"""What the server shows for archive_command while archive_mode is off, whatever it is (show_archive_command)."""

SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"


@dataclass(frozen=True)
class Scene:
    """Where a transaction happens. With ``layout`` None nothing is recorded on the host; with ``service`` None the
    server is not restarted, and nothing is read or written on its host."""

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
    undo = Undo(scene, _journal(scene, current, settings), session, _started(scene, session))
    try:
        undo.record()
    except HostFailed as error:
        raise HostFailed(f"{error.message} Nothing was changed.", error.hint) from error
    marked = service.mark(scene.service, current.setting("log_directory")) if scene.service else None
    try:
        if scene.layout:
            originals.write(scene.layout.before, scene.capability, recorded, undo.started)
        for change in settings.written:
            _write(scene, session, change)
            undo.wrote(change.setting.parameter.name)
        reload(session)
        if settings.restarts and scene.service:
            undo.restarting()
            for restart in settings.restarts:
                restart.apply(session, scene.service)
        _check(scene, settings, marked)
    except (PgOpsError, KeyboardInterrupt) as error:
        log = service.log_since(scene.service, marked) if scene.service and marked else ""
        outcome = undo.restore(_refused(settings, error, log, DOWN))
        raise _refused(settings, error, log, outcome) from error
    _record_start(scene, settings, recorded)
    undo.discard()


def _write(scene: Scene, session: Session, change: SettingChange) -> None:
    if change.setting.by_file and scene.service:
        written(scene.service, {change.setting.parameter.name: change.setting.text})
    else:
        change.apply(session)


def _started(scene: Scene, session: Session) -> Started | None:
    """With what the server has started, as far as it is known."""
    recorded = originals.last_start(scene.layout.before) if scene.layout else None
    if scene.service is None:
        return recorded
    found = trial.started(scene.service)
    return originals.after_start(recorded, float(session.value(BEGAN)), found["text"], found["changed"])


def _record_start(scene: Scene, settings: SettingsPlan, recorded: originals.Originals) -> None:
    if settings.restarts and scene.service and scene.layout:
        text = trial.started(scene.service)["text"]
        originals.write(scene.layout.before, scene.capability, recorded, Started(text, time.time()))


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
    if found is None or not found.pending or current.chosen(name, current.configured(name)):
        return automatic
    other = current.entry(name, automatic=False)
    below = other.value if other else found.default
    return None if same(found.parameter, below, found.value) else found.parameter.human(found.value)


def _refused(settings: SettingsPlan, error: BaseException, log: str, outcome: str) -> PgOpsError:
    values = {change.setting.parameter.name: change.after for change in settings.written}
    named = ", ".join(f"{name} = {value}" for name, value in values.items()) or "its settings"
    # The server writes the value of a changed setting into its log, in quotes of its own.
    hidden = [change.setting.parameter.name for change in settings.written if change.after != change.setting.text]
    lines = [line for line in log.splitlines() if not any(name in line for name in hidden)]
    quoted = " From the server's log:\n" + "\n".join(lines) if lines else ""
    return SettingsRefused(
        f"The server does not run with {named}: {error} {outcome}{quoted}",
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


def _check(scene: Scene, settings: SettingsPlan, marked: service.Mark | None) -> None:
    """Raises HostFailed if the server does not answer, and SettingsRefused if it runs with another value, or has
    logged that it does not use one."""
    names = [setting.parameter.name for setting in settings.settings]
    with answering(scene) as session:
        now = present.read(session, names, {})
        restarted = bool(settings.restarts)
        wrong = [words for setting in settings.settings for words in _other_value(now, setting, restarted)]
    if not wrong and any(name.lower().startswith("ssl") for name in names) and truth(now.setting("ssl")):
        wrong = _without_tls(scene.target, now)
    if not wrong and scene.service and marked:
        # A new session was let in: what the server has to say to its new files it has said by now.
        wrong = list(not_used(service.lines_since(scene.service, marked), settings.settings))
    if wrong:
        raise SettingsRefused(f"{'; '.join(wrong)}.")


def _other_value(now: Current, setting: Setting, restarted: bool) -> list[str]:
    """What speaks against a value being in force, or against that below a removed one. How the server spells it does
    not matter: it names the line from which it has its value, and what is wrong with a line."""
    name = setting.parameter.name
    found, entry = now.running.get(name.lower()), now.entry(name)
    if found is None:
        return [] if setting.text is None else [f"it has no setting {name}"]
    if entry is not None and entry.error and not found.pending:
        return [f"{entry.file}, line {entry.line}: {name}: {entry.error}"]
    ours = entry is not None and entry.automatic and same(found.parameter, entry.value, setting.text)
    if setting.text is not None and not ours:
        return [f"{name} is not {setting.text} in its files"]
    waits = found.parameter.restarts and not restarted
    if waits or found.source not in FROM_FILES or found.value == DISABLED or _from(found, entry):
        return []
    shown = secrecy.setting(name, found.value, found.parameter.vartype)
    return [f"{name} is still {found.parameter.human(shown or '')}"]


def _from(found: Running, entry: Entry | None) -> bool:
    """Whether the server has its value from a line; without any line, from its default."""
    if entry is None:
        return found.source == "default"
    return found.source == "configuration file" and (found.file, found.line) == (entry.file, entry.line)


def not_used(lines: Iterable[str], settings: Sequence[Setting]) -> Iterator[str]:
    """The lines of a server's log that say that it does not use a setting: those which name it, or what it names, and
    those about certificates where one of them is set. Pure."""
    words = [setting.parameter.name for setting in settings]
    words += [setting.text for setting in settings if setting.text and "/" in setting.text]
    if any(setting.parameter.name.lower().startswith("ssl") for setting in settings):
        words += ["SSL", "certificate"]
    for line in service.quotable(lines):
        found = NOT_USED.search(line)
        if found and not CLIENTS_OWN.search(line) and any(word in line for word in words):
            yield line[found.start() :].rstrip(".")


def _without_tls(target: Target, now: Current) -> list[str]:
    hosts = elements(now.setting("listen_addresses"))
    if target.local and not hosts:
        return []
    here = (EVERYWHERE.get(hosts[0], hosts[0]), now.setting("port")) if target.local else (target.host, target.port)
    spoken = tls.speaks(*here)
    return ["ssl is on, but the server refuses TLS"] if spoken is False else []


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
    session: Session
    started: Started | None = None
    names: tuple[str, ...] = ()
    process: int | None = None

    def record(self) -> None:
        """Write the journal, before anything is changed."""
        if self.scene.layout:
            files.apply([Directory(self.scene.layout.data, 0o755)])
            journal.write(self.scene.layout.journal, self.journal)

    def wrote(self, name: str) -> None:
        """A parameter has been written."""
        self.names = (*self.names, name)

    def restarting(self) -> None:
        """Note that from now on the server may be down."""
        self.process = self._running()
        self.journal = replace(self.journal, restarting=True)
        self.record()

    def _running(self) -> int | None:
        found = self.scene.service
        return discovery.postmaster(found.data_directory, found.owner) if found else None

    def discard(self) -> None:
        """The transaction is complete: delete the journal."""
        if self.scene.layout:
            files.discard(self.scene.layout.journal)

    def restore(self, otherwise: PgOpsError) -> str:
        """Restore the old settings, and have the server run with them; what is in force then, as a sentence.

        Raises SettingsRefused, with the message of ``otherwise``, if that is not possible; then the journal stays for
        the next run.
        """
        try:
            outcome = self._restored()
            if self.scene.layout:
                originals.write(self.scene.layout.before, self.journal.capability, self.journal.originals)
        except PgOpsError as error:
            stays = "" if self._down() else f" {RUNS_ON}"
            message = otherwise.message if self._down() else otherwise.message.replace(DOWN, RUNS_ON)
            raise SettingsRefused(f"{message} While restoring: {error}", AFTERWARDS if not stays else HINT) from error
        self.discard()
        return outcome

    def _down(self) -> bool:
        return self.scene.service is not None and self._running() is None

    def _restored(self) -> str:
        found = self.scene.service
        if found and self.journal.restarting and self._running() != self.process:
            which = restore(found, candidates(self.journal, self.started, self.scene.layout))
            answering(self.scene).close()
            return f"The server runs with {which}."
        if not self.names and not self.journal.restarting:
            return "Nothing was changed."
        self._unwrite()
        return "The old settings were restored." + (" The server was not restarted." if self.process else "")

    def _unwrite(self) -> None:
        """By the session that is open: perhaps nobody can log in with the new settings."""
        try:
            _unwrite(self.scene, self.session, self.journal.values)
        except QueryFailed:
            with answering(self.scene) as session:
                _unwrite(self.scene, session, self.journal.values)


def _unwrite(scene: Scene, session: Session, values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if by_file(name, value) and scene.service:
            written(scene.service, {name: value})
        else:
            words = elements(value) if value and LISTS.get(name.lower()) else None
            session.execute(alter(name, value, words))
    reload(session)


@dataclass(frozen=True)
class Candidate:
    """What to restore: ``name`` says what it is; either ``values`` of the present file, or all of its ``text``."""

    name: str
    values: Mapping[str, str | None] = field(default_factory=dict)
    text: str | None = None

    def of(self, present_text: str) -> str:
        """The text of the file."""
        return autoconf.replaced(present_text if self.text is None else self.text, self.values)


def candidates(
    journal_of: Journal,
    started: Started | None,
    layout: Layout | None,
    declared: Mapping[str, str | None] | None = None,
) -> list[Candidate]:
    """The settings with which the server may come up, the latest first: those before the change, those with which it
    has last started, those from before any change of ours, and the first with what is ``declared`` now."""
    found = [Candidate("its old settings", journal_of.values)]
    if started:
        found.append(Candidate("the settings with which it last started", text=started.text))
    if layout:
        before = originals.before_all(layout.before)
        found.append(Candidate("the settings from before pgops.fleet changed any", {**journal_of.values, **before}))
    if declared:
        found.append(Candidate("the declared settings", {**journal_of.values, **declared}))
    return found


def restore(found: Service, possible: Sequence[Candidate]) -> str:
    """Start a server, whether it runs or not, with the first settings with which it comes up; their name. Those are
    tried first against which its program says nothing. If none does, it is down with the first of them.

    Raises HostFailed with the error of the first.
    """
    text = _automatic(found)
    sound = [one for one in possible if not _complaint(found, one.of(text))]
    order = dict.fromkeys([*(one.of(text) for one in sound), *(one.of(text) for one in possible)])
    names = {one.of(text): one.name for one in reversed(possible)}
    first: HostFailed | None = None
    for content in order:
        try:
            _replace(found, content)
            service.restart(found)
        except HostFailed as error:
            first = first or error
        else:
            return names[content]
    _replace(found, possible[0].of(text))
    raise first or HostFailed("There are no settings to restore.")


def _complaint(found: Service, text: str) -> str:
    with contextlib.suppress(HostFailed):
        return trial.complaint(found, text)
    return ""


def written(found: Service, values: Mapping[str, str | None]) -> None:
    """Write values to postgresql.auto.conf, without the server.

    Raises HostFailed.
    """
    _replace(found, autoconf.replaced(_automatic(found), values))


def _automatic(found: Service) -> str:
    return str(trial.started(found)["text"])


def _replace(found: Service, text: str) -> None:
    path = os.path.join(found.data_directory, autoconf.NAME)
    as_user(found.owner, lambda: _put_back(path, text))


def _put_back(path: str, text: str) -> None:
    """As the server's user: it is that user's file, in a place where nobody else should write."""
    old = files.read(path)
    if old is None or old.kind != "file":
        raise HostFailed(f"{path} does not exist, or is not a file.", "Is the data directory mounted?")
    files.rewrite(path, old.content, text.encode("utf-8", "surrogateescape"))


@dataclass(frozen=True)
class Repair(HostChange):
    """The settings that a killed run changed are restored, and the server that it stopped is started."""

    verb: ClassVar[str] = "start"

    layout: Layout = field(repr=False, compare=False)
    journal: Journal = field(repr=False, compare=False)
    service: Service = field(repr=False, compare=False)
    declared: Mapping[str, str | None] = field(default_factory=dict, repr=False, compare=False)

    def apply(self) -> None:
        """The journal is deleted last: until then the next run finds it.

        Raises SettingsRefused.
        """
        last = originals.last_start(self.layout.before)
        try:
            restore(self.service, candidates(self.journal, last, self.layout, self.declared))
        except HostFailed as error:
            raise SettingsRefused(f"{error} {DOWN}", AFTERWARDS) from error
        originals.write(self.layout.before, self.journal.capability, self._originals())
        files.discard(self.layout.journal)

    def _originals(self) -> originals.Originals:
        """With those of declared settings with which it had to be started: they are ours now."""
        now = autoconf.values(_automatic(self.service))
        ours = {
            name: text
            for name, text in self.declared.items()
            if text is not None and now.get(name.lower()) == text and self.journal.values.get(name) != text
        }
        return originals.after(self.journal.originals, {name: self.journal.values.get(name) for name in ours}, ours)


def interrupted(layout: Layout, declared: Mapping[str, str | None] | None = None) -> tuple[Repair, ...]:
    """The start of a server that a run has left stopped, as a change; none if there is no such server. With none of
    its former settings it is started with those that are ``declared``.

    Raises HostFailed.
    """
    found = journal.read(layout.journal)
    if found is None or found.service is None or not found.restarting:
        return ()
    if discovery.postmaster(found.service.data_directory, found.service.owner) is not None:
        return ()
    before_it = {"state": "stopped by a run that was killed"}
    after_it = {"state": "running with its old settings"}
    return (Repair("server", before_it, after_it, layout, found, found.service, declared or {}),)
