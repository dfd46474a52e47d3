"""Mutation tests: small changes of the library's pure parts, each of which a unit test has to notice.

    python tests/workshop/mutation.py                    all of them; exit status 1 below SCORE
    python tests/workshop/mutation.py plan settings      only these files and packages

mutmut makes the changes, and runs for each the tests that reach the changed function. It expects a library where its
tests import it from, so it works on a copy in build/mutation. There, `mutmut show NAME` shows the change that a name
in the file `survivors` stands for. Never start `mutmut run` by hand: without the plugin `harmless`, changed code does
to this machine whatever it happens to do.

What mutmut changes are bodies of functions, but not of properties and other decorated ones, nor texts of errors.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import artifact

SCORE = 85
"""The share of changes, in %, that tests have to notice."""

PURE: Mapping[str, str] = {
    "agent.entries": "who may read and write which of the agent's files, and whose password is kept",
    "agent.schedule": "which units, links and crontabs an instance has, and whose they are",
    "backup.retention": "which backups are kept, and why",
    "backup.surplus": "which WAL nobody needs any more",
    "converge": "when changes are carried out, and which",
    "fairness": "how much each may have of what is scarce",
    "facts.size": "what is left out of facts that are too long",
    "host.calendars": "when a job starts",
    "host.cron": "the text of a crontab",
    "host.files": "how files have to change, and what of them is shown",
    "host.systemd": "the text of units",
    "instance.configuration": "what a configuration file means",
    "instance.endpoints": "as whom jobs log in, where, and how that is protected",
    "instance.layout": "where files are",
    "instance.passfile": "the text of a password file",
    "metrics.collectors": "what a collector's header means, when it runs, and which are refused",
    "metrics.exposition": "the text that Prometheus reads",
    "metrics.latest": "which values are the newest",
    "metrics.pace": "how often collectors run where, and in which order",
    "metrics.rounds": "how samples are put together",
    "metrics.thresholds": "which thresholds make sense",
    "opsdb.access": "the text of access rules",
    "opsdb.hba": "whom access rules let in",
    "opsdb.migrations": "which migrations are pending, and which ledgers are refused",
    "opsdb.objects": "which objects are made anew, and in which order",
    "plan": "what a module says of its changes",
    "reports.fleet": "what follows from all hosts of a fleet together",
    "reports.judging": "how an instance is, and why",
    "top.moment": "which moment of the past is meant",
    "top.rates": "how fast a server's counters grow",
    "top.tables": "which columns a terminal has room for",
    "top.values": "how values are written, and how wide they are",
    "repository.chains": "what a backup stands on",
    "repository.wal": "which WAL is there without a gap",
    "repository.windows": "from when to when a cluster can be recovered",
    "server.encoding": "how a name is shown whose bytes are no text",
    "settings.autoconf": "the text of ALTER SYSTEM's file",
    "settings.originals": "what a setting goes back to",
    "settings.parameters": "what the value of a setting means",
    "settings.planning": "which settings change, wait, or are put back",
    "settings.present": "which line counts for a setting, and whether two values mean the same",
    "settings.standbys": "whom a primary waits for before it raises a setting",
    "spelling": "which names are unknown, and what was meant",
    "statements.readings": "how much statements have used between two readings",
    "statements.redaction": "which texts hold secrets, and what is left of them",
}
"""The files of the library that decide something without reading or writing anything, and what it is."""

DOORS: Mapping[str, str] = {
    "agent.schedule": "read _listed obstacles apply _discard_records _stop_crons _arrivals converge",
    "host.cron": "stop _running installed",
    "host.files": (
        "make read contents user_name group_name EntryChange PathRemoval apply opened_directory discard write "
        "rewrite own remove sync sync_tree _below failure umask exclusive _lock"
    ),
    "metrics.latest": "remember present load received _opened",
    "host.systemd": "booted states properties stop reload start forget _systemctl check_calendars _next_elapses",
    "instance.configuration": "load",
    "settings.originals": "read names _all write",
    "settings.present": "read _entry _exists _running",
    "opsdb.access": "read _look errors resolve apply _rewrite _replace AccessChange",
    "opsdb.hba": "read",
    "opsdb.migrations": "MigrationChange",
    "opsdb.objects": "ObjectChange ObjectRemoval _own _revoke_all _recreate",
}
"""The functions and classes in these files that do read or write: integration tests are theirs."""

TESTS = (
    *("agent/test_entries.py", "agent/test_schedule.py", "facts", "host", "instance", "metrics", "opsdb"),
    *("backup/test_expiry_plan.py", "repository/test_chains.py", "repository/test_wal.py"),
    "reports",
    *("repository/test_windows.py", "server/test_encoding.py", "settings", "statements", "test_converge.py"),
    *("test_fairness.py", "test_plan.py", "top"),
)
"""Below tests/unit, what tests them. A test that changes the host, even if only to start a program, is skipped."""

SANDBOX = artifact.BUILD / "mutation"
LOG = artifact.BUILD / "log" / "mutation.log"
CAUGHT = ("killed", "timeout", "segfault")
NAME = re.compile(r"pgops\.(?P<module>[\w.]+)\.x(?:_|ǁ(?P<type>\w+)ǁ)(?P<function>\w+)__mutmut_\d+\Z")
RESULT = re.compile(r"\s+(?P<name>pgops\.\S+): (?P<status>.+)")


@dataclass
class Tally:
    """What became of the changes of one file: ``survivors`` are by the function in which they are."""

    all: int = 0
    survivors: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    @property
    def caught(self) -> int:
        """How many a test has noticed."""
        return self.all - sum(map(len, self.survivors.values()))

    @property
    def score(self) -> float:
        """Their share in %."""
        return 100 * self.caught / self.all if self.all else 100.0


def chosen(words: Sequence[str]) -> list[str]:
    """The pure files that words name, by themselves or by their package; all where there are none."""
    found = [module for module in PURE if not words or {module, module.partition(".")[0]} & set(words)]
    if not found:
        raise SystemExit(f"There is no pure part named {' '.join(words)}. There are: {' '.join(PURE)}")
    return found


def prepare(modules: Iterable[str]) -> None:
    """Make the copy that mutmut works on."""
    shutil.rmtree(SANDBOX, ignore_errors=True)
    leave = shutil.ignore_patterns("__pycache__")
    for folder in ("docs", "plugins", "tests"):
        shutil.copytree(artifact.ROOT / folder, SANDBOX / folder, ignore=leave)
    shutil.copytree(artifact.LIBRARY, SANDBOX / "pgops", ignore=leave)
    options = {
        "source_paths": ["pgops"],
        "only_mutate": [f"pgops/{module.replace('.', '/')}.py" for module in modules],
        "also_copy": ["docs", "plugins"],
        # how an error is worded
        "do_not_mutate_patterns": [r"^\s*(raise (self\.)?\w+\(|hint = )"],
        "use_git_change_detection": False,
        "track_dependencies": False,
        # A change that makes a loop endless is ended after (what its tests take + the one) * the other, in seconds.
        "timeout_constant": 2.0,
        "timeout_multiplier": 5.0,
        "pytest_add_cli_args": [
            *("-p", "harmless", "-p", "no:xdist"),
            "--hypothesis-profile=mutation",
        ],
        "pytest_add_cli_args_test_selection": [f"tests/unit/{path}" for path in TESTS],
    }
    # These values are written in TOML as they are in JSON.
    ours = "".join(f"{name} = {json.dumps(value)}\n" for name, value in options.items())
    theirs = (artifact.ROOT / "pyproject.toml").read_text().replace('"build/lib"', '"."')
    (SANDBOX / "tmp").mkdir()
    (SANDBOX / "pyproject.toml").write_text(f"{theirs}\n[tool.mutmut]\n{ours}")


def run() -> None:
    """Run mutmut, which writes what it does into LOG."""
    LOG.parent.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        "PGOPS_SANDBOX": str(SANDBOX),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(SANDBOX / "tests" / "workshop"),  # of the plugin harmless
        "TMPDIR": str(SANDBOX / "tmp"),
    }
    command = ["mutmut", "run"]
    with LOG.open("wb") as log:
        code = subprocess.run(command, cwd=SANDBOX, env=environment, stdout=log, stderr=log, check=False).returncode
    if code:
        raise SystemExit(f"mutmut exited with {code}:\n{LOG.read_text(errors='replace')[-3000:]}")


def results() -> dict[str, str]:
    """What became of each change, by its name."""
    command = ["mutmut", "results", "--all=true"]
    said = subprocess.run(command, cwd=SANDBOX, stdout=subprocess.PIPE, text=True, check=True).stdout
    return {found["name"]: found["status"] for found in map(RESULT.match, said.splitlines()) if found}


def tallies(statuses: Mapping[str, str]) -> dict[str, Tally]:
    """The results by files, without those of what reads or writes."""
    made: dict[str, Tally] = defaultdict(Tally)
    for name, status in statuses.items():
        found = NAME.match(name)
        if found is None:
            raise SystemExit(f"mutmut names its changes in another way than it did: {name}")
        doors = DOORS.get(found["module"], "").split()
        if {found["type"], found["function"]} & set(doors):
            continue
        made[found["module"]].all += 1
        if status not in CAUGHT:
            place = ".".join(filter(None, [found["type"], found["function"]]))
            made[found["module"]].survivors[place].append(name)
    return made


def summary(made: Mapping[str, Tally]) -> str:
    """A line a file, the worst first, with the functions in which changes went unnoticed."""
    lines = []
    for module, tally in sorted(made.items(), key=lambda one: one[1].score):
        counts = Counter({place: len(names) for place, names in tally.survivors.items()}).most_common()
        places = ", ".join(f"{place} {count}" for place, count in counts)
        lines.append(f"{tally.score:6.1f} %  {tally.caught:4} of {tally.all:4}  {module:24}{places}".rstrip())
    return "\n".join(lines)


def main() -> int:
    """Run all, print the summary, and say whether it is enough."""
    prepare(chosen(sys.argv[1:]))
    print(f"{LOG.relative_to(artifact.ROOT)} tells how far it is", flush=True)
    run()
    statuses = results()
    made = tallies(statuses)
    print(summary(made))
    whole = Tally(sum(one.all for one in made.values()))
    whole.survivors["all"] = [name for one in made.values() for names in one.survivors.values() for name in names]
    survivors = SANDBOX / "survivors"
    survivors.write_text("".join(f"{name}\n" for name in whole.survivors["all"]))
    slow = sum(status == "timeout" for status in statuses.values())
    print(f"{whole.score:.1f} % of {whole.all} changes were noticed, {slow} of them by a test that did not end;")
    print(
        f"{SCORE} % is asked for. The names of the others are in {survivors.relative_to(artifact.ROOT)}.", flush=True
    )
    return 0 if whole.score >= SCORE else 1


if __name__ == "__main__":
    sys.exit(main())
