# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What people may see of values that can hold secrets: settings, connection strings, commands, arguments of modules.
Pure.

Where it is not certain that a part is no secret, it is hidden. The words are those of the redaction of statements.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Callable
from urllib.parse import unquote

from .arguments import Spec
from .errors import PgOpsError

HIDDEN = "(hidden)"

WORDS = r"passw|passphrase|pwd|secret|token|credential|private|bearer|authorization|api.?key|access.?key|auth.?key"
"""What the names of secrets contain."""
LOGIN = r"://\S*@"
"""A login in a URL, whose password may have a slash."""

ALONE = r"(?<![a-z])pass(?![a-z])"
"""A word that is a part of many others."""

NAME = re.compile(rf"{WORDS}|{ALONE}|sshpass|key\Z|salt\Z|\Asig(nature)?\Z", re.IGNORECASE | re.ASCII)
OPEN = ("md5_password_warnings", "password_encryption", "ssl_passphrase_command_supports_reload", "sslkey")
"""Parameters of the server and of libpq that sound like secrets, and are none."""
PLAIN = ("bool", "integer", "real", "enum")
"""Types of parameters whose values are no secrets, whatever their names."""

PAIR = re.compile(r"\s*([A-Za-z_]+)\s*=\s*('(?:[^'\\]|\\.)*'|(?:[^\s'\\]|\\.)+|)(?=\s|\Z)", re.DOTALL)
"""A parameter of a connection string (libpq, conninfo_parse)."""
PARAMETERS = re.compile(
    r"host|hostaddr|port|dbname|user|pass(word|file)|require_auth|channel_binding|connect_timeout|client_encoding|options"
    r"|(fallback_)?application_name|keepalives(_\w+)?|tcp_user_timeout|replication|gss\w+|ssl\w+|requiressl|requirepeer"
    r"|krbsrvname|service(file)?|target_session_attrs|load_balance_hosts|m(ax|in)_protocol_version|scram_\w+|oauth_\w+"
)
"""libpq's names of them: what has others may be a password with spaces in it."""
URL = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]*://)(?:(\S*)@)?([^\s?@]*)(\?\S*)?\s*", re.ASCII)
ASSIGNED = re.compile(
    rf"(?:{WORDS}|{ALONE}|\bkey|_key)[\w.-]*[\"']?(?:\s*[=:]\s*\S|\s+[^\s=:])|{LOGIN}|[?&]sig(?:nature)?=\S"
    # Options: a login (-u me:it, -sfu me:it, -U me%it, --proxy-user me:it), others' names of secrets, a header, -pIT.
    r"|(?:\s|\A)(?:(?:-[a-z]{0,5}u\s+|-u|--[\w-]*(?:user|login)[=\s]+)[^\s:,%]+(?:[:,]|%(?![fpr](?:\W|\Z)))\S"
    r"|--?[\w-]*(?:auth|pin|psk)[=\s]+[^\s-]|(?:-H|--header)[=\s]*[\"']?[\w-]+:\s*\S"
    r"|-p(?:\S{6,}|\s+(?=\S*\d)(?=\S*[a-z])[^\s/%:=]{6,}(?=\s|\Z)))",
    re.IGNORECASE | re.ASCII,
)
"""A secret among other words: its name before it, a login, or a URL with one."""
RANDOM = re.compile(r"(?<![\w/.%-])(?=[\w+=-]{0,80}\d)(?=[\w+=-]{0,80}[A-Za-z])[\w+=-]{20,}(?![\w/.%])", re.ASCII)
"""A long word of letters and digits, such as keys are, that is no part of a path."""
PROGRAM = re.compile(r"\s*([\w./+-]+)(?=\s)", re.ASCII)
WORD = re.compile(r"[^\s'\"=:@?&;,/\\]{6,}")

SHORT = 4
"""Characters below which a text is only looked for as a word of its own."""
LONG = 8
"""Characters of the shortest item of a list that is looked for."""

Secrets = Collection[str]
"""Texts that are not to be shown, wherever they occur."""


