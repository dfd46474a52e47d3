# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a restored server is asked before it counts as proof: each of its databases, all its tables and B-trees, and
the assertions of the inventory."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import PgOpsError, ProgramFailed
from ..host import commands
from ..server import databases
from ..server.session import identifier, statement
from . import configuring
from .drill_options import Assertion
from .replay import Runner

LONGEST = 500
"""Characters of a detail."""
WEEK = 7 * 86400.0
"""Seconds that a check may take: the drill has a limit of its own."""
PROGRAM = "pg_amcheck"
CORRUPT = 2
"""Its exit code where it has found something wrong (PostgreSQL, pg_amcheck.c)."""
THERE = "SELECT EXISTS (SELECT FROM pg_available_extensions AS e WHERE e.name = 'amcheck')"
RELATIONS = "SELECT count(*) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
READER = "pgops_drill_reader"
"""The role of the restored server that asks assertions: what ordinary users have put into the database must not act
as a superuser."""


@dataclass(frozen=True)
class Check:
    """``passed`` is None for what could not be checked here, and ``detail`` says why, or what is wrong."""

    name: str
    passed: bool | None
    seconds: float = 0.0
    detail: str = ""

    def told(self) -> dict[str, Any]:
        """As data."""
        return {**asdict(self), "seconds": round(self.seconds, 3), "detail": self.detail[:LONGEST]}


def timed(name: str, ask: Callable[[], tuple[bool | None, str]]) -> Check:
    """A check and how long it took; one that raises has not passed."""
    began = time.monotonic()
    try:
        passed, detail = ask()
    except PgOpsError as error:
        passed, detail = False, str(error)
    return Check(name, passed, time.monotonic() - began, detail)


def every(runner: Runner, tools: Sequence[str], amcheck: bool, asked: Sequence[Assertion]) -> Iterator[Check]:
    """All checks of a server that runs and takes writes, one after the other. ``tools`` are directories of its
    version's programs."""
    yield timed("databases", lambda: _databases(runner))
    if amcheck:
        yield timed("amcheck", lambda: _amcheck(runner, tools))
    if asked:
        with runner.session() as session:
            session.execute(statement("CREATE ROLE {} LOGIN", identifier(READER)))
            session.execute(statement("GRANT pg_read_all_data TO {}", identifier(READER)))
        yield from (_asserted(runner, one) for one in asked)


def _databases(runner: Runner) -> tuple[bool | None, str]:
    """Whether each database lets us in, and knows its relations."""
    with runner.session() as session:
        there = [one for one in databases.present(session) if one.open]
    for one in there:
        with runner.session(one.name) as session:
            session.value(RELATIONS)
    return True, f"{len(there)} databases"


def _amcheck(runner: Runner, tools: Sequence[str]) -> tuple[bool | None, str]:
    """Whether PostgreSQL's own check of tables and indexes finds nothing, in all databases."""
    programs = [os.path.join(folder, PROGRAM) for folder in tools]
    program = next((path for path in programs if os.access(path, os.X_OK)), "")
    if not program:
        return None, f"there is no {PROGRAM} in {' or '.join(dict.fromkeys(tools))}"
    with runner.session() as session:
        if not session.value(THERE):
            return None, "the extension amcheck is not on this host"
        user = str(session.value("SELECT session_user"))
    place = ["-h", runner.served.data, "-p", str(configuring.PORT), "-U", user]
    try:
        commands.run([program, *place, "--all", "--install-missing", "--jobs=1"], WEEK)
    except ProgramFailed as error:
        found = "it found corruption: " if error.status == CORRUPT else ""
        return False, f"{found}{error.message.partition(': ')[2]}"
    return True, ""


def _asserted(runner: Runner, assertion: Assertion) -> Check:
    def ask() -> tuple[bool | None, str]:
        with runner.session(assertion.database, role=READER) as session:
            session.execute("RESET search_path")
            answer = session.single(assertion.query)
        return answer is True, "" if answer is True else f"the answer was {answer!r}, and not true"

    return timed(f"assertion {assertion.name}", ask)
