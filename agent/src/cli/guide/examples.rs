//! Examples, one place for all of them.

/// Each command with what can be typed, and what that does.
pub const EXAMPLES: &[(&str, &[(&str, &str)])] = &[
    (
        "init",
        &[
            (
                "init --domain in.example.org",
                "Create a mesh below a domain that you own",
            ),
            (
                "init --domain lab.internal --name attic",
                "One with a domain for private use, and a name for this node",
            ),
        ],
    ),
    (
        "join",
        &[
            (
                "join 192.0.2.1 --token -",
                "With a token that is asked for, as `agent invite` prints it",
            ),
            (
                "join 192.0.2.1",
                "Without one: an admin types the code that is shown",
            ),
        ],
    ),
    (
        "run",
        &[
            ("run", "Run in this terminal, until Ctrl-C"),
            (
                "run --print-config",
                "Show the configuration with all defaults",
            ),
        ],
    ),
    (
        "invite",
        &[
            ("invite", "One machine, within an hour"),
            ("invite --uses 5 --ttl 1d", "Five machines, within a day"),
            ("invite --role admin", "One that is to be an admin"),
        ],
    ),
    (
        "invite list",
        &[(
            "invite list",
            "See by which invites somebody can still join",
        )],
    ),
    (
        "invite revoke",
        &[("invite revoke 3f9a", "End the invite whose id begins so")],
    ),
    (
        "requests",
        &[
            ("requests", "See who asks to join"),
            ("requests -w", "Wait for the next one"),
        ],
    ),
    (
        "approve",
        &[
            (
                "approve abcd-efgh-ijkm8a",
                "Admit the machine that shows this code",
            ),
            (
                "approve abcd-efgh-ijkm8a --role admin",
                "Admit it as an admin",
            ),
        ],
    ),
    (
        "deny",
        &[("deny tablet", "Refuse the machine that asks by this name")],
    ),
    (
        "evict",
        &[
            ("evict birch", "Remove a node that was lost or stolen"),
            (
                "evict birch --withdraw",
                "Take that back while it isn't done",
            ),
            (
                "evict cedar --root-key /media/stick/root-recovery.pem",
                "Remove an admin without a second one",
            ),
        ],
    ),
    (
        "role add",
        &[
            ("role add birch admin", "Make a node an admin"),
            (
                "role add attic gateway",
                "Have a node take in devices and forward for them",
            ),
        ],
    ),
    (
        "role rm",
        &[("role rm birch admin", "Make an admin an ordinary node")],
    ),
    (
        "role list",
        &[("role list", "See who is an admin, and who a CA node")],
    ),
    ("leave", &[("leave", "Take this machine out of its mesh")]),
    (
        "status",
        &[
            (
                "status",
                "See this node, the others, and what needs attention",
            ),
            ("status -w", "Keep it on the screen"),
            ("status -v", "With all addresses of each node"),
            (
                "status --json | jq -r '.findings[].code'",
                "What needs attention, for a script",
            ),
        ],
    ),
    (
        "peers",
        &[
            ("peers", "See how each node is reached"),
            ("peers -v", "With what went through each tunnel"),
        ],
    ),
    (
        "ping",
        &[
            ("ping birch", "Test the tunnel to a node"),
            ("ping 10.77.0.3", "To the node with this address"),
        ],
    ),
    (
        "netcheck",
        &[
            ("netcheck", "See why others don't reach this node straight"),
            (
                "netcheck --json | jq -r .nat",
                "The kind of NAT, for a script",
            ),
        ],
    ),
    (
        "wait",
        &[
            ("wait", "Until all nodes are live"),
            (
                "wait --nodes 3 --timeout 2m",
                "Until three are, or two minutes are over",
            ),
        ],
    ),
    (
        "seed add",
        &[("seed add 192.0.2.1", "Find the others again by this node")],
    ),
    (
        "tunnel rekey",
        &[("tunnel rekey", "Change this node's WireGuard key")],
    ),
    (
        "service add",
        &[
            (
                "service add photos --port 8080 --check http://localhost:8080/health",
                "A web server, which leaves the answers while it fails",
            ),
            (
                "service add photos --port 8443 --type https",
                "A web site that browsers find at this port by its name",
            ),
            (
                "service add printer --port 631 --type ipp --address 192.168.1.9",
                "A printer that has no agent",
            ),
            (
                "service add wiki --port 80 --share birch",
                "One that birch may run under the same name",
            ),
        ],
    ),
    (
        "service rm",
        &[
            ("service rm photos", "Stop it, and keep the name"),
            ("service rm photos --release", "Give the name back too"),
        ],
    ),
    (
        "service list",
        &[
            ("service list", "See all services and their health"),
            ("service list -w", "Keep it on the screen"),
        ],
    ),
    (
        "record add",
        &[
            ("record add tv A 192.168.1.20", "A name for a device"),
            ("record add www CNAME photos", "Another name for a service"),
            (
                "record add @ MX 10 mail.example.org",
                "Mail for the mesh's domain",
            ),
            (
                "record add tv A 192.168.1.20 --ttl 1h",
                "A name that others may keep for an hour",
            ),
            (
                "record add _acme-challenge.photos TXT VALUE --public",
                "A public CA's challenge for a name of this node",
            ),
        ],
    ),
    (
        "record rm",
        &[
            ("record rm tv A", "Remove what tv leads to"),
            (
                "record rm tv A 192.168.1.20",
                "Remove one address of several",
            ),
        ],
    ),
    (
        "record list",
        &[("record list", "See all records that were added")],
    ),
    ("policy show", &[("policy show", "See who may reach what")]),
    (
        "policy edit",
        &[("policy edit", "Change the policy in your editor")],
    ),
    (
        "policy check",
        &[(
            "policy check policy.toml",
            "Find what is wrong with a policy",
        )],
    ),
    (
        "policy set",
        &[
            (
                "policy set policy.toml",
                "Have the whole mesh follow a policy",
            ),
            ("policy set -", "One that comes by standard input"),
        ],
    ),
    (
        "policy explain",
        &[
            (
                "policy explain ben-phone nextcloud:443",
                "See which rule lets a phone reach a service",
            ),
            (
                "policy explain group:kids members:tcp/22",
                "See whether anybody of a group reaches SSH",
            ),
        ],
    ),
    (
        "device add",
        &[
            (
                "device add phone --qr",
                "Add a phone, with a QR code for the WireGuard app",
            ),
            (
                "device add laptop --out laptop.conf",
                "Add a laptop, with a file for wg-quick",
            ),
            (
                "device add phone --gateway birch --routes 192.168.1.0/24 --qr",
                "One that comes in by birch, and reaches a LAN behind a gateway",
            ),
        ],
    ),
    (
        "device list",
        &[
            (
                "device list",
                "See each device, when it was seen and where from",
            ),
            (
                "device list --json | jq -r '.[] | select(.stale != []).name'",
                "Those that have to be configured again, for a script",
            ),
        ],
    ),
    (
        "device show",
        &[(
            "device show phone",
            "See its configuration, but for the private key",
        )],
    ),
    (
        "device renew",
        &[(
            "device renew phone --qr",
            "Make a new key and a new QR code for a phone",
        )],
    ),
    (
        "device rename",
        &[(
            "device rename phone old-phone",
            "Give a device another name",
        )],
    ),
    (
        "device rm",
        &[("device rm phone", "Cut off a phone that was lost")],
    ),
    (
        "route add",
        &[
            (
                "route add 192.168.1.0/24",
                "Let the mesh reach the LAN that this gateway stands in",
            ),
            (
                "route add 192.168.1.0/24 --gateway attic",
                "The same for another gateway, by an admin",
            ),
        ],
    ),
    (
        "route rm",
        &[(
            "route rm 192.168.1.0/24",
            "Stop reaching it by this gateway",
        )],
    ),
    (
        "route list",
        &[("route list", "See which networks are reached, and how")],
    ),
    (
        "publish",
        &[
            (
                "publish mail --port 25 --on vps",
                "Strangers reach the mail server, seen by their own addresses",
            ),
            (
                "publish web --port 443 --on vps --proxy-protocol",
                "A service in a container, which is told the addresses in a header",
            ),
            ("publish", "See what is published, and whether it works"),
        ],
    ),
    (
        "publish list",
        &[(
            "publish list",
            "See what is published, and whether it works",
        )],
    ),
    (
        "unpublish",
        &[
            (
                "unpublish mail --port 25 --on vps",
                "Close one port; open connections end",
            ),
            ("unpublish mail", "Close all that lead to a service"),
        ],
    ),
    (
        "exit",
        &[("exit", "See the exits, and which one this node uses")],
    ),
    (
        "exit use",
        &[
            (
                "exit use attic",
                "Reach the internet by attic, and hosts in the LAN as before",
            ),
            (
                "exit use attic --lan cut",
                "The same in a LAN of strangers, whose hosts aren't reached",
            ),
        ],
    ),
    (
        "exit off",
        &[(
            "exit off",
            "Reach the internet by this node's own way again",
        )],
    ),
    (
        "exit show",
        &[("exit show", "See the exits, and which one this node uses")],
    ),
    (
        "cert issue",
        &[
            (
                "cert issue photos --exec 'systemctl reload nginx'",
                "A certificate for a web server, renewed for ever",
            ),
            (
                "cert issue db --group postgres --out /etc/innermesh/certs/db",
                "One that PostgreSQL may read",
            ),
        ],
    ),
    (
        "cert renew",
        &[
            ("cert renew photos", "Renew one now"),
            (
                "cert renew photos --new-key",
                "With a new key, after the old one leaked",
            ),
        ],
    ),
    (
        "cert list",
        &[
            ("cert list", "See all certificates"),
            (
                "cert list --expiring 30d --node birch",
                "Those of birch that end within a month",
            ),
        ],
    ),
    (
        "cert revoke",
        &[("cert revoke 0a1b2c3d", "Revoke one whose key is lost")],
    ),
    ("cert rm", &[("cert rm photos", "Let it end in its time")]),
    (
        "ca status",
        &[("ca status", "See who votes and who issues")],
    ),
    (
        "ca root",
        &[("ca root > root.pem", "Save the root for another machine")],
    ),
    (
        "ca promote",
        &[(
            "ca promote birch --root-key /media/stick/root-recovery.pem",
            "Make birch a CA node, with the root's key on a stick",
        )],
    ),
    (
        "ca demote",
        &[("ca demote birch", "Make it an ordinary node")],
    ),
    (
        "ca log",
        &[
            ("ca log --limit 20", "The last changes"),
            (
                "ca log --since 2d --kind evict",
                "Who was evicted in two days",
            ),
        ],
    ),
    (
        "ca eab",
        &[("ca eab nas", "A key for the ACME client of a NAS")],
    ),
    (
        "ca recover",
        &[(
            "ca recover --root-key /media/stick/root-recovery.pem",
            "Continue with this node alone",
        )],
    ),
    (
        "ca root-key export",
        &[("ca root-key export /media/stick", "Copy it to a USB stick")],
    ),
    (
        "ca root-key seal",
        &[(
            "ca root-key seal --copy /media/stick/root-recovery.pem",
            "Remove it here, as the copy is good",
        )],
    ),
    (
        "ca trust install",
        &[(
            "ca trust install",
            "Have browsers here accept the mesh's certificates",
        )],
    ),
    ("ca trust uninstall", &[("ca trust uninstall", "Undo that")]),
    (
        "ca trust status",
        &[("ca trust status", "See which stores have the root")],
    ),
    (
        "dns query",
        &[
            ("dns query photos", "Look up a name of the mesh"),
            ("dns query example.org AAAA", "Any name and type"),
            ("dns query 10.77.0.3", "The name of an address"),
            (
                "dns query photos --source 192.168.1.20",
                "What a host of the LAN is told",
            ),
        ],
    ),
    (
        "dns log",
        &[
            (
                "dns log --follow",
                "See each question to this node and its answer",
            ),
            ("dns log", "Who asks most for what, while somebody follows"),
            (
                "dns log --follow --json | jq -r 'select(.rcode == \"SERVFAIL\").name'",
                "Names that fail, for a script",
            ),
        ],
    ),
    (
        "dns zone",
        &[
            ("dns zone > mesh.zone", "Save all names as a zone file"),
            ("dns zone --out /tmp/zones", "A file for each zone"),
            ("dns zone --public", "What to import at the registrar's DNS"),
            (
                "dns zone --public --verify",
                "Whether the public DNS says so",
            ),
            (
                "dns zone --public --delegated",
                "Name servers to set at the registrar",
            ),
            (
                "dns zone --public --delegated --verify",
                "Whether they are set, and all answer alike",
            ),
        ],
    ),
    (
        "dns secondary add",
        &[
            (
                "dns secondary add ns2 --address 192.0.2.53",
                "Let a BIND, Knot or NSD copy all zones",
            ),
            (
                "dns secondary add ns2 --address 192.0.2.53 --print knot",
                "Print only the lines for Knot's configuration",
            ),
            (
                "dns secondary add ns2 --address 192.0.2.53 --key ns2.key",
                "With the key that it has already from another node",
            ),
        ],
    ),
    (
        "dns secondary list",
        &[("dns secondary list", "See what each has, and when it asked")],
    ),
    (
        "dns secondary rm",
        &[("dns secondary rm ns2", "Give it nothing more, at once")],
    ),
    (
        "dns setup",
        &[("dns setup", "Have all programs here find the mesh's names")],
    ),
    ("dns restore", &[("dns restore", "Take that back")]),
    (
        "dns docker",
        &[
            (
                "dns docker",
                "Show what has containers find the mesh's names",
            ),
            (
                "dns docker --write",
                "Write it to Docker's own /etc/docker/daemon.json",
            ),
        ],
    ),
    (
        "log level",
        &[
            ("log level", "See how much is logged"),
            ("log level debug", "Log more until the next start"),
        ],
    ),
    (
        "config check",
        &[
            ("config check", "Before the agent is started again"),
            ("config check ./config.toml", "Of another file"),
        ],
    ),
    (
        "config show",
        &[("config show", "See what the agent would run with")],
    ),
    (
        "config example",
        &[(
            "config example > config.toml",
            "Begin with all keys explained",
        )],
    ),
    ("demo", &[("demo", "Try it, and leave nothing behind")]),
    (
        "completions",
        &[(
            "completions bash > ~/.local/share/bash-completion/completions/agent",
            "For the shell of one user",
        )],
    ),
    ("man", &[("man | man -l -", "Read the manual page")]),
    ("version", &[("version --json", "For a script")]),
];
