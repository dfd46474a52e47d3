"""The majors that tests run on, and a server of one; what is not to be had here skips its test."""

from __future__ import annotations

import binaries
import pytest
from servers import Server

EVERY_MAJOR = [
    pytest.param(major, id=f"pg{major}", marks=pytest.mark.xdist_group(f"pg{major}")) for major in binaries.majors()
]


def make_server(major: int, **options: object) -> Server:
    """A stopped server; takes what `Server.create` takes."""
    try:
        return Server.create(major, **options)  # type: ignore[arg-type]
    except binaries.UnavailableError as error:
        pytest.skip(str(error))
