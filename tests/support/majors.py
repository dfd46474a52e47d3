"""The majors that tests run on, and a server of one; what is not to be had here skips its test.

What runs on which is said by the environment variable PGOPS_TEST_MATRIX:

    newest    everything on the newest major, on the others what is marked `every_major`: the default
    smoke     what is marked `every_major`, on all majors, and nothing else
    all       everything on all majors, and what is marked `slow`

The marks `every_major(since=16)` and `every_major(until=15)` are of what older or newer majors do not have: nowhere
does it run on one.

PGOPS_TEST_MAJORS says which majors there are, such as `15,18`. PGOPS_TEST_ELSEWHERE names those of them whose tests
somebody else runs: what needs one of them for another reason, as the programs of a package do, runs all the same.
"""

from __future__ import annotations

import os

import binaries
import pytest
from servers import Server

EVERY_MAJOR = [
    pytest.param(major, id=f"pg{major}", marks=pytest.mark.xdist_group(f"pg{major}")) for major in binaries.majors()
]
EVERY_NAME = [str(one.id) for one in EVERY_MAJOR]
NEWEST = EVERY_NAME[-1]
MATRICES = ("newest", "smoke", "all")


def make_server(major: int, **options: object) -> Server:
    """A stopped server; takes what `Server.create` takes."""
    try:
        return Server.create(major, **options)  # type: ignore[arg-type]
    except binaries.UnavailableError as error:
        pytest.skip(str(error))


def matrix() -> str:
    """What was asked for.

    Raises:
        pytest.UsageError: it is none of those that there are.
    """
    asked = os.environ.get("PGOPS_TEST_MATRIX") or MATRICES[0]
    if asked not in MATRICES:
        raise pytest.UsageError(f"PGOPS_TEST_MATRIX is {asked!r}, and not one of {', '.join(MATRICES)}")
    return asked


def chosen(item: pytest.Item, asked: str) -> bool:
    """Whether a test is to run. One that needs no major's server belongs to the newest."""
    marks, major = list(item.iter_markers("every_major")), _major(item)
    if major in (f"pg{other}" for other in os.environ.get("PGOPS_TEST_ELSEWHERE", "").split(",")):
        return False
    spans = [(f"pg{mark.kwargs.get('since', 0)}", f"pg{mark.kwargs.get('until', 99)}") for mark in marks]
    if not all(first <= major <= last for first, last in spans):
        return False
    if asked != "all" and any(item.iter_markers("slow")):
        return False
    return asked == "all" or bool(marks) or (asked == "newest" and major == NEWEST)


def groups(item: pytest.Item, asked: str) -> tuple[str, ...]:
    """What has the same runs in one process, since it shares servers: the tests of a major in a module, and all the
    few of a major of which only some are run."""
    major = _major(item)
    return (major, item.nodeid.partition("::")[0]) if asked == "all" or major == NEWEST else (major,)


def _major(item: pytest.Item) -> str:
    named = [str(mark.args[0]) for mark in item.iter_markers("xdist_group")]
    return next((name for name in named if name in EVERY_NAME), NEWEST)
