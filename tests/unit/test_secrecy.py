# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Of values that can hold secrets people see what is none, and nothing else."""

from __future__ import annotations

import re

import artifact
import pytest
from hypothesis import given
from hypothesis import strategies as st
from secretive import MARK

from pgops import secrecy
from pgops.errors import Conflict
from pgops.statements import redaction

SHOWN = [
    ("primary_conninfo", "host=a user=b password=hunter2", "host=a user=b password=(hidden)"),
    ("primary_conninfo", "host=a password = 'hunter2 \\' x' port=5", "host=a password=(hidden) port=5"),
    ("primary_conninfo", "host=a password=hunter2\\ x", "host=a password=(hidden)"),
    ("primary_conninfo", "host=a sslpassword=hunter2 sslkey=/k", "host=a sslpassword=(hidden) sslkey=/k"),
    ("primary_conninfo", "host=a scram_client_key=hunter2", "host=a scram_client_key=(hidden)"),
    ("primary_conninfo", "host=a options='-c app.secret=hunter2'", "host=a options=(hidden)"),
    ("primary_conninfo", "dbname='postgresql://a:hunter2@b/c'", "dbname=(hidden)"),
    ("primary_conninfo", "host=a password=two hunter2", "(hidden)"),
    ("primary_conninfo", "host=a password='hunter2", "(hidden)"),
    ("primary_conninfo", "postgresql://a:hunter2@b/c?sslmode=require", "postgresql://a:(hidden)@b/c?sslmode=require"),
    ("primary_conninfo", "postgres://a:x@hunter2@b/c", "postgres://a:(hidden)@b/c"),
    ("primary_conninfo", "postgres://b/c?user=a&password=hunter2", "postgres://b/c?user=a&password=(hidden)"),
    ("primary_conninfo", "postgres://b/c?user=a&password=x@hunter2", "postgres://(hidden)"),
    ("primary_conninfo", "postgres://b:5/c?password=x@hunter2", "postgres://(hidden)"),
    ("app.url", "https://hunter2@example.org/x", "https://(hidden)@example.org/x"),
    ("app.url", "https://example.org/x?api_key=hunter2&y=1", "https://example.org/x?api_key=(hidden)&y=1"),
    ("archive_command", "curl -H 'Authorization: Bearer hunter2' -T %p https://x/%f", "curl (hidden)"),
    ("archive_command", "curl -u me:hunter2 -T %p https://x/%f", "curl (hidden)"),
    ("archive_command", "curl -T %p https://me:hunter2@x/%f", "curl (hidden)"),
    ("archive_command", "push --api-key hunter2 %p", "push (hidden)"),
    ("archive_command", "push --token=hunter2 %p", "push (hidden)"),
    ("archive_command", "/opt/x/push 0123hunter2hunter2abcdef %p", "/opt/x/push (hidden)"),
    ("archive_command", "PGPASSWORD=hunter2 push %p", "(hidden)"),
    ("archive_command", "AWS_SECRET_ACCESS_KEY='hunter2' push %p", "(hidden)"),
    ("restore_command", "sshpass -p hunter2 scp x:%f %p", "(hidden)"),
    ("archive_command", "openssl enc -aes-256-cbc -pass pass:hunter2 -in %p -out /b/%f", "openssl (hidden)"),
    ("archive_command", "curl -sfu me:hunter2 -T %p https://x/%f", "curl (hidden)"),
    ("archive_command", "curl --proxy-user me:hunter2 -T %p https://x/%f", "curl (hidden)"),
    ("archive_command", "curl -H 'X-Vault: hunter2' -T %p https://x/%f", "curl (hidden)"),
    ("archive_command", "lftp -u me,hunter2 -e 'put %p' x", "lftp (hidden)"),
    ("archive_command", "smbclient //x/wal -U me%hunter2 -c 'put %p'", "smbclient (hidden)"),
    ("archive_command", "7z a -phunter2 /b/%f.7z %p", "7z (hidden)"),
    ("archive_command", "push -p hunter2 %p", "push (hidden)"),
    ("archive_command", "push --pass hunter2 %p", "push (hidden)"),
    ("archive_command", "push --auth=hunter2 %p", "push (hidden)"),
    ("archive_command", "push --psk hunter2 %p", "push (hidden)"),
    ("archive_command", "PASS=hunter2 push %p", "(hidden)"),
    ("archive_command", "rclone copyto %p :sftp,host=x,pass=hunter2:/b/%f", "rclone (hidden)"),
    ("archive_command", "azcopy copy %p 'https://x/b/%f?sv=2022-11-02&sig=hunter2%2B'", "azcopy (hidden)"),
    ("app.url", "https://example.org/x?sig=hunter2&y=1", "https://example.org/x?sig=(hidden)&y=1"),
    ("app.db_pass", "hunter2", "(hidden)"),
    ("ssl_passphrase_command", "echo hunter2", "(hidden)"),
    ("app.secret", "hunter2", "(hidden)"),
    ("app.api_key", "hunter2", "(hidden)"),
    ("app.key", "hunter2", "(hidden)"),
    ("Acme.PassWord", "hunter2", "(hidden)"),
]

