# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Addresses of channels, what of them may be shown, and what became of a message."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import artifact
import pytest

from pgops.alerting import channels, senders
from pgops.errors import HostFailed, InvalidInput

URL = "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#ops"
W, D = logging.WARNING, logging.DEBUG


def written(tmp_path: Path, text: str, mode: int = 0o600) -> str:
    path = tmp_path / "channels.json"
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def given(**channel: object) -> str:
    return json.dumps({"format": 1, "channels": {"ops": {"kind": "apprise", "targets": {"chat": URL}, **channel}}})


def test_channels_have_targets_and_show_no_address(tmp_path: Path) -> None:
    found, errors = channels.load(written(tmp_path, given()))
    assert errors == []
    assert found["ops"].targets == {"chat": URL}
    assert "slack" not in repr(found)
    assert channels.load(str(tmp_path / "none")) == ({}, [])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f'{{"{URL}', "is not JSON"),
        ("[]", "is not JSON with an object"),
        ('{"channels": {}, "format": 2}', "format that this version cannot read"),
    ],
)
def test_a_file_that_is_wrong_is_refused_without_a_word_of_its_secrets(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words) as raised:
        channels.load(written(tmp_path, text))
    assert "TIiaj" not in str(raised.value)
    assert raised.value.__cause__ is None


@pytest.mark.parametrize(
    ("name", "channel", "words"),
    [
        ("bad", {"kind": URL}, "none of the kinds"),
        ("bad", {"targets": {}}, "no targets"),
        ("bad", {"targets": [URL]}, "no targets"),
        ("bad", {"targets": {URL: URL}}, "not a name with a URL"),
        ("bad", {"targets": {"chat": 5}}, "not a name with a URL"),
        ("bad", None, "none of the kinds"),
        (URL, {}, "a name that cannot be used"),
    ],
)
def test_a_channel_that_is_wrong_does_not_silence_the_others(name: str, channel: object, words: str) -> None:
    data = json.loads(given())
    whole = {"kind": "apprise", "targets": {"chat": URL}}
    data["channels"][name] = {**whole, **channel} if isinstance(channel, dict) else URL
    found, (error,) = channels.parse(json.dumps(data), "channels.json")
    assert set(found) == {"ops"}
    assert words in error
    assert "TIiaj" not in error


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(InvalidInput, match="chmod 600"):
        channels.load(written(tmp_path, given(), mode))


def test_neither_a_link_nor_a_pipe_is_read(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(written(tmp_path, given()))
    with pytest.raises(HostFailed, match="cannot be read"):
        channels.load(str(link))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    with pytest.raises(InvalidInput, match="not a file"):
        channels.load(str(pipe))


@pytest.mark.parametrize(
    ("url", "secrets"),
    [
        (URL, {"T1JJ3T3L2", "A1BRTD4JD", "TIiajkdnlazkcOXrIdevi7FQ"}),
        ("mailto://me:p%40ss%2Fword@mx.example.com?to=a@b.example", {"p%40ss%2Fword", "p@ss/word"}),
        ("json://hooks.example.com/services?token=abcd1234", {"abcd1234", "hooks.example.com"}),
    ],
)
def test_every_part_of_an_address_is_a_secret(url: str, secrets: set[str]) -> None:
    assert secrets | {url} <= channels.secrets(url)


@pytest.mark.parametrize(
    ("lines", "word"),
    [
        (
            [(W, "Failed to send JSON POST notification: Unauthorized, error=401."), (D, "Response Details:")],
            "failed",
        ),
        ([(W, "Failed to send JSON POST notification: Servers are overloaded., error=503.")], "failed"),
        ([(W, "Failed to send: Bad Gateway, error=502.")], "ambiguous"),
        ([(W, "A Connection error occurred"), (D, "Socket Exception: [Errno 111] Connection refused")], "failed"),
        ([(W, "A Connection error"), (D, "Socket Exception: Read timed out. (read timeout=4.0)")], "ambiguous"),
        (
            [(W, "A Connection error"), (D, "Socket Exception: ('Connection aborted.', Remote end closed)")],
            "ambiguous",
        ),
        ([(W, "x"), (D, "Socket Exception: (550, b'5.7.1 refused')")], "failed"),
        ([(logging.INFO, "Sent E-Mail to a"), (W, "error=401")], "ambiguous"),
        ([], "ambiguous"),
    ],
)
def test_only_what_certainly_did_not_arrive_has_failed(lines: list[tuple[int, str]], word: str) -> None:
    assert senders.judged(lines, URL).word == word


def test_a_reason_shows_no_part_of_the_address_and_is_one_short_line() -> None:
    said = "url /services/T1JJ3T3L2/TIiajkdnlazkcOXrIdevi7FQ\n\x1b[31m refused " + "x" * 1000
    error = senders.judged([(W, said)], URL).error
    assert "T1JJ3T3L2" not in error
    assert "TIiaj" not in error
    assert error.isprintable()
    assert len(error) <= senders.SHOWN


COURIERS = """
import time, os, json
from pgops.alerting.couriers import Couriers
from pgops.alerting.outcome import Outcome
works = {
    "quick": lambda: Outcome("sent"),
    "slow": lambda: time.sleep(60),
    "killed": lambda: os.kill(os.getpid(), 9),
    "broken": lambda: 1 / 0,
}
found = []
with Couriers() as couriers:
    for name, work in works.items():
        couriers.start(name, work, 1.5)
    while couriers.running:
        found += [[name, outcome.word, outcome.error] for name, outcome in couriers.wait()]
print(json.dumps(found))
"""


def test_what_hangs_is_ended_and_nobody_waits_for_it() -> None:
    run = subprocess.run(
        [sys.executable, "-c", COURIERS],
        env={**os.environ, "PYTHONPATH": str(artifact.BUILD / "lib")},
        stdout=subprocess.PIPE,
        check=True,
    )
    found = json.loads(run.stdout)
    assert found[-1] == ["slow", "ambiguous", "There was no answer in time."]
    assert sorted(found[:-1]) == [
        ["broken", "ambiguous", "The service failed with ZeroDivisionError."],
        ["killed", "ambiguous", "The sending process ended without an answer."],
        ["quick", "sent", ""],
    ]
