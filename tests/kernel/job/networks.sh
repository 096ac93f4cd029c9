# A LAN behind a gateway: true sources both ways, and what is open ends with the route.
# shellcheck shell=dash disable=SC2034,SC2154
setting() { in_ns "$1" cat "/proc/sys/net/$2"; }
has_way() { way n 172.29.0.1 | grep imn; }

until_true has_way && ok "the way to a LAN behind a gateway is the tunnel"
is_seen "a host there sees a node's own address" n 172.29.0.1 9000 "$N4"
refuses "nobody comes from there without a rule" l "$N4" 9000
policy '[[allow]]
from = ["172.29.0.0/24"]
to = ["n:9000"]'
until_true follows n
is_seen "with one it is seen by its own address" l "$N4" 9000 172.29.0.1
refuses "and reaches no more than that" l "$N4" 9100
judge "the tunnel's interface forwards" "$(setting h ipv4/conf/imh/forwarding)" 1
talk lan n 172.29.0.1 9100
until_true flows lan
agent_of g route rm 172.29.0.0/24 --gateway h >/tmp/route 2>&1 || cat /tmp/route
ends "what is open to it ends with the route" lan "$(now)"
policy ''
