# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Small file systems, to be filled, and one that hangs."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

FUSE_INIT = 26  # include/uapi/linux/fuse.h


@contextlib.contextmanager
def small(place: Path, size: str = "3m") -> Iterator[bool]:
    """Mount a small file system at a new directory; false where that cannot be done here."""
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    mounted = subprocess.run(command, check=False, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: Path) -> None:
    """Use all of it up."""
    with contextlib.suppress(OSError), (place / "filler").open("wb", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass


@contextlib.contextmanager
def hanging(place: Path) -> Iterator[bool]:
    """Mount a file system at a new directory that never answers, as a network's whose server is gone; false where
    that cannot be done here. Whoever waits for it cannot be killed until the end of the `with`."""
    place.mkdir()
    try:
        device = os.open("/dev/fuse", os.O_RDWR)
    except OSError:
        yield False
        return
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
    mounted = ctypes.CDLL(None).mount(b"silence", os.fsencode(place), b"fuse", 0, options) == 0
    stop, ending = os.pipe()
    silent = threading.Thread(target=_say_nothing, args=(device, stop))
    if mounted:
        silent.start()
    try:
        yield mounted
    finally:
        os.close(ending)
        if mounted:
            silent.join()
            subprocess.run(["umount", "-l", str(place)], check=True)
        os.close(device)
        os.close(stop)


def _say_nothing(device: int, stop: int) -> None:
    """Answer the first request, by which the kernel makes an acquaintance, and then take all others in."""
    while stop not in (ready := select.select([device, stop], [], [])[0]):
        request = os.read(device, 1 << 17) if ready else b""
        _length, operation, unique = struct.unpack_from("=IIQ", request)
        if operation == FUSE_INIT:
            version = struct.pack("=II56x", 7, 31)
            os.write(device, struct.pack("=IiQ", 16 + len(version), 0, unique) + version)
