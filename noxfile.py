"""The checks and tests, each a session: `make check`, `make test`, or one alone: `build/venv/bin/nox -s types`.

Sessions use build/venv, which `make` keeps up to date; only those for other versions have environments of
their own. What takes long (ansible-test, the fleet of containers) runs in the background beside the others.
What can't be run on this machine is skipped, and the summary at the end says why; where nothing may be skipped,
tests/workshop/sessions.py says whether all of them have run. The tag `all` is of what `make test` leaves to
`make test-all`, in which the tests on servers run on every major (tests/support/majors.py).
"""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nox

sys.path.insert(0, "tests/workshop")
import binaries
import pythons

ROOT = Path(__file__).parent
BUILD = ROOT / "build"
LIBRARY = "plugins/module_utils/_pgops"
ROOMS = ("tests/support", "tests/oracles", "tests/workshop")
FLEET = ROOT / "tests" / "fleet" / "fleet.py"
NO_FLEET_HERE = 3  # fleet.py's exit status on a machine that can't have one; its last line says why
SLOWEST = ("--durations=15", "--durations-min=5")
PYTEST = ("python", "-m", "pytest", "--dist=loadgroup", "-q", *SLOWEST, "-n2")
SERVERS = (*PYTEST[:-1], "-n6", "tests/integration")  # tests on servers wait half of the time
ON_CONTROLLERS = sorted(map(str, Path("tests/unit").glob("test_*.py")))
"""Pure tests of what runs on a controller. Those of the library run on an older Python and on a newer one."""
STALLS = ("python", "tests/workshop/stalls.py", "--seed=1")

os.environ["PATH"] = os.pathsep.join([str(BUILD / "venv" / "bin"), str(BUILD / "pythons"), os.environ["PATH"]])
os.environ["ANSIBLE_COLLECTIONS_PATH"] = str(BUILD / "collections")
os.environ["ANSIBLE_HOME"] = str(BUILD / "ansible")
nox.options.envdir = str(BUILD / "nox")
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_missing_interpreters = False
nox.options.tags = ["check"]
pythons.link(BUILD / "pythons")


class Background:
    """A long command that runs beside the sessions and is asked for its result by one of them."""

    def __init__(self, name: str, *command: str, impossible: int | None = None) -> None:
        self.name, self.command = name, command
        self.impossible = impossible  # the exit status that says: not on this machine
        self.log = BUILD / "log" / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.began = 0.0
        self.told = False

    def start(self) -> subprocess.Popen[bytes]:
        if self.process is None:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            self.began = time.monotonic()
            with self.log.open("wb") as log:
                self.process = subprocess.Popen(
                    self.command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True
                )
            atexit.register(self.stop)
        return self.process

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)  # with all that it has started
            self.process.wait()

    def result(self, session: nox.Session) -> None:
        """Wait for the end and print what it wrote; the session fails, or is skipped, with it."""
        code = self.start().wait()
        text = self.log.read_text(errors="replace").rstrip()
        if not self.told:
            print(text, flush=True)
            self.told = True
        session.log(f"{self.name}: {time.monotonic() - self.began:.0f} s since its start")
        if code == self.impossible:
            session.skip(text.rpartition("\n")[2])
        if code:
            session.error(f"{self.name} exited with {code}; {self.log.relative_to(ROOT)} has all of it")


sanity_test = Background("sanity", "python", "tests/workshop/sanity.py")
oldest_tests = Background("oldest_controller", "nox", "--session", "oldest_controller")
fleet_start = Background("fleet", "python", str(FLEET), "up", impossible=NO_FLEET_HERE)


DIAGONAL = {pythons.OLDEST_HOST: 15, pythons.OLDEST_CONTROLLER: 16}
"""The majors whose smoke set runs with an old Python and old versions of all else, and not with the newest."""


def smoke(python: int) -> dict[str, str]:
    """The environment of tests of which a smoke set on one major is enough, unless more was asked for."""
    if os.environ.get("PGOPS_TEST_MATRIX"):
        return {}
    return {
        "PGOPS_TEST_MATRIX": "smoke",
        "PGOPS_TEST_MAJORS": os.environ.get("PGOPS_TEST_MAJORS", str(DIAGONAL[python])),
    }


