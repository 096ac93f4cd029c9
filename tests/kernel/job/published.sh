# A public node in front of a service: h is public, n runs the service, w is a stranger.
# shellcheck shell=dash disable=SC2034,SC2154
link_of_n() { ip -n n -o address show scope global | grep -o 'imnp[0-9a-f]*' | head -n 1; }
has_link() { [ -n "$(link_of_n)" ]; }
end_of() { ip -n n -o address show dev "$link" scope global | sed -n "s,.*$1 \([^/]*\)/.*,\1,p"; }
# A public node that was broken into sends whatever it likes, behind its own filter.
forge() { # FAMILY SOURCE TO
    in_ns h nft "add table inet forge; flush table inet forge
        add chain inet forge out { type filter hook postrouting priority 2000; }
        add rule inet forge out $1 daddr $3 tcp dport 9000-9100 $1 saddr set $2"
}
is_dropped() { # COUNTER OF FROM TO PORT
    before=$(count "$2" "$1")
    who "$3" "$4" "$5" >/dev/null
    [ "$(count "$2" "$1")" -gt "$before" ]
}

publish 2525 9000
until_true has_link
link=$(link_of_n)
judge "a link is the kernel's too" "$(ip -n n -d link show "$link")" wireguard
is_seen "a stranger is seen by its own address" w "$h4" 2525 "$w4"
is_seen "by IPv6 too" w "$h6" 2525 "$w6"
refuses "nothing else is reached by the public node" w "$h4" 9000
E4=$(end_of inet) E6=$(end_of inet6)
for to in "$E4" "$E6"; do
    until_true is_dropped not_published n h "$to" 9000 && ok "the public node itself doesn't reach $to"
done
while read -r family source to port <&3; do
    forge "$family" "$source" "$to"
    until_true is_dropped not_published n h "$to" "$port" && ok "what has the source $source is dropped at port $port"
    in_ns h nft delete table inet forge
done 3<<SOURCES
ip $G4 $E4 9000
ip6 $G6 $E6 9000
ip 203.0.113.9 $E4 9001
ip 127.0.0.1 $E4 9000
ip 192.0.2.23 $E4 9000
SOURCES
for source in "$G4" "$G6"; do
    case $source in *:*) to=$h6 ;; *) to=$h4 ;; esac
    ip -n w address add "$source" dev lo
    ip -n w route replace "$to" dev wide src "$source"
    until_true is_dropped lan_spoofed h w "$to" 2525 && ok "a stranger with the address $source is dropped"
    ip -n w route delete "$to" dev wide src "$source"
    ip -n w address delete "$source" dev lo
done

# Answers go back by the link also where the node uses an exit.
for node in g n; do
    ip -n $node route add default via 192.0.2.1
    ip -n $node route add default via 2001:db8::1
done
agent_of g role add g exit >/tmp/role 2>&1 || cat /tmp/role
until_true agent_of n exit use g
judge "what a node begins goes by its exit" "$(way n 9.9.9.9)" 'dev imn '
is_seen "a stranger is answered by the link all the same" w "$h4" 2525 "$w4"
is_seen "by IPv6 as well" w "$h6" 2525 "$w6"
agent_of n exit off >/tmp/off 2>&1 || cat /tmp/off

# A link outlives the agent, and goes with the filter.
kill -9 "$agent_n"
judge "a link outlives the agent" "$(ip -n n -d link show "$link")" wireguard
ip -n n link add other type wireguard
agent_of n overlay remove
judge "and is taken away with the filter" "$(ip -n n link show "$link" 2>&1)" 'does not exist'
judge "but not what is others'" "$(ip -n n -d link show other)" wireguard
ip -n n link delete other
run_agent n
agent_n=$agent
until_true answers w "$h4" 2525 && ok "with the agent both are there again"

# What is open ends with the publication.
publish 2526 9100
talk open w "$h4" 2526
talk open6 w "$h6" 2526
for what in open open6; do until_true flows $what; done
agent_of g unpublish n --json >/tmp/unpublish 2>&1 || cat /tmp/unpublish
ended=$(now)
ends "what is open ends with the publication" open "$ended"
ends "by IPv6 too" open6 "$ended"
refuses "and nothing answers at the port" w "$h4" 2525
nothing_left() { ! { ip -n n link show "$link" || ip -n n rule | grep 906: || ip -n n -6 rule | grep 906:; }; }
until_true nothing_left && ok "the link and its rules are gone"
