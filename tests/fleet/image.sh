#!/bin/sh
# Last step of an image's build: mmdebstrap gives the new root directory as the only argument.
# Leaves nothing behind that two hosts would share: what is a host's own is made by first_boot.sh.
set -eu
root=$1

# Reached over SSH by Ansible as an ordinary user who may become root.
chroot "$root" useradd --create-home --shell /bin/bash admin
printf 'admin ALL=(ALL:ALL) NOPASSWD: ALL\n' > "$root/etc/sudoers.d/admin"
chmod 0440 "$root/etc/sudoers.d/admin"

# What a server needs to speak German.
chroot "$root" localedef -i de_DE -f UTF-8 de_DE.UTF-8
printf 'LANG=C.UTF-8\n' > "$root/etc/default/locale"
rm -f "$root"/etc/ssh/ssh_host_* "$root"/etc/ssl/*/ssl-cert-snakeoil.* \
    "$root/etc/postgresql-common/createcluster.d/image.conf"

# Empty, and not missing: systemd then gives the host an id without treating it as a first boot.
: > "$root/etc/machine-id"
rm -f "$root/var/lib/dbus/machine-id"

# They take apt's lock at a random time after the start.
for unit in apt-daily.timer apt-daily-upgrade.timer; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done

# Tests start the exporter themselves, when they compare with it.
ln -sf /dev/null "$root/etc/systemd/system/prometheus-postgres-exporter.service"
