# A phone has the configuration that was printed, in the kernel's device.
# shellcheck shell=dash disable=SC2034,SC2154
add_phone
up phone
until_true is_named a n.lab.internal "$N4" && ok "a phone has a node's name by its gateway"
until_true is_named aaaa n.lab.internal "$N6" && ok "and its IPv6 address"
until_true is_named a phone.lab.internal "$P4" && ok "and its own name"
is_seen "a service on the gateway sees the phone's own address" p "$G4" 9000 "$P4"
is_seen "by IPv6 too" p "$G6" 9000 "$P6"
is_seen "a service on another node sees the phone's own address" p "$N4" 9000 "$P4"
is_seen "by IPv6 there too" p "$N6" 9000 "$P6"
is_seen "a host of a LAN behind another gateway sees the phone's own address" p 172.29.0.1 9000 "$P4"
refuses "what is no service for it isn't reached" p "$N4" 9001
judge "its way is by the router" "$(row g)" '"endpoint":"192.0.2.24:'
judge "with a key of its own for the pair" "$(agent_of g peers --json)" '"name":"phone"[^}]*"psk":true'
judge "and bytes are counted" "$(row g)" '"rx_bytes":[1-9]'
until_true is_at n g && ok "the others know by which gateway it is reached"

# Its gateway's agent dies, and the person switches to the second one.
kill -9 "$agent_g"
down
tapped=$(now)
up phone-h
within 500 answers p "$N4" 9000 && ok "the second gateway's configuration works $(seconds $(($(now) - tapped))) after the tap"
is_seen "with the same address" p "$N4" 9000 "$P4"
is_seen "by IPv6 as well" p "$N6" 9000 "$P6"
is_seen "and in the LAN behind that gateway" p 172.29.0.1 9000 "$P4"
until_true is_at n h && ok "which the others know"
run_agent g
agent_g=$agent
until_true tunnel_works n g

# Back again, and removed in the middle of what is open.
down
up phone
until_true answers p "$N4" 9000
talk far p "$N4" 9100
talk near p "$G4" 9100
pings phone p "$N4"
for what in far near phone; do until_true flows $what; done
agent_of g device rm phone --yes >/tmp/rm 2>&1 || cat /tmp/rm
removed=$(now)
ends "what a removed phone has open on another node ends" far "$removed"
ends "and on its gateway" near "$removed"
ends "and its echo requests" phone "$removed"
judge "its key is nobody's" "[$(peers_of g | grep "$key")]" '^\[\]$'
down
