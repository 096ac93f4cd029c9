# A policy is in force at once, for what is open too, and loses nothing of what it allows.
# shellcheck shell=dash disable=SC2034,SC2154
allow='[default]
members = "closed"
[[allow]]
from = ["n"]
to = ["h:9001,udp/9003"]'
refused_again() { ! answers n "$H4" 9002; }

serve_who h 9002
serve_echo h 9001
serve_echo h 9004
# Datagrams of a program, as they leave one host and as they are let in on the other.
in_ns n nft -f - <<'RULES'
table inet seen {
    counter sent {}
    chain out { type filter hook output priority -300; udp dport 9003 counter name sent; }
}
RULES
in_ns h nft -f - <<'RULES'
table inet seen {
    counter got {}
    chain in { type filter hook input priority 2000; udp dport 9003 counter name got drop; }
}
RULES
datagrams() { in_ns "$1" nft list counter inet seen "$2" | sed -n 's/.*packets \([0-9]*\) .*/\1/p'; }
mkfifo /tmp/never
# shellcheck disable=SC2016
in_ns n bash -c 'exec 3>"/dev/udp/$0/9003" 4<>/tmp/never
    until [ -e /tmp/enough ]; do echo x >&3; read -rt 0.02 -u 4; done' "$H4" &
flood=$!
until_true answers n "$H4" 9002
talk kept n "$H4" 9001
talk kept6 n "$H6" 9001
talk lost n "$H4" 9004
talk lost6 n "$H6" 9004
for what in kept kept6 lost lost6; do until_true flows $what; done
policy "$allow"
first=$set_at
ends "what a policy doesn't allow any more ends" lost "$set_at"
ends "by IPv6 too" lost6 "$set_at"
until_true follows h
refuses "a new connection to a port that isn't allowed is refused" n "$H4" 9002
judge "and counted" "$(counted h)" '"not_allowed":[1-9]'
judge "echo requests pass where anything does" "$(in_ns n ping -c 1 -W 2 "$H4")" ' 0% packet loss'
judge "and nowhere else" "$(in_ns g ping -c 1 -W 2 "$H4")" '100% packet loss'
policy "$allow
[[allow]]
from = [\"g\"]
to = [\"h:22\"]"
until_true follows h
policy '[default]
members = "closed"
[[allow]]
from = ["n"]
to = ["h:9001-9003"]'
within 300 answers n "$H4" 9002 && ok "what a policy allows works $(seconds $(($(now) - set_at))) after it was set"
until_true follows h
goes_on "what all of them allow has gone on" kept
goes_on "by IPv6 too" kept6
touch /tmp/enough
wait $flood
all_came() {
    echo "$(datagrams n sent) left and $(datagrams h got) came"
    [ "$(datagrams n sent)" -eq "$(datagrams h got)" ] && [ "$(datagrams n sent)" -gt 100 ]
}
within 300 all_came && ok "not one of $(datagrams n sent) datagrams was lost in $(seconds $(($(now) - first))) of changes"
policy ''
within 300 answers g "$H4" 9002 && ok "without a policy all is as before"
