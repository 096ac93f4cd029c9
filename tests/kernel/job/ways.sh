# Two nodes behind NATs, each of a kind, and a node with a public address that is a relay.
# shellcheck shell=dash disable=SC2034,SC2154
plug q 31
plug s 32
plug t 33
behind() { # NODE ROUTER NETWORK
    ip netns add "$1" && ip -n "$1" link set lo up
    ip -n "$2" link add inside type veth peer name eth0 netns "$1"
    ip -n "$2" address add "$3.1/24" dev inside
    ip -n "$2" link set inside up
    ip -n "$1" address add "$3.2/24" dev eth0
    ip -n "$1" link set eth0 up
    ip -n "$1" route add default via "$3.1"
    in_ns "$2" sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
}
translate() { # ROUTER HOW: strangers are let in by neither
    in_ns "$1" nft -f - <<RULES
add table ip nat
delete table ip nat
table ip nat {
    chain out { type nat hook postrouting priority srcnat; oifname "eth0" masquerade $2; }
    chain through { type filter hook forward priority filter; iifname "eth0" ct state new drop; }
    chain in { type filter hook input priority filter; iifname "eth0" ct state new drop; }
}
RULES
}
behind u s 192.168.81
behind v t 192.168.82
for router in s t; do translate $router random,fully-random; done
configure q u v
begin_mesh q
agent_of q role add q relay >/tmp/role 2>&1 || cat /tmp/role
join_mesh u q 192.0.2.31
join_mesh v q 192.0.2.31
has_relay() { agent_of "$1" status --json | grep '"relay":"q","places":\|"places":.*"relay":"q"'; }
for node in u v; do until_true has_relay $node; done
V4=$(own v inet 16)
began=$(now)
until_true in_ns u ping -c 1 -W 10 "$V4"
took=$(($(now) - began))
judge "the first packet by a relay, after $(seconds $took)" "$([ $took -le 1200 ] && echo in time)" 'in time'
goes() { agent_of "$1" peers --json | tr '}' '\n' | grep '"name":"'"$2"'"' -A 2 | grep '"path":"'"$3"'"'; } # NODE OTHER PATH
until_true goes u v relay && ok "a kernel's tunnel that goes by a relay is shown so"
judge "full packets pass by the relay" "$(agent_of u ping v)" '1280 bytes'
# Their routers let them meet from now on.
# What they mapped before goes with their network card.
for router in s t; do
    ip -n $router link set eth0 down
    translate $router ''
    ip -n $router link set eth0 up
done
meets() { in_ns u ping -c 2 -W 1 "$V4" >/dev/null && in_ns u wg show imu endpoints | grep '192.0.2.33'; }
tries=400
until meets >/tmp/tried 2>&1 || [ $tries -eq 0 ]; do
    tries=$((tries - 1))
    sleep 1
done
judge "both kernels go straight once their NATs let them, after $(seconds $(($(now) - began)))" "$(cat /tmp/tried) $(in_ns u wg show imu endpoints) $(agent_of v status --json | tr "," "\n" | grep -A4 places)" "192.0.2.33"