def named_secret(name: str) -> bool:
    """Whether something of this name is a secret."""
    return bool(NAME.search(name)) and name.lower() not in OPEN


def mentioned(text: str) -> bool:
    """Whether a text mentions a secret."""
    return bool(NAME.search(text) or ASSIGNED.search(text))


def setting(name: str, value: str | None, kind: str = "string") -> str | None:
    """A setting's value as it is shown; ``kind`` is its type as pg_settings has it."""
    if not value or kind in PLAIN or name.lower() in OPEN:
        return value
    if named_secret(name):
        return HIDDEN
    shown = masked(value)
    if shown == value and name.lower().endswith("_command") and NAME.search(value):
        return _program(value)
    return shown


def masked(text: str) -> str:
    """A value without the secrets in it: a connection string and a URL without their passwords, and of what else
    seems to hold one its first word at most."""
    pairs = _pairs(text)
    if pairs:
        hidden = [_secret_pair(name, value) for name, value in pairs]
        shown = " ".join(f"{name}={HIDDEN if hide else value}" for hide, (name, value) in zip(hidden, pairs))
        return shown if any(hidden) else text
    url = URL.fullmatch(text)
    if url:
        return _masked_url(url)
    several = len(text.split()) > 1
    return _program(text) if ASSIGNED.search(text) or (several and RANDOM.search(text)) else text


def _pairs(text: str) -> list[tuple[str, str]]:
    """The parameters of a connection string as they are written; none where it is something else."""
    found: list[tuple[str, str]] = []
    at = 0
    while pair := PAIR.match(text, at):
        found.append((pair.group(1), pair.group(2)))
        at = pair.end()
    known = all(PARAMETERS.fullmatch(name) for name, _value in found)
    return found if known and not text[at:].strip() else []


def _secret_pair(name: str, value: str) -> bool:
    # These may be connection strings or options themselves.
    inside = _unquoted(value) if name.lower() in ("dbname", "options") else ""
    return bool(value) and (named_secret(name) or mentioned(inside))


def _unquoted(value: str) -> str:
    inner = value[1:-1] if value.startswith("'") and len(value) > 1 else value
    return re.sub(r"\\(.)", r"\1", inner, flags=re.DOTALL)


def _masked_url(url: re.Match[str]) -> str:
    scheme, login, place, query = (url.group(number) or "" for number in range(1, 5))
    user, colon, _password = login.partition(":")
    if "?" in login or "/" in user:  # then it is no login: a value behind it has an @ of its own
        return scheme + HIDDEN
    if login:
        # Elsewhere, the name may be a token.
        shown = user + (colon and f":{HIDDEN}") if scheme.startswith("postgres") else HIDDEN
        place = f"{shown}@{place}"
    options = [option.partition("=") for option in query[1:].split("&")] if query else []
    shown_options = "&".join(
        f"{name}{equals}{HIDDEN if value and _unsafe(name, value) else value}" for name, equals, value in options
    )
    return f"{scheme}{place}{'?' + shown_options if query else ''}"


def _unsafe(name: str, value: str) -> bool:
    return named_secret(name) or bool(ASSIGNED.search(unquote(value)) or RANDOM.search(value))


def _program(text: str) -> str:
    """The first word of a command, if it is nothing but a program's name."""
    first = PROGRAM.match(text)
    return f"{first.group(1)} {HIDDEN}" if first and not NAME.search(first.group(1)) else HIDDEN


# --- secrets in other texts: of the server, or of its log


def secrets(values: Mapping[str, Any]) -> set[str]:
    """The secrets in settings by name, so that they can be hidden where others quote them: each value that is not
    shown, and its parts."""
    return {found for name, value in values.items() for text in _texts(value) for found in _secrets(name, text)}


