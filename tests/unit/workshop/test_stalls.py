"""A machine that stands still: all of a command's processes at once, and all of them go on."""

from __future__ import annotations

import subprocess
import sys

import artifact

PROGRAM = artifact.ROOT / "tests" / "workshop" / "stalls.py"
STALLS = ["--seed", "1", "--shortest", "0.4", "--longest", "0.5", "--every", "0.7"]
STANDS_STILL = """
import os, signal, sys, time

def stands_still():
    began = last = time.monotonic()
    while last - began < 60:  # as long as no machine takes, however busy
        time.sleep(0.01)
        last, before = time.monotonic(), last
        if last - before >= 0.4:
            return True
    return False
"""
GAP = f"""{STANDS_STILL}
reading, writing = os.pipe()
if not os.fork():
    os.setsid()
    if os.fork():
        os._exit(0)
    os.write(1, b"far %d\\n" % stands_still())
    os._exit(0)
os.wait()
os.close(writing)
os.write(1, b"near %d\\n" % stands_still())
os.read(reading, 1)  # until the other has ended
sys.exit(7)
"""


def test_a_command_stands_still_with_all_that_it_has_started_and_ends_by_itself() -> None:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *STALLS, sys.executable, "-c", GAP],
        capture_output=True,
        text=True,
        check=False,
    )
    assert sorted(done.stdout.split("\n")[1:]) == ["", "far 1", "near 1"]
    assert done.returncode == 7


STOPPED = f"""{STANDS_STILL}
stopped = os.fork()
if not stopped:
    while True:
        time.sleep(0.01)
os.kill(stopped, signal.SIGSTOP)
assert stands_still()
print(open("/proc/%d/stat" % stopped).read().rpartition(")")[2].split()[0])
os.kill(stopped, signal.SIGKILL)
"""


def test_what_was_stopped_before_stays_stopped() -> None:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *STALLS, sys.executable, "-c", STOPPED],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split("\n")[1] == "T"
