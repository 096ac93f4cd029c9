# The job of the emulated machine: two agents with the kernel's WireGuard and a
# stranger, on one LAN. Says `ok NAME` or `FAILED NAME: what was seen`.
# shellcheck shell=dash

# What the console said before may have no end.
judge() { # NAME SEEN PATTERN
    if echo "$2" | grep -q "$3"; then printf '\nok %s\n' "$1"; else printf '\nFAILED %s: %s\n' "$1" "$2"; fi
}
# Busybox's shell prefers an `ip` of its own, which can do less.
ip() { /usr/bin/ip "$@"; }
in_ns() { ip netns exec "$@"; }
agent_of() { node=$1 && shift && in_ns "$node" agent --dir "/tmp/$node" "$@"; }
until_true() { # COMMAND...
    tries=200
    until "$@" >/tmp/tried 2>&1; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || { echo "FAILED $*: $(cat /tmp/tried)"; return 1; }
        sleep 0.2
    done
}
tunnel_works() { agent_of b ping a | grep "tunnel: works"; }
own() { ip -n "$1" -o address show "im$1" scope global | sed -n "s,.*$2 \([^/]*\)/$3 .*,\1,p"; }
# Asks the service on a; it says hello.
ask() { in_ns "$1" timeout 3 nc -w 2 "$2" 9000 </dev/null 2>&1; }
heard() { ask "$@" | grep hello; }
way() { ip -n a route get "$1" 2>&1 | head -n 1; }

ip link add lan type bridge
ip link set lan up
number=11
for node in a b s; do
    ip netns add $node
    ip -n $node link set lo up
    ip link add "port-$node" type veth peer name eth0 netns $node
    ip link set "port-$node" master lan up
    ip -n $node address add 192.0.2.$number/24 dev eth0
    ip -n $node address add 2001:db8::$number/64 dev eth0 nodad
    ip -n $node link set eth0 up
    number=$((number + 1))
done
ip -n a route add default via 192.0.2.12
ip -n a route add default via 2001:db8::12
in_ns a sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding'
for node in a b; do
    mkdir -p /tmp/$node
    printf '[tunnel]\ninterface = "im%s"\nbackend = "kernel"\n' $node >/tmp/$node/config.toml
done

agent_of a init --domain lab.internal --name a --no-start >/tmp/init 2>&1 || cat /tmp/init
# Not by a function, which would be a shell with an id of its own.
/usr/bin/ip netns exec a /usr/bin/agent --dir /tmp/a run >/tmp/a.log 2>&1 &
agent=$!
until_true agent_of a status
token=$(agent_of a invite --json | sed 's/.*"token":"\([^"]*\)".*/\1/')
agent_of b join 192.0.2.11 --token "$token" --name b --no-start >/tmp/join 2>&1 || cat /tmp/join
agent_of b run >/tmp/b.log 2>&1 &
until_true tunnel_works
judge "the kernel's WireGuard carries the tunnel" "$(ip -n a -d link show ima)" wireguard
a4=$(own a inet 16) a6=$(own a inet6 48) b4=$(own b inet 16) b6=$(own b inet6 48)
in_ns a sh -c 'while true; do echo hello | nc -l -p 9000 >/dev/null 2>&1; done' &

for to in "$a4" "$a6"; do
    until_true heard b "$to" && echo "ok a member reaches $to"
    ip -n s route add "$to" via "$(case $to in *:*) echo 2001:db8::11 ;; *) echo 192.0.2.11 ;; esac)"
done
until_true heard s 192.0.2.11 && echo "ok a stranger reaches the LAN's address"
for to in "$a4" "$a6"; do
    judge "a stranger doesn't reach $to" "[$(ask s "$to")]" '^\[[^h]*\]$'
done
ip -n s route add "$b6" via 2001:db8::11
judge "a stranger isn't forwarded into the tunnel" "$(in_ns s ping -c 1 -W 2 "$b6" 2>&1)" '100% packet loss'
ip -n s address add "$b4" dev eth0
judge "a member's address doesn't count on the LAN" "$(in_ns s ping -c 1 -W 2 -I "$b4" 192.0.2.11 2>&1)" '100% packet loss'
ip -n a route add "$b4" dev eth0
judge "a rogue route takes nothing out of the tunnel" "$(way "$b4")" 'dev ima'
ip -n a route del "$b4" dev eth0
counted=$(agent_of a status --json | sed 's/.*"dropped":{\([^}]*\)}.*/\1/')
judge "what was dropped is counted" "$counted" '"lan_to_overlay":[1-9]'
judge "spoofed packets are counted" "$counted" '"lan_spoofed":[1-9]'

kill -9 $agent
judge "the kernel's device outlives the agent" "$(way "$b4")" 'dev ima'
ip -n a link delete ima
judge "without it nothing leaves (IPv4)" "$(way "$b4")" 'No route to host'
judge "without it nothing leaves (IPv6)" "$(way "$b6")" 'No route to host'
ip -n a rule delete pref 905
judge "without our rule it would" "$(way "$b4")" 'dev eth0'
agent_of a overlay load
judge "what was stored closes it again" "$(way "$b4")" 'No route to host'
grep -iE ' (WARN|ERROR) ' /tmp/a.log
echo "the job has ended"
