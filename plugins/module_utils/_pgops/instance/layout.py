# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where the agent's things are on a host. The one place that names paths."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from ..errors import InvalidInput

INSTANCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}\Z")


@dataclass(frozen=True)
class Layout:
    """The paths of one instance below ``prefix``, which is / but for an agent without root."""

    instance: str
    prefix: str = "/"

    def __post_init__(self) -> None:
        if not INSTANCE.match(self.instance):
            raise InvalidInput(
                f"The instance name {self.instance!r} cannot be used in the names of files and units.",
                "Use letters, digits, '.', '_' and '-', at most 63 characters, starting with a letter or digit.",
            )
        if not os.path.isabs(self.prefix):
            raise InvalidInput(f"prefix must be an absolute path, not {self.prefix!r}.")
        object.__setattr__(self, "prefix", "/" + os.path.normpath(self.prefix).lstrip("/"))

    def _below(self, *parts: str) -> str:
        return os.path.join(self.prefix, *parts)

    @property
    def library(self) -> str:
        """The agent's versions and the link to the current one; shared by all instances of a host."""
        return self._below("usr/local/lib/pgops")

    @property
    def versions(self) -> str:
        """A directory per version is in here."""
        return os.path.join(self.library, "versions")

    @property
    def archiver(self) -> str:
        """The program that archives; shared by all instances of a host, and named by archive_command."""
        return os.path.join(self.library, "archiver")

    @property
    def current(self) -> str:
        """The link that names the version in use; it is switched in one step."""
        return os.path.join(self.library, "current")

    @property
    def launcher(self) -> str:
        """What timers execute; it resolves the link once, so a run never mixes versions."""
        return os.path.join(self.current, "bin", "pgops")

    @property
    def command(self) -> str:
        """The command that people type."""
        return self._below("usr/local/bin/pgops")

    @property
    def configurations(self) -> str:
        """A directory per instance is in here."""
        return self._below("etc/pgops")

    @property
    def configuration(self) -> str:
        """The instance's directory of configuration, root's."""
        return os.path.join(self.configurations, self.instance)

    @property
    def agent_file(self) -> str:
        """The instance's one JSON file of configuration."""
        return os.path.join(self.configuration, "agent.json")

    @property
    def pgbackrest(self) -> str:
        """pgBackRest's configuration for the instance, root's, which the server's user reads."""
        return os.path.join(self.configuration, "pgbackrest.conf")

    @property
    def registration(self) -> str:
        """Which data directory may archive, and where to, for the program that archives (archiver.REGISTRATION)."""
        return os.path.join(self.configuration, "archiving")

    @property
    def passfile(self) -> str:
        """The password for other nodes of the cluster, in libpq's format, readable by the agent only."""
        return os.path.join(self.configuration, "pgpass")

    @property
    def channels(self) -> str:
        """The addresses of the channels that this host sends notifications to; readable by the agent only."""
        return os.path.join(self.configuration, "channels.json")

    @property
    def choices(self) -> str:
        """What the ops database says of channels and silences, as the watch needs to know where it is gone."""
        return os.path.join(self.state, "watch.choices.json")

    @property
    def collectors(self) -> str:
        """The user's own collectors."""
        return os.path.join(self.configuration, "collectors")

    @property
    def data(self) -> str:
        """What is kept for the instance; root's, so that nobody else's file is ever taken for ours."""
        return self._below("var/lib/pgops", self.instance)

    @property
    def state(self) -> str:
        """The agent's own directory: locks, last runs, log."""
        return os.path.join(self.data, "state")

    @property
    def latest(self) -> str:
        """The newest value of each series, as the agent keeps it for those who ask the host itself."""
        return os.path.join(self.state, "latest.json")

    @property
    def latest_repeated(self) -> str:
        """The same of what was collected again within the minute: a small file, since it is often written."""
        return os.path.join(self.state, "latest.repeated.json")

    @property
    def latest_queries(self) -> str:
        """The same of what the job `queries` measures, which has its own turns."""
        return os.path.join(self.state, "latest.queries.json")

    @property
    def export(self) -> str:
        """The agent's directory of what others may read."""
        return os.path.join(self.data, "export")

    @property
    def exported(self) -> str:
        """The newest values for node_exporter, which follows a link to it."""
        return os.path.join(self.export, "pgops.prom")

    def textfile(self, folder: str) -> str:
        """That link, in a directory that node_exporter reads."""
        return os.path.join(folder, f"pgops_{self.instance}.prom")

    @property
    def keeping(self) -> str:
        """The directory of the jobs that run as the server's user: locks, logs, what they remember."""
        return os.path.join(self.data, "keeping")

    @property
    def inspection(self) -> str:
        """The directory of what the server's user measures, which the agent may read and not write."""
        return os.path.join(self.data, "inspection")

    @property
    def inspected(self) -> str:
        """The newest value of each series that the server's user measures."""
        return os.path.join(self.inspection, "latest.json")

    @property
    def before(self) -> str:
        """What was there before pgops.fleet changed it, for when it is taken back."""
        return os.path.join(self.data, "before.json")

    @property
    def journal(self) -> str:
        """What a change of settings that is under way has to be able to put back."""
        return os.path.join(self.data, "settings.journal.json")

    @property
    def delivered(self) -> str:
        """With which configuration it was proven that a standby's samples arrive."""
        return os.path.join(self.data, "delivered.json")

    @property
    def deployments(self) -> str:
        """What modules have changed lately; the agent reads it."""
        return os.path.join(self.data, "deployments.jsonl")

    @property
    def observed(self) -> str:
        """How the server was when its agent last looked for events; readable by the agent only."""
        return os.path.join(self.state, "observed.json")

    @property
    def lock(self) -> str:
        """Held by whoever changes what is installed on the host; nobody but root can put anything there."""
        return self._below("run/pgops.lock") if self.prefix == "/" else self._below("pgops.lock")

    @property
    def units(self) -> str:
        """systemd's directory for units of the administrator."""
        return self._below("etc/systemd/system")

    @property
    def crontab(self) -> str:
        """The instance's file for cron; cron ignores names with a dot, so none is in it."""
        return self._below("etc/cron.d", f"pgops-{self.instance}".replace(".", "_"))


def only_instance(prefix: str) -> str:
    """The name of the host's one configured instance.

    Raises InvalidInput where there is none, or several.
    """
    folder = Layout("any", prefix).configurations
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    if len(names) != 1:
        known = f"This host has the instances {', '.join(names)}." if names else "No instance is configured here."
        raise InvalidInput(known, "Choose one with --instance.")
    return names[0]