def _secrets(name: str, value: str) -> Iterator[str]:
    shown = setting(name, value) or ""
    if shown == value:
        return
    yield value
    exact = [text for key, text in _pairs(value) if _secret_pair(key, text)]
    yield from (text for one in exact for text in (one, _unquoted(one)) if text)
    url = URL.fullmatch(value)
    if url:
        password = (url.group(2) or "").partition(":")[2]
        yield from (text for text in (password, unquote(password)) if text)
    if not exact:
        yield from (word for word in WORD.findall(value) if word not in shown and not _only_name(word))


def _only_name(word: str) -> bool:
    """Whether it is what comes before a secret, and also occurs in texts that have none."""
    return bool(NAME.search(word)) and not any(character.isdigit() for character in word)


def hidden(text: str, found: Secrets) -> str:
    """A text without secrets, the longest first, since one may be a part of another; a short one is looked for as a
    word of its own."""
    for secret in sorted(found, key=len, reverse=True):
        if len(secret) < SHORT:
            text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", HIDDEN, text)
        else:
            text = text.replace(secret, HIDDEN)
    return text


@contextmanager
def keeping(found: Secrets) -> Iterator[None]:
    """Errors that are raised inside show none of these secrets."""
    try:
        yield
    except PgOpsError as error:
        error.message, error.hint = hidden(error.message, found), hidden(error.hint, found)
        error.args = (error.message,)
        raise


# --- the arguments of a module


def _wrong(value: Any, option: Mapping[str, Any]) -> bool:
    """Whether a value cannot be meant for this option: it may be a secret that was typed in the wrong line."""
    kind = option.get("type", "str")
    if option.get("choices"):
        return value not in option["choices"]
    if kind in ("int", "float"):
        return not re.fullmatch(r"\s*[+-]?[\d.]+(e[+-]?\d+)?\s*", str(value))
    if kind in ("dict", "list"):
        return not isinstance(value, {"dict": Mapping, "list": (list, tuple)}[kind])  # type: ignore[arg-type]
    return kind == "bool" and str(value).lower() not in ("0", "1", *"yntf", "yes", "no", "on", "off", "true", "false")


def mistyped(given: Mapping[str, Any], spec: Spec) -> set[str]:
    """The values that Ansible's own messages about wrong arguments may quote."""
    return set(_found(given, spec, _texts_of_wrong))


def forbidden(given: Mapping[str, Any], spec: Spec) -> set[str]:
    """What no result of a module may contain: Ansible would take all values of arguments that can hold secrets, such
    as V(on) and V(100) among settings."""
    return set(_found(given, spec, _texts_of_secret))


def _found(
    given: Mapping[str, Any], spec: Spec, texts: Callable[[Any, Mapping[str, Any]], Sequence[str]]
) -> Iterator[str]:
    for name in set(spec) & set(given):
        value, option = given[name], spec[name]
        inner = option.get("options", {})
        for one in value if isinstance(value, (list, tuple)) else [value]:
            yield from _found(one, inner, texts) if isinstance(one, Mapping) else ()
        yield from texts(value, option)


def _texts_of_wrong(value: Any, option: Mapping[str, Any]) -> Sequence[str]:
    if option.get("options") and isinstance(value, (list, tuple)):
        return [text for one in value if not isinstance(one, Mapping) for text in _texts(one)]
    return _texts(value) if value is not None and _wrong(value, option) else []


def _texts_of_secret(value: Any, option: Mapping[str, Any]) -> Sequence[str]:
    if not option.get("no_log"):
        return []
    if isinstance(value, Mapping) and option.get("type") != "raw":
        return sorted(secrets(value)) if option.get("type") == "dict" else []
    # Of a list, and of a mapping without names that tell, each text is a secret.
    return [text for text in _texts(value) if option.get("type") not in ("list", "raw") or len(text) >= LONG]


def _texts(value: Any) -> Sequence[str]:
    """All texts and numbers of a value."""
    if isinstance(value, Mapping):
        return [text for one in value.values() for text in _texts(one)]
    if isinstance(value, (list, tuple)):
        return [text for one in value for text in _texts(one)]
    return [] if value is None or isinstance(value, bool) or value == "" else [str(value)]
