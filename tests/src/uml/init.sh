#!/bin/sh
# First program of the kernel peer. The kernel's command line says who it is: adit_wan, adit_lan (addresses with prefix
# length), adit_router, and adit_files, the directory of the host that it shares with whoever configures it.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
for word in $(cat /proc/cmdline); do
	case $word in adit_*=*) export "$word" ;; esac
done
mount -t hostfs none /mnt -o "$adit_files"
modprobe -a esp4 ah4 xfrm_user af_key
ip link set lo up
ip link set vec0 address 02:00:00:00:b0:01
ip link set vec1 address 02:00:00:00:b0:02
ip address add "$adit_wan" dev vec0
ip address add "$adit_lan" dev vec1
ip link set vec0 up
ip link set vec1 up
ip route add default via "$adit_router"
echo 1 > /proc/sys/net/ipv4/ip_forward
STRONGSWAN_CONF=/mnt/strongswan.conf /usr/sbin/charon-systemd > /mnt/charon.out 2>&1 &
echo "the guest is up"
while :; do sleep 3600; done
