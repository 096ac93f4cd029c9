# What all of the job uses: hosts that are network namespaces on one LAN, agents on
# them, and a line for each thing that was seen.
# shellcheck shell=dash disable=SC2034,SC2154

# What the console said before may have no end.
ok() { printf '\nok %s\n' "$1"; }
failed() { printf '\nFAILED %s: %s\n' "$1" "$2"; }
judge() { # NAME SEEN PATTERN
    if echo "$2" | grep -q "$3"; then ok "$1"; else failed "$1" "$2"; fi
}
# Busybox's shell prefers an `ip` of its own, which can do less.
ip() { /usr/bin/ip "$@"; }
in_ns() { ip netns exec "$@"; }
agent_of() {
    local on=$1 && shift
    in_ns "$on" agent --dir "/tmp/$on" "$@"
}
# In hundredths of a second, since the machine's start.
now() { read -r up _ </proc/uptime && echo "${up%.*}${up#*.}"; }
within() { # HUNDREDTHS COMMAND...: until it succeeds; what it said is in /tmp/tried
    limit=$(($(now) + $1)) && shift
    until "$@" >/tmp/tried 2>&1; do
        [ "$(now)" -lt $limit ] || { failed "$*" "$(head -c 400 /tmp/tried)"; return 1; }
        sleep 0.1
    done
}
# Looks seldom: each look costs what an emulated processor has to do for it.
until_true() {
    local tries=120
    until "$@" >/tmp/tried 2>&1; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || { failed "$*" "$(head -c 400 /tmp/tried)"; return 1; }
        sleep 0.5
    done
}
seconds() { printf '%d.%02d s' $(($1 / 100)) $(($1 % 100)); }

plug() { # HOST NUMBER: a host on the LAN
    ip netns add "$1"
    ip -n "$1" link set lo up
    ip link add "port-$1" type veth peer name eth0 netns "$1"
    ip link set "port-$1" master lan up
    ip -n "$1" address add "192.0.2.$2/24" dev eth0
    ip -n "$1" address add "2001:db8::$2/64" dev eth0 nodad
    ip -n "$1" link set eth0 up
}
# Not to be called in the background: that would be a shell with an id of its own.
run_agent() { # NODE: its process is in `agent`
    /usr/bin/ip netns exec "$1" /usr/bin/agent --dir "/tmp/$1" run >>"/tmp/$1.log" 2>&1 &
    agent=$!
}
configure() { # NODE...
    for node in "$@"; do
        mkdir -p "/tmp/$node"
        printf '[tunnel]\ninterface = "im%s"\nbackend = "kernel"\n' "$node" >"/tmp/$node/config.toml"
    done
}
begin_mesh() { # NODE
    agent_of "$1" init --domain lab.internal --name "$1" --no-start >/tmp/init 2>&1 || cat /tmp/init
    run_agent "$1"
    until_true agent_of "$1" status
}
join_mesh() { # NODE BY ADDRESS: asks BY, at its address
    token=$(agent_of "$2" invite --json | sed 's/.*"token":"\([^"]*\)".*/\1/')
    agent_of "$1" join "$3" --token "$token" --name "$1" --no-start >/tmp/join 2>&1 || cat /tmp/join
    run_agent "$1"
}
tunnel_works() { agent_of "$1" ping "$2" | grep "tunnel: packets of"; }
own() { ip -n "$1" -o address show "im$1" scope global | sed -n "s,.*$2 \([^/]*\)/$3 .*,\1,p"; }

# Asks the service on a; it says hello.
ask() { in_ns "$1" timeout 3 nc -w 2 "$2" "${3:-9000}" </dev/null 2>&1; }
heard() { ask "$@" | grep hello; }
closed() { judge "$1" "[$(ask "$2" "$3" "${4:-9000}")]" '^\[[^h]*\]$'; } # NAME FROM TO [PORT]
serve() { in_ns "$1" sh -c "while true; do echo hello | nc -l -p $2 >/dev/null 2>&1; done" & }
counted() { agent_of "$1" status --json | sed 's/.*"dropped":{\([^}]*\)}.*/\1/'; }
# Of the filter itself, which is less work than asking the agent.
count() { in_ns "$1" nft list counter inet innermesh "$2" | sed -n 's/.*packets \([0-9]*\) .*/\1/p'; } # NODE COUNTER
way() { ip -n "$1" route get "$2" 2>&1 | head -n 1; }

# A service that says who asks, and one that says again what it hears.
serve_who() {
    mkdir -p /tmp/www/cgi-bin
    # shellcheck disable=SC2016
    printf '#!/bin/sh\necho\necho "from=$(echo "$REMOTE_ADDR" | tr -d "[]")="\n' >/tmp/www/cgi-bin/who
    chmod +x /tmp/www/cgi-bin/who
    in_ns "$1" httpd -p "$2" -h /tmp/www
}
serve_echo() { in_ns "$1" nc -ll -p "$2" -e cat >/dev/null 2>&1 & }
url() { case $1 in *:*) echo "http://[$1]:$2/cgi-bin/who" ;; *) echo "http://$1:$2/cgi-bin/who" ;; esac; }
who() { in_ns "$1" timeout 3 wget -q -O - "$(url "$2" "$3")" 2>&1; } # FROM TO PORT
answers() { who "$@" | grep from=; }
is_seen() { # NAME FROM TO PORT ADDRESS: by that address
    until_true answers "$2" "$3" "$4" && judge "$1" "$(cat /tmp/tried)" "[=:]$5="
}
refuses() { # NAME FROM TO PORT: nobody answers
    judge "$1" "[$(who "$2" "$3" "$4")]" '^\[[^=]*\]$'
}

# What goes on for as long as answers come, with the time of each in a file.
stamped() { while read -r line; do case $line in *"$1"*) now ;; esac; done; }
talk() { # NAME FROM TO PORT: several times a second
    : >"/tmp/$1.talk"
    while sleep 0.2 && echo tick; do :; done | in_ns "$2" timeout 90 nc "$3" "$4" 2>/dev/null | stamped tick >>"/tmp/$1.talk" &
}
pings() { # NAME FROM TO
    : >"/tmp/$1.talk"
    in_ns "$2" timeout 90 ping -i 0.2 "$3" 2>/dev/null | stamped 'bytes from' >>"/tmp/$1.talk" &
}
last() { tail -n 1 "/tmp/$1.talk"; }
flows() { [ "$(last "$1")" -ge $(($(now) - 50)) ]; }
# What was cut at a time passes at most 2 s more, on this slow machine too.
ends() { # NAME TALK SINCE
    while [ "$(now)" -lt $(($3 + 500)) ]; do sleep 0.5; done
    passed=$(($(last "$2") - $3))
    [ $passed -gt 0 ] || passed=0
    judge "$1, after $(seconds $passed)" "$([ $passed -le 200 ] && echo in time)" 'in time'
}
goes_on() { judge "$1" "$(flows "$2" && echo so)" so; } # NAME TALK