def off_the_diagonal() -> dict[str, str]:
    """The environment of tests that leave to an old Python, which is here, the majors of its smoke set."""
    if os.environ.get("PGOPS_TEST_MATRIX") or os.environ.get("PGOPS_TEST_MAJORS"):
        return {}
    return {
        "PGOPS_TEST_ELSEWHERE": ",".join(str(major) for python, major in DIAGONAL.items() if pythons.find(python))
    }


def files(pattern: str, *roots: str) -> list[str]:
    """Files below `roots` that match; the parts of the project grow one by one."""
    return sorted(str(path) for root in roots for path in (ROOT / root).rglob(pattern))


@nox.session(python=False, tags=["test"])
def fleet(_session: nox.Session) -> None:
    """Begin to start the hosts in containers, in the background; `molecule` and `scenarios` wait for them."""
    fleet_start.start()


@nox.session(python=False, tags=["check"])
def begin(_session: nox.Session) -> None:
    """Begin ansible-test sanity, in the background; the session `sanity` waits for it."""
    sanity_test.start()


# --- static checks ---


@nox.session(python=False, tags=["check"])
def style(session: nox.Session) -> None:
    """Ruff, as linter and formatter."""
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session(python=False, tags=["check"])
def types(session: nox.Session) -> None:
    """Mypy, strict, on the library and on what the tests stand on."""
    found = [path for room in (*ROOMS, "demo") for path in Path(room).glob("*.py")]
    support = sorted(map(str, found))
    session.run("mypy", "--package", "pgops", env={"MYPYPATH": "build/lib"})
    session.run("mypy", *support, "noxfile.py", env={"MYPYPATH": ":".join([*ROOMS, "build/lib"])})


@nox.session(python=False, tags=["check"])
def floors(session: nox.Session) -> None:
    """The floors of the library: no import goes up or sideways."""
    session.run("python", "tests/workshop/floors.py")


@nox.session(python=False, tags=["check"])
def sql(session: nox.Session) -> None:
    """Sqlfluff."""
    if not files("*.sql", LIBRARY):
        session.skip("there is no SQL yet")
    session.run("sqlfluff", "lint", "--disable-progress-bar", "--processes=2", f"{LIBRARY}/sql")


@nox.session(python=False, tags=["check"])
def yaml(session: nox.Session) -> None:
    """Yamllint."""
    session.run("yamllint", "--strict", ".")


@nox.session(python=False, tags=["check"])
def roles(session: nox.Session) -> None:
    """Ansible-lint with its production profile, on roles, playbooks and scenarios."""
    session.run("ansible-lint", "--offline", "--profile=production", "--nocolor")


@nox.session(python=False, tags=["check"])
def changelog(session: nox.Session) -> None:
    """The changelog's fragments."""
    session.run("antsibull-changelog", "lint")


@nox.session(python=pythons.version(), venv_backend="venv", tags=["check"])
def importer(session: nox.Session) -> None:
    """What Galaxy's importer says about the artifact; it has an environment of its own, for what it pins."""
    if not (ROOT / "README.md").exists():
        session.skip("there is no README.md yet")
    session.install("galaxy-importer>=0.4.40,<0.5")
    settings = BUILD / "importer.cfg"
    switches = ("RUN_ANSIBLE_TEST", "RUN_ANSIBLE_LINT", "RUN_FLAKE8", "LOCAL_IMAGE_DOCKER")  # done by others
    settings.write_text("[galaxy-importer]\n" + "".join(f"{switch}=False\n" for switch in switches))
    (artifact,) = (BUILD / "dist").glob("*.tar.gz")
    environment = {"GALAXY_IMPORTER_CONFIG": str(settings)}
    with session.chdir(session.create_tmp()):  # it writes its result where it stands
        said = session.run("python", "-m", "galaxy_importer.main", str(artifact), env=environment, silent=True)
    session.log(said)
    if "ERROR" in str(said):  # it goes on, and Galaxy would show no documentation
        session.error("the importer tells an error")


@nox.session(python=False, tags=["check"])
def sanity(session: nox.Session) -> None:
    """Ansible-test sanity, on the built collection, with every Python of this machine."""
    sanity_test.result(session)


# --- tests ---


@nox.session(python=False, tags=["test"])
def unit(session: nox.Session) -> None:
    """Pure tests, with the newest versions of everything."""
    session.run(*PYTEST, "tests/unit", *session.posargs)


@nox.session(python=False, tags=["all"])
def mutation(session: nox.Session) -> None:
    """Whether the pure tests notice small changes of what they test; it fails where too many go unnoticed."""
    session.run("python", "tests/workshop/mutation.py", *session.posargs)