OPEN = [
    ("primary_conninfo", "host=a user=b passfile=/etc/x sslmode=verify-full"),
    ("primary_conninfo", "postgresql://b@a,c/d?target_session_attrs=any"),
    ("archive_command", "test ! -f /mnt/a/%f && cp %p /mnt/a/%f"),
    ("archive_command", "pgbackrest --stanza=main archive-push %p"),
    ("archive_command", '/usr/local/lib/pgops/archiver push /mnt/x 17-7123456789012345678 none "%p" || exit 1'),
    ("archive_command", "rsync -ptgou %p db-backup@x:/b/%f"),
    ("archive_command", "scp -pC -P 2222 %p x:/b/%f && psql -p 5432 -U postgres -c 'SELECT 1'"),
    ("archive_command", "cp -pu %p /mnt/compass/%f; find /mnt/bypass -name %f -print"),
    ("restore_command", "cp /b/%f %p || test -e /b/author/pin -o -e /b/passage/x"),
    ("ssl_ciphers", "HIGH:MEDIUM:+3DES:!aNULL:!PSK:!SRP"),
    ("shared_preload_libraries", "pgcrypto, passwordcheck"),
    ("search_path", '"$user", private'),
    ("log_line_prefix", "%m [%p] user=%u,db=%d "),
    ("primary_slot_name", "node2_slot_1234567890123"),
    ("password_encryption", "scram-sha-256"),
    ("ssl_key_file", "/etc/ssl/private/server.key"),
    ("recovery_target_time", "2025-01-01 00:00:00+00"),
    ("work_mem", "64MB"),
    ("ssl", "on"),
]


@pytest.mark.parametrize(("name", "value", "shown"), SHOWN)
def test_secrets_are_hidden_and_what_is_around_them_is_shown(name: str, value: str, shown: str) -> None:
    assert secrecy.setting(name, value) == shown


@pytest.mark.parametrize(("name", "value"), OPEN)
def test_what_holds_no_secret_is_shown(name: str, value: str) -> None:
    assert secrecy.setting(name, value) == value
    assert secrecy.secrets({name: value}) == set()


@pytest.mark.parametrize(("name", "value", "_shown"), SHOWN)
def test_a_secret_is_hidden_where_others_quote_it(name: str, value: str, _shown: str) -> None:
    found = secrecy.secrets({name: value})
    assert MARK not in secrecy.hidden(f'invalid value for parameter "{name}": "{value}"', found)
    with pytest.raises(Conflict) as caught, secrecy.keeping(found):
        raise Conflict(f"It is {value}.", f"Not {value}.")
    assert MARK not in f"{caught.value} {caught.value!r} {caught.value.hint}"


@given(st.text(alphabet="ab '\\=:@/hunter2", max_size=12), st.text(alphabet="ab '\\=:@/", max_size=6))
def test_no_password_of_a_connection_string_is_shown(before: str, behind: str) -> None:
    quoted = (before + MARK + behind).replace("\\", "\\\\").replace("'", "\\'")
    assert MARK not in str(secrecy.setting("primary_conninfo", f"host=a password='{quoted}' user=b"))
    raw = f"host=a password={before}{MARK}{behind}"
    assert MARK not in str(secrecy.setting("primary_conninfo", raw))


def test_types_that_hold_no_secrets_are_shown() -> None:
    assert secrecy.setting("credcheck.password_min_length", "12", "integer") == "12"
    assert secrecy.setting("credcheck.password_min_length", "12") == "(hidden)"


def test_a_short_secret_is_hidden_as_a_word_only() -> None:
    assert secrecy.hidden("the port is 5, not 5432", {"5"}) == "the port is (hidden), not 5432"


def test_all_that_hides_secrets_has_the_same_words() -> None:
    (text,) = artifact.LIBRARY.rglob("redacted.sql")
    in_sql = "".join(re.findall(r"^ +'(.*?)';?$", text.read_text().partition("secretive CONSTANT")[2], re.MULTILINE))
    for words in (secrecy.WORDS, secrecy.LOGIN):
        assert words in in_sql
        assert words in redaction.SECRETIVE.pattern
    assert words in secrecy.ASSIGNED.pattern


def test_long_texts_take_no_longer_than_their_length_allows() -> None:
    for piece in (
        "a=",
        "a='",
        "password ",
        "-u ",
        "x" * 10,
        "://",
        "key=\\",
        "1a",
        "dbname=",
        "postgres://@?",
        "-",
        " -p1a",
        "-H x",
    ):
        assert isinstance(secrecy.setting("archive_command", piece * 20_000), str)
