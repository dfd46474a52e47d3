"""A machine that stands still: all of a command's processes at once, and all of them go on."""

from __future__ import annotations

import subprocess
import sys

import artifact

PROGRAM = artifact.ROOT / "tests" / "workshop" / "stalls.py"
STALLS = ["--seed", "1", "--shortest", "0.4", "--longest", "0.5", "--every", "0.7"]
GAP = """
import os, sys, time

def longest_gap(seconds):
    began = last = time.monotonic()
    longest = 0
    while last - began < seconds:
        time.sleep(0.01)
        now = time.monotonic()
        longest, last = max(longest, now - last), now
    return longest

if not os.fork():
    os.setsid()
    if os.fork():
        os._exit(0)
    print("far", longest_gap(2) >= 0.4, flush=True)
    os._exit(0)
os.wait()
print("near", longest_gap(2.5) >= 0.4, flush=True)
sys.exit(7)
"""


def test_a_command_stands_still_with_all_that_it_has_started_and_ends_by_itself() -> None:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *STALLS, sys.executable, "-c", GAP],
        capture_output=True,
        text=True,
        check=False,
    )
    assert sorted(done.stdout.split("\n")[1:]) == ["", "far True", "near True"]
    assert done.returncode == 7


STOPPED = """
import os, signal, time

stopped = os.fork()
if not stopped:
    while True:
        time.sleep(0.01)
os.kill(stopped, signal.SIGSTOP)
time.sleep(2)
print(open(f"/proc/{stopped}/stat").read().rpartition(")")[2].split()[0])
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
