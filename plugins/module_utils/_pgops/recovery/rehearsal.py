# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a drill does, in a process of its own: it restores the newest backup into a scratch directory, replays all
WAL, asks the server, and looks whether that has to do with anything else. It tells what it knows as it goes on."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from ..errors import HostFailed, TooLittleSpace
from ..repository import backups, inventory, wal, windows
from ..repository.inventory import Inventory
from . import checks, isolation, restore, targets
from . import replay as replaying
from .checks import Check
from .drill_options import Options
from .isolation import Production
from .replay import Reached, Runner
from .restore import Phases, Planned, Restore
from .supervised import Tell
from .targets import Target

QUERY = "SELECT count(*) FROM pg_database"
MB = 1024 * 1024


@dataclass(frozen=True)
class Order:
    """What is tried: the newest backup of a ``generation``, or that of a name, restored into ``scratch`` and compared
    with what ``production`` was. ``others`` are directories that nothing of it may touch, ``tools`` PostgreSQL's
    programs, and ``programs`` those that run the server, '' for where packages have them.
    """

    repository: str
    production: Production
    scratch: str
    declared: Options
    others: tuple[str, ...]
    superuser: str = ""
    tools: str = ""
    programs: str = ""
    backup: str = ""

    @property
    def generation(self) -> str:
        """The generation of the repository."""
        return self.production.generation


class NotIsolated(HostFailed):
    """The restored server reaches out of its directory."""


def rehearse(order: Order, tell: Tell) -> None:
    """Do it, and tell: ``phase`` when one begins, ``phases`` with the seconds of those that are over, the ``backup``,
    what was ``reached``, and each ``check``.

    Raises PgOpsError for what keeps the cluster from being recovered, or the drill from going on.
    """
    phases = Phases(lambda name: tell({"phase": name}))
    with phases.phase("plan"):
        planned = _planned(order)
    last = planned.choice.chain[-1]
    tell({"backup": last.manifest.id, "backup_name": last.name, "warnings": list(planned.warnings)})
    runner = Runner(planned.served, planned.programs, replaying.superusers(order.superuser))
    names = [kept.name for kept in planned.choice.chain]
    # Whoever began the drill ends the server, and removes all.
    with backups.reading(planned.backups, names), planned.place.begun(lambda: None) as state:
        restore.fill(planned, phases)
        tell({"phases": dict(phases.done)})
        reached, _fetched = restore.replayed(planned, runner, phases, state)
        with phases.phase("query"), runner.session() as session:
            session.value(QUERY)
        tell({"phases": dict(phases.done), "reached": _told(planned, reached)})
        restore.remember(planned, phases.done)
        with phases.phase("isolation"):
            _check_isolation(order, planned, runner)
        with phases.phase("checks"):
            # Every file was compared with backup_manifest, or by pgBackRest, before the server was started.
            tell({"check": Check("files", True).told()})
            tools = (planned.tools, planned.programs)
            for check in checks.every(runner, tools, order.declared.amcheck, order.declared.asked):
                tell({"check": check.told()})
        tell({"phases": dict(phases.done)})


def _planned(order: Order) -> Planned:
    """How it is restored. Raises PgOpsError, TooLittleSpace among them."""
    found = inventory.read(order.repository, order.generation)
    name = order.backup or newest(found, order.production.timeline)
    request = Restore(
        repository=order.repository,
        generation=order.generation,
        directory=os.path.join(order.scratch, "data"),
        target=Target(targets.LATEST, timeline=order.production.timeline),
        bin_directory=order.tools,
        server_directory=order.programs,
        superuser=order.superuser,
        shared_buffers=order.declared.shared_buffers,
        backup=name,
        scratch=order.scratch,
    )
    planned = restore.plan(request)
    astray = [path for path in planned.place.every if not path.startswith(f"{order.scratch}/")]
    if astray:
        raise NotIsolated(f"{', '.join(astray)} would be written to.")
    needed = sum(one["needed"] for one in planned.space.values())
    free = min(one["free"] for one in planned.space.values())
    reserve = int(order.declared.reserve_mb * MB)
    if needed + reserve > free:
        raise TooLittleSpace(
            f"The drill needs {needed // MB} MB in {order.scratch}, and {free // MB} MB are free, of which "
            f"{reserve // MB} MB are left alone (pgops_drill_reserve_mb).",
            "Free space there, or set pgops_drill_directory to another file system.",
        )
    return planned


def newest(found: Inventory, timeline: int) -> str:
    """The name of the newest backup that leads to a timeline, however it is: an older one that can be restored must
    not hide that the newest cannot. Pure.

    Raises HostFailed where there is none.
    """
    leading = [kept for kept in found.listing.backups if windows.leads_to(kept.manifest, timeline, found.histories)]
    best = max(leading, key=lambda kept: (kept.manifest.timeline, kept.manifest.stop_lsn), default=None)
    # Of those whose manifests cannot be read only the names are known, which begin with the time.
    hurt = [name for name in found.listing.damaged if best is None or name > best.name]
    if best is None and not hurt:
        raise HostFailed(f"No backup leads to timeline {timeline}.", "`pgops backup --type full` takes one.")
    return max(hurt) if hurt or best is None else best.name


def _told(planned: Planned, reached: Reached) -> dict[str, Any]:
    when = reached.time or planned.choice.chain[-1].manifest.completed_at
    return {
        "lsn": wal.lsn(reached.lsn),
        "byte": reached.lsn,
        "time": when.isoformat(),
        "timeline": planned.choice.reach.line.timeline,
    }


def _check_isolation(order: Order, planned: Planned, runner: Runner) -> None:
    """Raises NotIsolated."""
    with runner.session() as session:
        spaces = planned.place.spaces.values()
        wrong = isolation.faults(session, planned.served, order.scratch, spaces, order.others)
    if wrong:
        raise NotIsolated(f"The restored server is not alone: {'; '.join(wrong)}.")
