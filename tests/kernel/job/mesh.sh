# A second mesh: two gateways and a node with services, each behind the LAN's cable.
# A phone is behind a router's NAT, and a LAN and a stranger are on cables of the second
# gateway.
# shellcheck shell=dash disable=SC2034,SC2154
plug g 21
plug h 22
plug n 23
plug r 24
g4=192.0.2.21
# Where a stranger finds h, and by what it is seen: not of n's own network.
h4=203.0.113.2 h6=2001:db8:7::2 w4=203.0.113.1 w6=2001:db8:7::1
give() { case $1 in *:*) ip -n "$host" address add "$1" dev "$name" nodad ;; *) ip -n "$host" address add "$1" dev "$name" ;; esac; }
wire() { # NAME HOST ADDRESS... -- HOST ADDRESS...
    name=$1 host=$2 others='' && shift 2
    while [ "$1" != -- ]; do others="$others $1" && shift; done
    ip -n "$host" link add "$name" type veth peer name "$name" netns "$2"
    for address in $others; do give "$address"; done
    ip -n "$host" link set "$name" up
    host=$2 && shift 2
    for address in "$@"; do give "$address"; done
    ip -n "$host" link set "$name" up
}
ip netns add p && ip -n p link set lo up
wire home r 198.51.100.1/24 2001:db8:5::1/64 -- p 198.51.100.2/24 2001:db8:5::2/64
in_ns r sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding'
in_ns r nft -f - <<'RULES'
table inet home {
    chain out { type nat hook postrouting priority srcnat; oifname "eth0" masquerade; }
    chain through { type filter hook forward priority filter; iifname "eth0" ct state new drop; }
}
RULES
ip -n p route add default via 198.51.100.1
ip -n p route add default via 2001:db8:5::1
ip netns add l && ip -n l link set lo up
ip netns add w && ip -n w link set lo up
wire wide w $w4/24 $w6/64 -- h $h4/24 $h6/64
wire yard h 172.29.0.2/24 -- l 172.29.0.1/24

configure g h n
begin_mesh g
agent_g=$agent
join_mesh h g $g4
join_mesh n g $g4
agent_n=$agent
for node in h n; do
    until_true tunnel_works $node g
done
until_true tunnel_works n h
G4=$(own g inet 16) G6=$(own g inet6 48) N4=$(own n inet 16) N6=$(own n inet6 48)
H4=$(own h inet 16) H6=$(own h inet6 48)
for host in g n l; do
    serve_who $host 9000
    serve_echo $host 9100
done
knows_devices() { agent_of g device rm nobody --yes 2>&1 | grep 'no device'; }
until_true knows_devices
for node in g h; do
    agent_of g role add $node gateway >/tmp/role 2>&1 || cat /tmp/role
done
agent_of h route add 172.29.0.0/24 >/tmp/route 2>&1 || agent_of g route add 172.29.0.0/24 --gateway h >/tmp/route 2>&1 || cat /tmp/route
ip -n l route add "$(echo "$N4" | cut -d. -f1,2).0.0/16" via 172.29.0.2
for node in g n; do
    agent_of $node service add "web-$node" --port 9000 >/tmp/service 2>&1 || cat /tmp/service
    agent_of $node service add "echo-$node" --port 9100 >/tmp/service 2>&1 || cat /tmp/service
done
