# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether a server could start with a configuration, asked of its own program before the server is stopped.

The program is started in a directory of its own, with a copy of what it needs of the data directory, and ends before
it would listen: it reads its files, looks for settings that exclude each other, loads the libraries and the
certificate. All of it is done as the server's user.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import HostFailed
from ..host import commands, files
from ..host.identity import as_user
from ..server.service import Service
from . import autoconf, places
from .places import Places

MEMORY = "shared_memory_size"
"""To tell it the program looks at all that it depends on, without a start (`postgres -C`, "Managing Kernel
Resources")."""
QUIET = {"log_destination": "stderr", "log_line_prefix": "", "log_min_messages": "warning", "lc_messages": "C",
         "logging_collector": "off", "external_pid_file": ""}  # fmt: skip
OWN = ("postmaster.opts", "postmaster.pid", "PG_VERSION", "current_logfiles", autoconf.NAME)
"""Files of which the directory of the trial has its own, or none: those that are written."""
INNER = ("base", "global")
"""With pg_*, the directories that are the server's own."""
TRIES = 3
TORN = "control file"
"""Named in what is said of a copy of pg_control that was made while the server wrote it."""
CANNOT_RUN = ("126", "127")
"""Exit codes of a program that does not run here: it needs something of the environment that it is started in."""
NOISE = re.compile(r"(LOG|NOTICE|DEBUG\d?): {2}(starting|database system|listening|redirecting)")
SEVERITY = re.compile(r"^(?:postgres: |(?:LOG|FATAL|PANIC|ERROR|WARNING|HINT|DETAIL): +)")
TIME_LIMIT = 60
TEMPORARY = "/tmp"  # noqa: S108 - of the server's user alone, and not where root's environment says
ROOM = 1024 * 1024
"""Bytes that must be free where the server writes: a start needs a file with its process, and WAL."""


def complaints(found: Service, texts: Sequence[Mapping[str, str | None]], where: Sequence[Places]) -> list[str]:
    """What a server says against starting with other values in postgresql.auto.conf, None for no line, and in the
    places that they name; empty if it could start. The second is only asked where there is something against the
    first.

    Raises HostFailed if that file cannot be replaced.
    """

    def work() -> list[str]:
        text = automatic(found.data_directory)
        said: list[str] = []
        for values, at in zip(texts, where):
            said.append(_complaint(found, autoconf.replaced(text, values), at))
            if not said[-1]:
                break
        return said

    try:
        answers: list[str] = as_user(found.owner, work, TIME_LIMIT * 2)
    except OSError as error:
        raise files.failure(error, "What a start needs cannot be tried") from error
    return answers + [""] * (len(texts) - len(answers))


def automatic(data_directory: str) -> str:
    """The text of the file that ALTER SYSTEM writes, once it is certain that the user of this process can replace it.

    Raises HostFailed.
    """
    path = os.path.join(data_directory, autoconf.NAME)
    try:
        # Read and write: a file that must not be changed cannot be replaced either.
        with open(os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            text = file.read().decode("utf-8", "surrogateescape")
    except OSError as error:
        raise _refused(path, error) from error
    for place in (data_directory, os.path.join(data_directory, "pg_wal")):
        if not os.access(place, os.W_OK | os.X_OK):
            readonly = os.statvfs(place).f_flag & os.ST_RDONLY
            raise HostFailed(
                f"{place} cannot be written by the server"
                f"{': its file system is read-only' if readonly else ''}. Nothing was changed.",
                "Correct that first.",
            )
        room = os.statvfs(place)
        if room.f_blocks and room.f_bavail * room.f_frsize < ROOM:
            raise HostFailed(
                f"The file system of {place} is full. Nothing was changed.", "Free space on it, then retry."
            )
    return text


def _refused(path: str, error: OSError) -> HostFailed:
    return HostFailed(
        f"{path} cannot be replaced by the server: {error.strerror or error}. Nothing was changed.",
        "It must belong to the server's user, on a file system that can be written.",
    )


def complaint(found: Service, text: str) -> str:
    """What a server says against starting with a text of that file; empty if it could start.

    Raises HostFailed.
    """
    try:
        return str(as_user(found.owner, lambda: _complaint(found, text, Places()), TIME_LIMIT))
    except OSError as error:
        raise files.failure(error, "What a start needs cannot be tried") from error


# --- as the server's user


def _complaint(found: Service, text: str, where: Places) -> str:
    said, memory = _tried(found, text)
    for _again in range(TRIES):
        if TORN in said:
            said, memory = _tried(found, text)
    return said or places.memory(memory, where) or places.wrong(where, found.data_directory)


def _tried(found: Service, text: str) -> tuple[str, int]:
    scratch = tempfile.mkdtemp(prefix="pgops-trial-", dir=TEMPORARY)
    try:
        _furnish(found.data_directory, scratch, text)
        return _asked(found, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _furnish(data: str, scratch: str, text: str) -> None:
    """Links to what is in the data directory, for files that are named relative to it, and copies of the rest."""
    for name in os.listdir(data):
        there, here = os.path.join(data, name), os.path.join(scratch, name)
        if os.path.isdir(there) and (name in INNER or name.startswith("pg_")):
            # Never a link to these: a server that starts clears some of them.
            os.mkdir(here, 0o700)
        elif name not in OWN:
            os.symlink(there, here)
    for name in ("PG_VERSION", "global/pg_control"):
        shutil.copyfile(os.path.join(data, name), os.path.join(scratch, name))
    path = os.path.join(scratch, autoconf.NAME)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(text.encode("utf-8", "surrogateescape"))


def _asked(found: Service, scratch: str) -> tuple[str, int]:
    """What the program says against the configuration, and the shared memory that it needs, in MB, 0 if unknown."""
    settings = {**QUIET, "data_directory": scratch}
    if found.configuration:
        settings["config_file"] = found.configuration
    words = [os.path.join(found.bin_directory, "postgres"), *found.arguments]
    words += ["-D", found.data_directory]
    words += [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    words += ["-C", MEMORY]
    # The output of both kinds in its order, and the exit code after it.
    output = commands.run(["/bin/sh", "-c", '"$@" 2>&1; echo "$?"', "sh", *words], timeout=TIME_LIMIT)
    return answer(output.replace(scratch, found.data_directory))


def answer(output: str) -> tuple[str, int]:
    """The same from the output, whose last line is the exit code. Pure."""
    *lines, code = output.splitlines()
    lines = [line for line in lines if line and not NOISE.match(line)]
    if code in CANNOT_RUN:
        return "", 0
    if code == "0":
        return "", int(lines[-1]) if lines and lines[-1].isdigit() else 0
    return " ".join(SEVERITY.sub("", line) for line in lines[:8]) or f"its program ends with exit code {code}", 0


def started(found: Service) -> dict[str, Any]:
    """The text of postgresql.auto.conf, and when it was written, in s: what a server has started with, if it has
    started since.

    Raises HostFailed.
    """

    def work() -> dict[str, Any]:
        path = os.path.join(found.data_directory, autoconf.NAME)
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            changed = os.fstat(file.fileno()).st_mtime
            return {"text": file.read().decode("utf-8", "surrogateescape"), "changed": changed}

    try:
        return dict(as_user(found.owner, work))
    except OSError as error:
        raise files.failure(error, f"{autoconf.NAME} cannot be read") from error
