# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Removes secrets from the texts of statements, before they leave the server that they ran on. Pure.

pg_stat_statements replaces the constants of queries, but not those of all utility statements. A text that mentions a
secret anywhere loses all its literals, numbers and comments: rather too many than one too few.

The function pgops.redacted (sql/objects/statements/redacted.sql) has the same rules: some texts never leave the
server.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from .. import secrecy

REDACTED = "'***'"

SECRETIVE = re.compile(
    rf"{secrecy.WORDS}|{secrecy.LOGIN}|(?<![a-z])(?:pass|pw|pin)(?![a-z])"
    r"|crypt|pgp_|armor|hmac|digest|\b(?:md5|sha\d+)\s*\(|dblink|conninfo|subscription|user\s+mapping"
    r"|\bserver\b|\bprogram\b|\bset_config\b|\bset\s+(?:session\s+|local\s+)?[\w\"$]+\s*\."
    r"|\balter\s+(?:system|database|role|user)\b|u&[\"']",
    re.IGNORECASE | re.ASCII | re.DOTALL,
)
"""Words of statements that may hold secrets, wherever they are: names of secrets, logins in URLs, functions that hash
or encrypt, connections, commands, and settings for later or of a user's own. Comments may stand between the words of
a statement, so that only single words are looked for, or two where the text without comments has them; escapes of
Unicode can spell any word."""

KEYED = (
    (re.compile(r"\b(set|reset)\b", re.IGNORECASE | re.ASCII), re.compile("key", re.IGNORECASE)),
    (re.compile(r"\b(role|user|group)\b", re.IGNORECASE | re.ASCII), re.compile(r"\bencrypted\b", re.IGNORECASE)),
)
"""A word, and behind it in the same statement another one."""

PASSWORDS = ("role", "user", "group")
"""After one of these words, what follows PASSWORD is one, also where it is no literal and the statement fails."""

QUERIES = {"select", "insert", "update", "delete", "merge", "with", "values", "table"}
"""The first words of statements in which SET assigns to columns: no value of theirs is a bare word."""

TOKEN = re.compile(
    r"""
    (?P<space> \s+ )
    | (?P<comment> --[^\r\n]* | /\* )
    | (?P<literal> [eE]'(?: [^'\\] | '' | \\(?: . | \Z ) )*(?: ' | \Z ) )
    | (?P<plain> (?: [uU]& | [bBxXnN] )?'(?: [^'] | '' )*(?: ' | \Z ) )
    | (?P<name> (?: [uU]& )?"(?: [^"] | "" )*(?: " | \Z ) )
    | (?P<dollar>
        \$(?P<tag> (?: (?: [^\W\d] | [^\x00-\x7f] ) (?: \w | [^\x00-\x7f] )* )? )\$
        .*? (?: \$(?P=tag)\$ | \Z )
      )
    | (?P<parameter> \$\d+ )
    | (?P<word> (?: [^\W\d] | [^\x00-\x7f] ) (?: [\w$] | [^\x00-\x7f] )* )
    | (?P<number> \.?\d (?: [\w.] | [^\x00-\x7f] )* )
    | (?P<other> . )
    """,
    re.DOTALL | re.VERBOSE | re.ASCII,
)
"""As the server's lexer sees them: to it, all that is not ASCII is a letter."""

BLOCK_EDGE = re.compile(r"/\*|\*/")


def redacted(text: str) -> str:
    """The text without the secrets that it may hold; one that mentions none stays as it is."""
    tokens = list(_tokens(text))
    bare = " ".join(piece for kind, piece in tokens if kind not in ("space", "comment"))
    if not any(SECRETIVE.search(words) or _keyed(words) for words in (text, bare)):
        return text
    kept: list[str] = []
    assigns = _assigns(tokens)
    setting = of_role = password = False
    for kind, piece in tokens:
        if _misread(kind, piece):
            kept.append(REDACTED)
            break
        kept.append(REDACTED if password and kind in ("word", "name") else _shown(kind, piece))
        password = (password and kind in ("space", "comment")) or (of_role and piece.lower() == "password")
        of_role = of_role or (kind == "word" and piece.lower() in PASSWORDS)
        setting = setting or (kind == "word" and piece.lower() == "set")
        # The value of a setting may be a bare word, or a quoted name.
        if assigns and setting and (piece == "=" or (kind == "word" and piece.lower() == "to")):
            kept.append(f" {REDACTED}")
            break
    return "".join(kept)


def _keyed(text: str) -> bool:
    for statement in text.split(";"):
        for first, second in KEYED:
            found = first.search(statement)
            if found and second.search(statement, found.end()):
                return True
    return False


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    """The tokens of a text as (kind, piece), of which every character is in one."""
    at = 0
    while found := TOKEN.match(text, at):
        kind = _kind(found)
        end = block_end(text, at) if found.group() == "/*" else found.end()
        yield kind, text[at:end]
        at = end


def _kind(found: re.Match[str]) -> str:
    return next(name for name, piece in found.groupdict().items() if piece is not None and name != "tag")


def block_end(text: str, start: int) -> int:
    """Where a comment /* */ ends that begins at ``start``; comments nest."""
    depth = 0
    for edge in BLOCK_EDGE.finditer(text, start):
        depth += 1 if edge.group() == "/*" else -1
        if depth == 0:
            return edge.end()
    return len(text)


def _assigns(tokens: list[tuple[str, str]]) -> bool:
    """Whether SET may set a setting here, and not columns."""
    words = [piece.lower() for kind, piece in tokens if kind == "word"]
    several = any(kind == "other" and piece == ";" for kind, piece in tokens)
    return several or not words or words[0] not in QUERIES


def _misread(kind: str, piece: str) -> bool:
    """Whether the server may have read on where we see an end: a backslash escapes with standard_conforming_strings
    off, and a name may have been cut."""
    if kind == "name":
        return "\\" in piece or not piece.endswith('"') or len(piece) < 2
    return kind == "plain" and "\\" in piece


def _shown(kind: str, piece: str) -> str:
    if kind == "comment":
        return " "
    return REDACTED if kind in ("literal", "plain", "dollar", "number") else piece
