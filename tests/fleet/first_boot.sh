#!/bin/sh
# A new host's first process: makes what must be the host's own, then becomes systemd.
# Arguments: the SSH public key that is let in; for a standby also its primary's name.
# A later start of the same container finds all made and goes straight to systemd.
set -eu

make_access() {
    install -d -m 0700 -o admin -g admin /home/admin/.ssh
    printf '%s\n' "$1" > /home/admin/.ssh/authorized_keys
    DEBIAN_FRONTEND=noninteractive make-ssl-cert generate-default-snakeoil --force-overwrite
    ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key
}

make_server() {
    version=$(ls /usr/lib/postgresql)
    LANG=C.UTF-8 pg_createcluster "$version" main -- --no-sync
    pg_conftool "$version" main set listen_addresses '*'
    # Everybody in the fleet's network may replicate, with the password.
    printf 'hostssl replication replicator samenet scram-sha-256\n' \
        >> "/etc/postgresql/$version/main/pg_hba.conf"
    printf '*:*:*:replicator:replicator\n' > /var/lib/postgresql/.pgpass
    chmod 0600 /var/lib/postgresql/.pgpass
    chown postgres:postgres /var/lib/postgresql/.pgpass
}

# fleet.py says when the primary has everything in it.
clone() {
    data=$(echo /var/lib/postgresql/*/main)
    until [ -e /run/primary-is-ready ]; do sleep 0.1; done
    rm -rf "$data"
    # The slot can be taken for a moment by the host's predecessor.
    until runuser -u postgres -- pg_basebackup --dbname="host=$1 user=replicator sslmode=require" \
        --pgdata="$data" --slot="$(hostname)" --checkpoint=fast --write-recovery-conf --no-sync; do
        rm -rf "$data"
        sleep 1
    done
}

# systemd since 258 runs in the unified hierarchy only. Where the machine has the old ones, the host gets a branch of
# the unified one that every kernel has beside them; it lacks the controllers, so limits on resources do nothing.
unify_cgroups() {
    all=/run/cgroup2
    branch=$all/pgops-fleet-$(hostname)
    mkdir "$all"
    mount -t cgroup2 cgroup2 "$all"
    [ ! -d "$branch" ] || find "$branch" -depth -type d -exec rmdir {} +
    mkdir "$branch"
    echo $$ > "$branch/cgroup.procs"
    umount "$all"
    rmdir "$all"
    umount -R /sys/fs/cgroup
}

if ! [ -e /etc/ssh/ssh_host_ed25519_key ]; then
    make_access "$1"
    make_server
    [ -z "${2:-}" ] || clone "$2"
fi
# systemd does it on machines; in a container it is left to whoever starts it. LoadCredential= needs it.
mount --make-rshared /
if [ "$(stat --file-system --format=%T /sys/fs/cgroup)" != cgroup2fs ]; then
    unify_cgroups
    exec unshare --cgroup sh -ec 'mount -t cgroup2 cgroup2 /sys/fs/cgroup; exec /sbin/init'
fi
exec /sbin/init
