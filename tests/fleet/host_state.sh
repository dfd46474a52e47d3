#!/bin/sh
# Prints what the host is in, as three words: systemd's state, and the server's role and link.
#   running primary ready     a primary with everything in it
#   running standby ready     a standby that streams
# `unready` stands where that can't be said, `down` where the server doesn't answer. Waits for a start to end.
set -u
cd /
system=$(timeout 60 systemctl is-system-running --wait)
server=$(runuser -u postgres -- psql -XAtq -d postgres 2>/dev/null <<'SQL'
SELECT
    CASE WHEN pg_is_in_recovery() THEN 'standby ' ELSE 'primary ' END
    || CASE
        WHEN pg_is_in_recovery() THEN EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming')
        ELSE EXISTS (SELECT FROM pg_roles WHERE rolname = 'replicator')
    END;
SQL
)
case $server in
    *true) server=${server%true}ready ;;
    *false) server=${server%false}unready ;;
    *) server='down unready' ;;
esac
printf '%s %s\n' "$system" "$server"
