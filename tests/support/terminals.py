# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A command on a terminal of its own, as people give it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping
from types import TracebackType

import artifact
from waiting import PATIENCE, until

MAIN = "import sys; from pgops.cli import main; sys.exit(main(sys.argv[1:]))"
SEQUENCE = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z])?")
HOME = "\x1b[H"


class Terminal:
    """The agent's command on a terminal of ``width`` columns and ``height`` lines; ends with its `with`."""

    def __init__(self, *words: str, width: int = 100, height: int = 30, **environment: str) -> None:
        self.words, self.size, self.environment = words, (height, width), environment
        self.written = ""
        self._bytes = b""
        self._master = -1

    def __enter__(self) -> Terminal:
        self._master, slave = pty.openpty()
        self.resize(*self.size)
        variables: Mapping[str, str] = {
            **{name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")},
            "PYTHONPATH": str(artifact.BUILD / "lib"),
            "PYTHONWARNINGS": "ignore",
            "TERM": "xterm-256color",
            **self.environment,
        }
        command = [sys.executable, "-c", MAIN, *self.words]
        self.process = subprocess.Popen(command, env=variables, stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)
        return self

    def resize(self, height: int, width: int) -> None:
        """As somebody who pulls at the window's corner."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def press(self, key: str) -> None:
        os.write(self._master, key.encode())

    def seen(self) -> str:
        """What is on the terminal since it was last drawn anew, without what only moves and colours it."""
        self._read()
        return SEQUENCE.sub("", self.written.rpartition(HOME)[2]).replace("\r\n", "\n")

    def shows(self, text: str) -> str:
        """Wait until a text is on the terminal; all that is."""
        return until(self.seen, f"shown: {text}", lambda seen: text in seen)

    def ended(self) -> int:
        """Wait for its end; the exit code."""
        until(self._code, "ended", lambda code: code is not None)
        self._read()
        return int(self.process.wait(PATIENCE))

    def _code(self) -> int | None:
        self._read()  # who writes to a terminal that nobody reads does not end
        return self.process.poll()

    def _read(self) -> None:
        while select.select([self._master], [], [], 0)[0]:
            try:
                part = os.read(self._master, 65536)
            except OSError:  # nobody has the other end any more
                return
            if not part:
                return
            self._bytes += part
            self.written = self._bytes.decode("utf-8", "replace")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE)
        os.close(self._master)
