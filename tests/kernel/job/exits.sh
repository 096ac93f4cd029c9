# The internet by an exit, what is left without the agent, and without nft.
# shellcheck shell=dash disable=SC2034,SC2154
overlay_says() { agent_of a status --json | grep "\"overlay\":.*$1"; }

# The internet by an exit: the stranger has addresses of it, which b leads to.
ip -n s address add 9.9.9.9/32 dev lo
ip -n s address add 2620:fe::fe/128 dev lo nodad
for node in a b; do
    ip -n $node route replace default via 192.0.2.13
    ip -n $node route replace default via 2001:db8::13
done
in_ns s nft -f - <<'RULES'
table inet seen {
    counter exit {}
    counter past {}
    chain in {
        type filter hook input priority filter;
        ip daddr 9.9.9.9 ip saddr 192.0.2.12 counter name exit
        ip6 daddr 2620:fe::fe ip6 saddr 2001:db8::12 counter name exit
        ip daddr 9.9.9.9 ip saddr 192.0.2.11 counter name past
        ip6 daddr 2620:fe::fe ip6 saddr 2001:db8::11 counter name past
    }
}
RULES
seen() { in_ns s nft list counter inet seen "$1" | tr -d '\n'; }
serve s 9000
agent_of a role add b exit >/tmp/role 2>&1 || cat /tmp/role
until_true agent_of a exit use b
judge "the kernel's device marks what it sends to peers" "$(in_ns a wg show ima fwmark)" 0x20000000
for to in 9.9.9.9 2620:fe::fe; do
    until_true heard a "$to" && ok "$to is reached by the exit"
done
judge "as the exit" "$(seen exit)" 'packets [1-9]'
judge "and in no other way" "$(seen past)" 'packets 0 '
for to in 9.9.9.9 2620:fe::fe; do
    in_ns a ping -c 1 -W 1 -I eth0 "$to" >/dev/null 2>&1
done
judge "nor by an interface that a program chose" "$(seen past)" 'packets 0 '
agent_of a exit off >/tmp/off 2>&1 || cat /tmp/off
until_true heard a 9.9.9.9
judge "without an exit by its own way" "$(seen past)" 'packets [1-9]'
agent_of a exit use b >/tmp/again 2>&1 || cat /tmp/again
until_true heard a 9.9.9.9
in_ns s nft reset counters >/dev/null

kill -9 "$agent_a"
until_true heard a 9.9.9.9 && ok "the exit is used without the agent"
judge "and nothing goes past it" "$(seen past)" 'packets 0 '
judge "the kernel's device outlives the agent" "$(way a "$b4")" 'dev ima'
for to in "$a4" "$a6"; do
    judge "members go on reaching $to" "$(ask b "$to")" hello
    closed "a stranger doesn't reach $to while the agent is dead" s "$to"
    closed "nor the container's port by $to" s "$to" 8080
done
ip -n a link delete ima
judge "without it nothing leaves (IPv4)" "$(way a "$b4")" 'No route to host'
judge "without it nothing leaves (IPv6)" "$(way a "$b6")" 'No route to host'
for to in 9.9.9.9 2620:fe::fe; do
    judge "nor for the internet, to $to" "$(way a "$to")" 'No route to host'
done
ip -n a rule delete pref 905
ip -n a rule delete pref 908
judge "without our rule it would" "$(way a "$b4")" 'dev eth0'
agent_of a overlay load
judge "what was stored closes it again" "$(way a "$b4")" 'No route to host'
judge "by IPv6 too" "$(way a "$b6")" 'No route to host'
judge "and for the internet" "$(way a 9.9.9.9)" 'No route to host'

# Without the program nft: what is open is told, and closed once it is there.
mv /usr/bin/nft /usr/bin/nft.away
run_agent a
until_true overlay_says '"filter":false'
judge "without nft its routes stand" "$(agent_of a status --json)" '"filter":false,"routes":true'
judge "and status says what is open" "$(agent_of a status --json)" "isn't closed to other networks"
mv /usr/bin/nft.away /usr/bin/nft
until_true overlay_says '"filter":true' && ok "with nft it is closed again"
kill "$agent" "$agent_b"