@nox.session(python="3.9", venv_backend="venv", tags=["test"])
def oldest_host(session: nox.Session) -> None:
    """The library as the agent runs it on the oldest host: Python 3.9, the oldest driver, no Ansible, and the oldest
    PostgreSQL."""
    session.install("--requirement", "requirements-oldest-host.txt")
    session.run(*PYTEST, "tests/unit", *session.posargs, env=smoke(pythons.OLDEST_HOST))
    session.run(*SERVERS, *session.posargs, env=smoke(pythons.OLDEST_HOST))


@nox.session(python=False, tags=["test"])
def servers(session: nox.Session) -> None:
    """Fetch the binaries of every supported PostgreSQL."""
    said = str(session.run("python", "tests/workshop/binaries.py", silent=True)).strip()
    print(said, flush=True)
    missing = [line for line in said.splitlines() if line.startswith("not here")]
    if missing:
        session.skip("; ".join(missing))


@nox.session(python=False, tags=["test"])
def integration(session: nox.Session) -> None:
    """Tests on real servers, all on the newest major and a smoke set on others; with the newest of all else."""
    session.run(*SERVERS, *session.posargs, env=off_the_diagonal())


@nox.session(python="3.11", venv_backend="venv")
def oldest_controller(session: nox.Session) -> None:
    """The oldest Ansible and driver on the oldest Python that they run on; and what its ansible-test says."""
    session.install("--requirement", "requirements-oldest.txt")
    session.run(*PYTEST, *ON_CONTROLLERS, *session.posargs)
    session.run(*SERVERS, *session.posargs, env=smoke(pythons.OLDEST_CONTROLLER))
    session.run("python", "tests/workshop/sanity.py", "--python", "3.11")


@nox.session(python=False, tags=["all"])
def stalls(session: nox.Session) -> None:
    """The tests on servers of the newest major, on a machine that stands still for a second or two now and then."""
    majors = {"PGOPS_TEST_MATRIX": "newest", "PGOPS_TEST_MAJORS": str(binaries.majors()[-1])}
    session.run(*STALLS, *SERVERS, *session.posargs, env=majors)


@nox.session(python=False, tags=["all"])
def demo(session: nox.Session) -> None:
    """What the README's first command does, as a newcomer runs it."""
    session.run("make", "demo", external=True)


@nox.session(python=False, tags=["all"])
def bench(session: nox.Session) -> None:
    """The benchmarks, beside other tools."""
    session.run("python", "tests/bench/run.py")


@nox.session(python=False, tags=["test"])
def oldest_begin(_session: nox.Session) -> None:
    """Begin the session `oldest_controller`, in the background: what tests the hosts mostly waits for them.

    Not before the demo, which installs the collection anew.
    """
    if pythons.find(pythons.OLDEST_CONTROLLER):
        oldest_tests.start()


@nox.session(python=False, tags=["test"])
def molecule(session: nox.Session) -> None:
    """The Molecule scenarios, on fresh hosts."""
    if not files("molecule.yml", "molecule"):
        session.skip("there is no scenario in molecule/")
    fleet_start.result(session)
    session.run("python", str(FLEET), "reset")
    inventory = {"PGOPS_INVENTORY": str(BUILD / "fleet" / "inventory.yml")}
    session.run("molecule", "test", "--all", *session.posargs, env=inventory)


@nox.session(python=False, tags=["test"])
def scenarios(session: nox.Session) -> None:
    """What no Molecule scenario can do on the hosts: compare runs, break them off, fail over."""
    if not files("test_*.py", "tests/scenarios"):
        session.skip("there is none in tests/scenarios/")
    fleet_start.result(session)
    session.run(
        "python",
        "-m",
        "pytest",
        "-q",
        *SLOWEST,
        "--ignore=tests/scenarios/lanes",
        "tests/scenarios",
        *session.posargs,
    )
    # A lane a cluster: they mostly wait.
    lanes = ("-n3", "--dist=loadgroup", "tests/scenarios/lanes")
    session.run("python", "-m", "pytest", "-q", *SLOWEST, *lanes, *session.posargs)


@nox.session(python=False, tags=["test"])
def oldest_end(session: nox.Session) -> None:
    """What the session `oldest_controller` says."""
    if not pythons.find(pythons.OLDEST_CONTROLLER):
        session.skip(f"Python 3.{pythons.OLDEST_CONTROLLER} was not found")
    oldest_tests.result(session)
