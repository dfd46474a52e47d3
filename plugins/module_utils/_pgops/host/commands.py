# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Programs of the host, run with a time limit and without a shell.

The only place that runs any. Ansible's own way (run_command of a module) is not available to the agent.
"""

from __future__ import annotations

import os
import re
import selectors
import subprocess
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import HostFailed, ProgramFailed
from .identity import User, user

SYSTEM = ("/usr/local/sbin", "/usr/sbin", "/sbin")
LOCALE = {"LC_ALL": "C.UTF-8", "LANGUAGE": ""}
MOST_OUTPUT = 64 * 1024 * 1024
"""Bytes of output that are read from a program."""


@dataclass(frozen=True)
class Watch:
    """How a program is looked after that takes long.

    ``look`` is called every second, and what it raises ends the program. ``held`` are descriptors that it keeps open,
    such as a lock that is not free as long as it runs. Lines of its errors that match ``noise`` are no errors.
    """

    look: Callable[[], None]
    held: Sequence[int] = ()
    noise: re.Pattern[str] = re.compile(r"(?!)")


UNWATCHED = Watch(lambda: None)


def run(
    command: Sequence[str],
    timeout: float = 60.0,
    accepted: Collection[int] = (0,),
    owner: int | None = None,
    watch: Watch = UNWATCHED,
) -> str:
    """Run a program in the C locale; returns its standard output.

    ``timeout`` is in seconds; ``accepted`` are the exit codes of success. With ``owner``, a uid, the program belongs
    to that user: root runs it as that user, with nothing of root's environment, and takes only so much of its output.

    Raises HostFailed with the program's output, and for root as the owner; and what ``watch`` raises.
    """
    try:
        process = subprocess.Popen(  # pylint: disable=ansible-bad-function
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=tuple(watch.held),
            **(_own() if owner is None or os.geteuid() != 0 else _as(user(owner))),
        )
    except FileNotFoundError as error:
        raise HostFailed(f"The command {command[0]} was not found on this host.") from error
    except OSError as error:
        raise HostFailed(f"{_shown(command)} cannot be run: {error.strerror or error}.") from error
    with process:
        try:
            output, errors = _outputs(process, time.monotonic() + timeout, watch.look)
        except _TooMuch as error:
            process.kill()
            raise HostFailed(f"{_shown(command)} {error}.") from error
        except BaseException:
            process.kill()
            raise
    if process.returncode not in accepted:
        said = "\n".join(line for line in errors.splitlines() if not watch.noise.search(line))
        words = " ".join((said.strip() or output.strip()).split())[-MOST_SHOWN:]
        told = f"{_shown(command)} failed with exit code {process.returncode}: {words or 'no output'}"
        raise ProgramFailed(told, status=process.returncode)
    return output


LOOKING = 1.0
"""Seconds between two looks at a program that is watched."""
MOST_SHOWN = 8192
"""Characters of a program's errors that are shown, the last ones."""


class _TooMuch(Exception):
    """A program takes too long, or writes too much."""


def _outputs(process: subprocess.Popen[bytes], until: float, look: Callable[[], None]) -> tuple[str, str]:
    """What a program writes until it ends: standard output and errors."""
    began = looked = time.monotonic()
    texts = (bytearray(), bytearray())
    with selectors.DefaultSelector() as waiting:
        for stream, text in zip((process.stdout, process.stderr), texts):
            waiting.register(stream, selectors.EVENT_READ, text)  # type: ignore[arg-type]
        while waiting.get_map():
            ready = waiting.select(max(0.0, min(until - time.monotonic(), LOOKING)))
            if time.monotonic() > looked + LOOKING:
                look()
                looked = time.monotonic()
            if not ready and time.monotonic() >= until:
                raise _TooMuch(f"did not finish within {until - began:.0f} seconds")
            _read(waiting, [key for key, _events in ready])
            if sum(map(len, texts)) > MOST_OUTPUT:
                raise _TooMuch("writes too much")
    try:
        process.wait(max(0.0, until - time.monotonic()))
    except subprocess.TimeoutExpired as error:
        raise _TooMuch(f"did not finish within {until - began:.0f} seconds") from error
    output, errors = (text.decode("utf-8", "backslashreplace") for text in texts)
    return output, errors


def _read(waiting: selectors.BaseSelector, ready: Sequence[selectors.SelectorKey]) -> None:
    """Add to the texts what a program has written, and forget what it has closed."""
    for key in ready:
        read = os.read(key.fd, 65536)
        key.data.extend(read)
        if not read:
            waiting.unregister(key.fileobj)


def _own() -> dict[str, Any]:
    """As the user of this process."""
    return {"env": {**os.environ, **LOCALE, "PATH": _path()}}


def _as(whom: User) -> dict[str, Any]:
    """As another user, in a session of its own: it must not be able to type into root's terminal."""
    return {
        "user": whom.uid,
        "group": whom.gid,
        "extra_groups": whom.groups,
        "cwd": "/",
        "start_new_session": True,
        "env": {
            **LOCALE,
            "PATH": os.pathsep.join(("/usr/local/bin", "/usr/bin", "/bin", *SYSTEM)),
            "USER": whom.name,
        },
    }


def _path() -> str:
    """The search path for programs. Depending on how a user becomes root, PATH may lack these directories."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), *SYSTEM])


def _shown(command: Sequence[str]) -> str:
    """The start of a command: enough to recognise it, without a list of a hundred names."""
    text = " ".join(command)
    return text if len(text) <= 120 else text[:117] + "..."
