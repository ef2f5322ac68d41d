#!/usr/bin/env bash
# babeld 1.12.1-1 and BIRD 2.0.12-7 (Debian 12), root needed (network namespaces).
#
# Behaviour: babeld announces IPv4 with an IPv6 next hop where a link has no IPv4 address ("v4-via-v6", its
# default). BIRD 2.0.12 has no setting for it in its Babel and neither takes nor passes such routes on; IPv6
# routes of the same neighbours cross it.
#
# Seen, in a line of babeld - BIRD - babeld with link-local addresses only: the far babeld's kernel has the IPv6
# route and not the IPv4 one. With babeld in the middle it has both.
#
# For users: a network of Babel speakers is as capable as the least of them on each path, without an error.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

apt-get -qq download babeld=1.12.1-1 bird2=2.0.12-7 libb2-1 libssh-gcrypt-4 2> apt.log || { cat apt.log; exit 1; }
for package in *.deb; do dpkg -x "$package" root; done
babeld=$work/root/usr/sbin/babeld
bird=$work/root/usr/sbin/bird
export LD_LIBRARY_PATH=$work/root/usr/lib/x86_64-linux-gnu
ns=finding$$
trap 'kill $(jobs -p) 2> /dev/null || true; wait; for n in a b c; do ip netns del $ns$n; done; rm -rf "$work"' EXIT
for n in a b c; do
    ip netns add $ns$n
    ip -n $ns$n link set lo up
    ip netns exec $ns$n sysctl -qw net.ipv6.conf.all.forwarding=1 net.ipv4.ip_forward=1
done
ip -n ${ns}a link add left type veth peer name right netns ${ns}b
ip -n ${ns}b link add left type veth peer name right netns ${ns}c
for end in a/left b/right b/left c/right; do ip -n $ns${end%/*} link set "${end#*/}" up; done
ip -n ${ns}a addr add 192.0.2.1/32 dev lo
ip -n ${ns}a addr add 2001:db8::1/128 dev lo

cat > bird.conf <<'BIRD'
router id 198.51.100.2;
protocol device {}
protocol kernel { ipv4 { export all; }; }
protocol kernel { ipv6 { export all; }; }
protocol babel {
    interface "left", "right" { type wired; };
    ipv4 { import all; export all; };
    ipv6 { import all; export all; };
}
BIRD

speak() { # namespace, interfaces: babeld there
    ip netns exec "$ns$1" "$babeld" -S "$work/$1.state" -I "$work/$1.pid" \
        -C 'redistribute local' -C 'redistribute deny' "${@:2}" > "$work/$1.log" 2>&1 &
}

has() { # family, address: whether the far end has a route by Babel
    for _ in $(seq 60); do
        ip -n ${ns}c "$1" route show proto babel | grep -q "$2" && { echo yes; return; }
        sleep 0.5
    done
    echo no
}

for middle in BIRD babeld; do
    speak a left
    speak c right
    case $middle in
        BIRD) ip netns exec ${ns}b "$bird" -f -c bird.conf -s "$work/bird.ctl" > bird.log 2>&1 & ;;
        babeld) speak b left right ;;
    esac
    echo "$middle between: IPv6 $(has -6 2001:db8::1), IPv4 $(has -4 192.0.2.1)" >> seen
    kill $(jobs -p) 2> /dev/null || true
    wait
    sleep 1
done

expected='BIRD between: IPv6 yes, IPv4 no
babeld between: IPv6 yes, IPv4 yes'
seen=$(cat seen)
printf '%s\n' "$seen"
[ "$seen" = "$expected" ] || {
    printf 'this has changed; expected:\n%s\n' "$expected" >&2
    exit 1
}
