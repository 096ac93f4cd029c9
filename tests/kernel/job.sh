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
tunnel_works() { agent_of b ping a | grep "tunnel: packets of"; }
own() { ip -n "$1" -o address show "im$1" scope global | sed -n "s,.*$2 \([^/]*\)/$3 .*,\1,p"; }
# Asks the service on a; it says hello.
ask() { in_ns "$1" timeout 3 nc -w 2 "$2" "${3:-9000}" </dev/null 2>&1; }
closed() { judge "$1" "[$(ask "$2" "$3" "${4:-9000}")]" '^\[[^h]*\]$'; } # NAME FROM TO [PORT]
serve() { in_ns "$1" sh -c "while true; do echo hello | nc -l -p $2 >/dev/null 2>&1; done" & }
counted() { agent_of a status --json | sed 's/.*"dropped":{\([^}]*\)}.*/\1/'; }
overlay_says() { agent_of a status --json | grep "\"overlay\":.*$1"; }
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
serve a 9000
serve b 9000

for to in "$a4" "$a6"; do
    until_true heard b "$to" && echo "ok a member reaches $to"
    ip -n s route add "$to" via "$(case $to in *:*) echo 2001:db8::11 ;; *) echo 192.0.2.11 ;; esac)"
done
until_true heard s 192.0.2.11 && echo "ok a stranger reaches the LAN's address"
for to in "$a4" "$a6"; do
    closed "a stranger doesn't reach $to" s "$to"
done
for to in "$b4" "$b6"; do
    until_true heard a "$to" && echo "ok the member is reached by $to"
    ip -n s route add "$to" via "$(case $to in *:*) echo 2001:db8::11 ;; *) echo 192.0.2.11 ;; esac)"
    closed "a stranger isn't forwarded into the tunnel to $to" s "$to"
done
ip -n s route del "$b4" && ip -n s route del "$b6"
ip -n s address add "$b4" dev eth0
ip -n s address add "$b6" dev eth0 nodad
judge "a member's address doesn't count on the LAN" "$(in_ns s ping -c 1 -W 2 -I "$b4" 192.0.2.11 2>&1)" '100% packet loss'
judge "nor its IPv6 address" "$(in_ns s ping -c 1 -W 2 -I "$b6" 2001:db8::11 2>&1)" '100% packet loss'
ip -n s address del "$b4" dev eth0 && ip -n s address del "$b6" dev eth0
for to in "$b4" "$b6"; do
    ip -n a route add "$to" dev eth0
    judge "a rogue route takes nothing out of the tunnel to $to" "$(way "$to")" 'dev ima'
    judge "and it works on to $to" "$(ask a "$to")" hello
    ip -n a route del "$to" dev eth0
done
judge "what was dropped is counted" "$(counted)" '"lan_to_overlay":[1-9]'
judge "spoofed packets are counted" "$(counted)" '"lan_spoofed":[1-9]'

# A container, as an engine makes it, with its port 80 published as 8080.
ip netns add c
ip -n a link add br-c type bridge
ip -n a address add 172.30.0.1/24 dev br-c
ip -n a address add fd00:c::1/64 dev br-c nodad
ip -n a link set br-c up
ip -n a link add veth-c type veth peer name eth0 netns c
ip -n a link set veth-c master br-c up
ip -n c link set lo up
ip -n c link set eth0 up
ip -n c address add 172.30.0.2/24 dev eth0
ip -n c address add fd00:c::2/64 dev eth0 nodad
ip -n c route add default via 172.30.0.1
ip -n c route add default via fd00:c::1
in_ns a nft -f - <<RULES
table inet engine {
    chain published {
        type nat hook prerouting priority dstnat;
        ip daddr { $a4, 192.0.2.11 } tcp dport 8080 dnat ip to 172.30.0.2:80
        ip6 daddr { $a6, 2001:db8::11 } tcp dport 8080 dnat ip6 to [fd00:c::2]:80
    }
}
RULES
serve c 80
published() { ask b "$1" 8080 | grep hello; }
for to in "$a4" "$a6"; do
    until_true published "$to" && echo "ok a member reaches a container's port published on $to"
    closed "a stranger doesn't, by $to" s "$to" 8080
done
for to in 192.0.2.11 2001:db8::11; do
    judge "a stranger does by the LAN's address $to" "$(ask s "$to" 8080)" hello
done
for to in "$a4" "$a6" "$b4" "$b6"; do
    judge "the container reaches $to" "$(ask c "$to")" hello
done
key=$(in_ns a wg show ima public-key)
through() {
    in_ns b wg set imb peer "$key" allowed-ips "$a4,$a6,172.30.0.2/32,fd00:c::2/128"
    ! ask b "$1" 80 | grep -q hello && counted | grep "\"tunnel_through\":$2"
}
ip -n b route add 172.30.0.2 dev imb
ip -n b route add fd00:c::2 dev imb
until_true through 172.30.0.2 '[1-9]' && echo "ok a member that adds the container's network to its own device is dropped"
before=$(counted | sed 's/.*"tunnel_through":\([0-9]*\).*/\1/')
more() { through fd00:c::2 '[1-9]' && [ "$(counted | sed 's/.*"tunnel_through":\([0-9]*\).*/\1/')" -gt "$before" ]; }
until_true more && echo "ok by IPv6 too"
judge "nothing would have left unencrypted" "$(counted)" '"leak":0'

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
    until_true heard a "$to" && echo "ok $to is reached by the exit"
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

kill -9 $agent
until_true heard a 9.9.9.9 && echo "ok the exit is used without the agent"
judge "and nothing goes past it" "$(seen past)" 'packets 0 '
judge "the kernel's device outlives the agent" "$(way "$b4")" 'dev ima'
for to in "$a4" "$a6"; do
    judge "members go on reaching $to" "$(ask b "$to")" hello
    closed "a stranger doesn't reach $to while the agent is dead" s "$to"
    closed "nor the container's port by $to" s "$to" 8080
done
ip -n a link delete ima
judge "without it nothing leaves (IPv4)" "$(way "$b4")" 'No route to host'
judge "without it nothing leaves (IPv6)" "$(way "$b6")" 'No route to host'
for to in 9.9.9.9 2620:fe::fe; do
    judge "nor for the internet, to $to" "$(way "$to")" 'No route to host'
done
ip -n a rule delete pref 905
ip -n a rule delete pref 908
judge "without our rule it would" "$(way "$b4")" 'dev eth0'
agent_of a overlay load
judge "what was stored closes it again" "$(way "$b4")" 'No route to host'
judge "by IPv6 too" "$(way "$b6")" 'No route to host'
judge "and for the internet" "$(way 9.9.9.9)" 'No route to host'

# Without the program nft: what is open is told, and closed once it is there.
mv /usr/bin/nft /usr/bin/nft.away
/usr/bin/ip netns exec a /usr/bin/agent --dir /tmp/a run >/tmp/a2.log 2>&1 &
until_true overlay_says '"filter":false'
judge "without nft its routes stand" "$(agent_of a status --json)" '"filter":false,"routes":true'
judge "and status says what is open" "$(agent_of a status --json)" "isn't closed to other networks"
mv /usr/bin/nft.away /usr/bin/nft
until_true overlay_says '"filter":true' && echo "ok with nft it is closed again"
grep -iE ' (WARN|ERROR) ' /tmp/a.log
echo "the job has ended"
