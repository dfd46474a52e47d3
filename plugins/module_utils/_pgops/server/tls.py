# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether a server really offers TLS: with `ssl = on` and a certificate that it could not load, it does not."""

from __future__ import annotations

import socket
import struct

REQUEST = struct.pack("!ii", 8, 80877103)
"""SSLRequest, which a server answers with S or N (PostgreSQL, "Message Formats")."""
WAIT = 10
"""Seconds to wait for the answer."""


def speaks(host: str, port: str, seconds: float = WAIT) -> bool | None:
    """Whether the server at a host and port offers TLS; None if nothing answers there."""
    try:
        with socket.create_connection((host, int(port)), timeout=seconds) as wire:
            wire.sendall(REQUEST)
            return {b"S": True, b"N": False}.get(wire.recv(1))
    except (OSError, ValueError):
        return None
