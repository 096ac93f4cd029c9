# What the subjects of the second mesh do with it: a phone's app, a policy, and what is
# published.
# shellcheck shell=dash disable=SC2034,SC2154
up() { # CONFIGURATION: as the app's switch does
    file=/tmp/p/$1.conf
    ip -n p link add wg0 type wireguard
    grep -vE '^(Address|DNS|MTU) = ' "$file" >/tmp/p/kernel.conf
    in_ns p wg setconf wg0 /tmp/p/kernel.conf
    for net in $(listed Address); do ip -n p address add "$net" dev wg0; done
    ip -n p link set wg0 mtu 1280 up
    for net in $(listed AllowedIPs); do ip -n p route add "$net" dev wg0; done
    mkdir -p /etc/netns/p
    for word in $(listed DNS); do
        case $word in *[!0-9.a-f:]*) echo "search $word" ;; *) echo "nameserver $word" ;; esac
    done >/etc/netns/p/resolv.conf
}
down() { ip -n p link delete wg0; }
listed() { sed -n "s/^$1 = //p" "$file" | tr -d ,; }
row() { agent_of "$1" device list --json; }
is_at() { row "$1" | grep "\"gateway\":\"$2\""; } # GATEWAY's NAME, as a node sees it
names() { in_ns p nslookup -type="$1" "$2" 2>&1; }
is_named() { names "$1" "$2" | grep "$3"; } # TYPE NAME ADDRESS
add_phone() {
    mkdir -p /tmp/p
    agent_of g device add phone --gateway g --gateway h --routes 172.29.0.0/24 --out /tmp/p/phone.conf \
        --json >/tmp/p/told 2>&1 || cat /tmp/p/told
    file=/tmp/p/phone.conf
    P4=$(listed Address | sed 's,/32.*,,') P6=$(listed Address | sed 's,.* \([^ ]*\)/128,\1,')
    key=$(sed 's/.*"device":{.*"key":"\([^"]*\)".*/\1/' /tmp/p/told)
}
peers_of() { in_ns "$1" wg show "im$1" peers; }

policy() { # TEXT
    printf '%s\n' "$1" >/tmp/policy.toml
    agent_of g policy set /tmp/policy.toml --json >/tmp/set 2>&1 || cat /tmp/set
    set_at=$(now)
    number=$(sed 's/.*"number":\([0-9]*\).*/\1/' /tmp/set)
}
follows() { agent_of "$1" policy show --json | grep "\"enforced\":$number\b"; }
publish() { # PORT TO_PORT
    agent_of g publish n --port "$1" --to-port "$2" --on h --json >/tmp/publish 2>&1 || cat /tmp/publish
    until_true is_open "$1"
}
is_open() { agent_of h publish list --json | tr '}' '\n' | grep "\"port\":$1,.*\"to\":\"n\"" | grep '"trouble":null'; }
