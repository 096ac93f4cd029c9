# Two members and a stranger on one LAN, and a container on one of the members.
# shellcheck shell=dash disable=SC2034,SC2154
plug a 11
plug b 12
plug s 13
ip -n a route add default via 192.0.2.12
ip -n a route add default via 2001:db8::12
in_ns a sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding'
configure a b
begin_mesh a
agent_a=$agent
join_mesh b a 192.0.2.11
agent_b=$agent
until_true tunnel_works b a
judge "the kernel's WireGuard carries the tunnel" "$(ip -n a -d link show ima)" wireguard
a4=$(own a inet 16) a6=$(own a inet6 48) b4=$(own b inet 16) b6=$(own b inet6 48)
serve a 9000
serve b 9000

for to in "$a4" "$a6"; do
    until_true heard b "$to" && ok "a member reaches $to"
    ip -n s route add "$to" via "$(case $to in *:*) echo 2001:db8::11 ;; *) echo 192.0.2.11 ;; esac)"
done
until_true heard s 192.0.2.11 && ok "a stranger reaches the LAN's address"
for to in "$a4" "$a6"; do
    closed "a stranger doesn't reach $to" s "$to"
done
for to in "$b4" "$b6"; do
    until_true heard a "$to" && ok "the member is reached by $to"
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
    judge "a rogue route takes nothing out of the tunnel to $to" "$(way a "$to")" 'dev ima'
    judge "and it works on to $to" "$(ask a "$to")" hello
    ip -n a route del "$to" dev eth0
done
judge "what was dropped is counted" "$(counted a)" '"lan_to_overlay":[1-9]'
judge "spoofed packets are counted" "$(counted a)" '"lan_spoofed":[1-9]'

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
    until_true published "$to" && ok "a member reaches a container's port published on $to"
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
    ! ask b "$1" 80 | grep -q hello && counted a | grep "\"tunnel_through\":$2"
}
ip -n b route add 172.30.0.2 dev imb
ip -n b route add fd00:c::2 dev imb
until_true through 172.30.0.2 '[1-9]' && ok "a member that adds the container's network to its own device is dropped"
before=$(count a tunnel_through)
more() { through fd00:c::2 '[1-9]' && [ "$(count a tunnel_through)" -gt "$before" ]; }
until_true more && ok "by IPv6 too"
judge "nothing would have left unencrypted" "$(counted a)" '"leak":0'
