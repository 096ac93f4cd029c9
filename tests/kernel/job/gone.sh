# A gateway and public node is evicted while a phone and a stranger use it.
# shellcheck shell=dash disable=SC2034,SC2154
add_phone
up phone-h
until_true answers p "$N4" 9000
# The link is up before anything is opened for good.
publish 2528 9000
until_true answers w "$h4" 2528
publish 2527 9100
talk stranger w "$h4" 2527
talk phone p "$N4" 9100
pings echo p "$N4"
for what in stranger phone echo; do until_true flows $what; done
key=$(in_ns h wg show imh public-key)
agent_of g evict h --yes >/tmp/evict 2>&1 || cat /tmp/evict
evicted=$(now)
ends "nothing of a stranger passes by an evicted public node" stranger "$evicted"
ends "and nothing of a phone by an evicted gateway" phone "$evicted"
ends "not even its echo requests" echo "$evicted"
for node in g n; do
    judge "its key is no peer of $node" "[$(peers_of $node | grep "$key")]" '^\[\]$'
done
judge "the phone is told to be in need of another" "$(row g)" 'is not in the mesh any more'
down
