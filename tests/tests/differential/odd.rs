//! What makes `odd.txt`: first each odd form once with a few names, then, by a fixed
//! seed, names and forms of every kind together.

use std::collections::BTreeSet;

use crate::question::shown;

/// How many lines there are.
pub const LINES: usize = 3000;
const SEED: u64 = 0x1035_2181_4592_6891;

/// What the zones hold, and what is around that.
const KNOWN: [&str; 30] = [
    "lab.internal.",
    "alpha.lab.internal.",
    "ns.lab.internal.",
    "web.lab.internal.",
    "_web._tcp.lab.internal.",
    "_tcp.lab.internal.",
    "time.alpha.lab.internal.",
    "tv.lab.internal.",
    "box.lab.internal.",
    "twice.lab.internal.",
    "www.lab.internal.",
    "none.lab.internal.",
    "nodata.lab.internal.",
    "round.lab.internal.",
    "to-wild.lab.internal.",
    "_sip._udp.lab.internal.",
    "mail.lab.internal.",
    "lamps.lab.internal.",
    "below.lamps.lab.internal.",
    "a.b.c.deep.lab.internal.",
    "c.deep.lab.internal.",
    "site.lab.internal.",
    "_8443._https.site.lab.internal.",
    "_dns.ns2.lab.internal.",
    "long.lab.internal.",
    "many.lab.internal.",
    "{4}",
    "{a4}",
    "{6}",
    "{a6}",
];

/// Beside the zones, above them, and names with a meaning of their own.
const OUTSIDE: [&str; 24] = [
    ".",
    "internal.",
    "xlab.internal.",
    "lab.internal.x.",
    "lab.internals.",
    "ab.internal.",
    "lab\\046internal.",
    "alpha\\046lab.internal.",
    "in-addr.arpa.",
    "10.in-addr.arpa.",
    "d.f.ip6.arpa.",
    "x{4}",
    "1.0.0.127.in-addr.arpa.",
    "8.8.8.8.in-addr.arpa.",
    "localhost.",
    "printer.local.",
    "version.bind.",
    "id.server.",
    "_dns.resolver.arpa.",
    "use-application-dns.net.",
    "www.example.org.",
    "com.",
    "test.",
    "a.root-servers.net.",
];

/// Below the reverse zones: whole, half, too long, and nobody's.
const REVERSE: [&str; 16] = [
    "0.{4}",
    "255.255.{4}",
    "1.1.1.{4}",
    "256.0.{4}",
    "00.0.{4}",
    "x.{4}",
    "*.{4}",
    "-1.{4}",
    "x.{a4}",
    "0.{6}",
    "f.f.{6}",
    "g.{6}",
    "00.{6}",
    "0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.{6}",
    "x.{a6}",
    "*.{6}",
];

/// What no name is on the wire, or is in a way that no question has it.
const DAMAGED: [&str; 13] = [
    "#c00c",
    "#0161c00c",
    "#c020",
    "#c000",
    "#c00b",
    "#ffff",
    "#41616161",
    "#816100",
    "#056162",
    "#3f61",
    "#05616c7068610500",
    "#05616c706861c00c",
    "#",
];

const TYPES: [u16; 40] = [
    1, 1, 1, 2, 5, 6, 12, 13, 15, 16, 28, 28, 33, 64, 65, 257, 0, 3, 10, 17, 29, 35, 41, 43, 44,
    46, 47, 48, 50, 52, 99, 128, 249, 250, 254, 255, 256, 258, 65280, 65535,
];

const FLAGS: [&str; 26] = [
    "0000", "0000", "0000", "0100", "0100", "0020", "0010", "0030", "0120", "0110", "0130", "0040",
    "0080", "0200", "0400", "0001", "0003", "000f", "07f0", "0800", "1000", "1800", "2000", "2800",
    "3000", "7800",
];

const CLASSES: [u16; 8] = [0, 2, 3, 4, 254, 255, 256, 65535];
const SIZES: [u16; 12] = [
    0, 1, 511, 512, 513, 700, 1000, 1231, 1232, 1233, 4096, 65535,
];

/// Of an OPT record: cookies, a subnet, padding and others, whole, empty, damaged.
const OPTIONS: [&str; 22] = [
    "00030000",
    "000a00086162636465666768",
    "000a0003616263",
    "000a0009616263646566676869",
    "000a0018616263646566676861626364656667686162636465666768",
    "000a00296161616161616161616161616161616161616161616161616161616161616161616161616161616161",
    "000a0000",
    "0008000700011800c00002",
    "0008000400010000",
    "00080003090909",
    "000c0003000000",
    "000c0000",
    "000b0000",
    "000b00020001",
    "000f00020000",
    "00090000",
    "000d0100",
    "fffe00026162",
    "00",
    "000c00096100",
    "0003000000030000",
    "000e0002abcd",
];

/// What stands behind a question in place of an OPT record, and how it is counted.
const BEHIND: [(&str, &str); 20] = [
    ("0,0,0,0", ""),
    ("2,0,0,0", ""),
    ("2,0,0,0", "03777777036c616208696e7465726e616c0000010001"),
    ("2,0,0,0", "c00c00010001"),
    ("65535,0,0,0", ""),
    ("1,1,0,0", ""),
    ("1,0,1,0", ""),
    ("1,0,0,1", ""),
    ("1,0,0,65535", ""),
    ("1,1,0,0", "000001000100000001000401020304"),
    ("1,0,1,0", "000001000100000001000401020304"),
    ("1,0,0,1", "000001000100000001000401020304"),
    ("1,1,0,0", "00002904d0000000000000"),
    ("1,0,1,0", "00002904d0000000000000"),
    ("1,0,0,2", "00002904d000000000000000002904d0000000000000"),
    (
        "1,0,0,2",
        "00000100010000000100040102030400002904d0000000000000",
    ),
    (
        "1,0,0,2",
        "00002904d0000000000000000001000100000001000401020304",
    ),
    ("1,0,0,1", "016100002904d0000000000000"),
    ("1,0,0,1", "00002904d00000000000"),
    ("1,0,0,1", "c00c002904d0000000000000"),
];

/// Octets behind the last record.
const TRAILING: [&str; 4] = ["00", "000102", "c00c00010001", "00002904d0000000000000"];

/// All lines.
pub fn lines() -> Vec<String> {
    let mut lines = BTreeSet::new();
    let mut ordered = Vec::new();
    let mut add = |line: String| {
        if lines.insert(line.clone()) && ordered.len() < LINES {
            ordered.push(line);
        }
        ordered.len()
    };
    for name in [
        "alpha.lab.internal.",
        "no.lab.internal.",
        "www.example.org.",
    ] {
        for form in each_form() {
            add(form.replace("NAME", name));
        }
    }
    for name in ["long.lab.internal.", "many.lab.internal."] {
        for size in SIZES {
            for flags in ["0000", "8000"] {
                add(format!("u 0100 {name} 16 o=0,0,{size},{flags}"));
                add(format!("u 0000 {name} 1 o=0,0,{size},{flags}"));
            }
        }
        add(format!("u 0000 {name} 16"));
        add(format!("u 0000 {name} 1"));
        add(format!("t 0000 {name} 16"));
    }
    for name in DAMAGED {
        add(format!("u 0100 {name} 1"));
        add(format!("t 0100 {name} 1"));
    }
    for length in 0..46 {
        let line = format!("0100 alpha.lab.internal. 1 o=0,0,1232,0000 cut={length}");
        add(format!("u {line}"));
        if length % 5 == 0 {
            add(format!("t {line}"));
        }
    }
    let mut dice = Dice(SEED);
    while add(dice.line()) < LINES {}
    ordered
}

/// Every odd form by itself.
fn each_form() -> Vec<String> {
    let mut forms = Vec::new();
    for flags in FLAGS {
        forms.push(format!("u {flags} NAME 1"));
    }
    forms.push("u 8000 NAME 1".to_owned());
    for class in CLASSES {
        forms.push(format!("u 0000 NAME 1 c={class}"));
        forms.push(format!("t 0100 NAME 16 c={class}"));
    }
    for options in OPTIONS {
        forms.push(format!("u 0100 NAME 1 o=0,0,1232,0000,{options}"));
    }
    for (counts, rest) in BEHIND {
        let rest = if rest.is_empty() {
            String::new()
        } else {
            format!(" r={rest}")
        };
        forms.push(format!("u 0100 NAME 1 n={counts}{rest}"));
        forms.push(format!("t 0000 NAME 28 n={counts}{rest}"));
    }
    for rest in TRAILING {
        forms.push(format!("u 0100 NAME 1 r={rest}"));
        forms.push(format!("t 0100 NAME 1 o=0,0,1232,0000 r={rest}"));
    }
    for (version, rcode, flags) in [
        (1, 0, "0000"),
        (2, 0, "8000"),
        (255, 0, "0000"),
        (0, 1, "0000"),
        (0, 255, "8000"),
        (0, 0, "8000"),
        (0, 0, "4000"),
        (0, 0, "0001"),
        (0, 0, "ffff"),
    ] {
        forms.push(format!("u 0100 NAME 1 o={version},{rcode},1232,{flags}"));
        forms.push(format!(
            "t 0100 NAME 16 o={version},{rcode},512,{flags},00030000"
        ));
    }
    forms
}

/// Numbers that look drawn, the same each time (Marsaglia's xorshift).
struct Dice(u64);

impl Dice {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).expect("31 bits") % below
    }

    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.next(all.len())]
    }

    fn line(&mut self) -> String {
        let transport = if self.next(4) == 0 { "t" } else { "u" };
        // The usual ones more often.
        let flags = match self.next(3) {
            0 => self.of(&FLAGS),
            _ => self.of(&FLAGS[..5]),
        };
        let (name, rtype) = (self.name(), TYPES[self.next(TYPES.len())]);
        let mut line = format!("{transport} {flags} {name} {rtype}");
        if self.next(20) == 0 {
            line += &format!(" c={}", CLASSES[self.next(CLASSES.len())]);
        }
        match self.next(12) {
            0 => {
                let (counts, rest) = BEHIND[self.next(BEHIND.len())];
                line += &format!(" n={counts}");
                if !rest.is_empty() {
                    line += &format!(" r={rest}");
                }
            }
            1 => line += &format!(" r={}", self.of(&TRAILING)),
            2..7 => line += &self.opt(),
            _ => {}
        }
        line
    }

    fn opt(&mut self) -> String {
        let version = [0, 0, 0, 0, 0, 0, 1, 9][self.next(8)];
        let size = SIZES[self.next(SIZES.len())];
        let flags = self.of(&["0000", "0000", "8000", "8000", "0100"]);
        let options = match self.next(3) {
            0 => format!(",{}", self.of(&OPTIONS)),
            _ => String::new(),
        };
        format!(" o={version},0,{size},{flags}{options}")
    }

    fn name(&mut self) -> String {
        match self.next(14) {
            0..3 => self.of(&KNOWN).to_owned(),
            3 => self.of(&OUTSIDE).to_owned(),
            4 => self.of(&REVERSE).to_owned(),
            5 => {
                let (label, parent) = (self.label(), self.of(&KNOWN));
                format!("{label}.{parent}")
            }
            6 => {
                let (label, parent) = (self.label(), self.of(&OUTSIDE));
                format!("{label}.{}", parent.trim_start_matches('.'))
            }
            7 => {
                let name = self.of(&KNOWN);
                self.mixed(name)
            }
            8 => self.wild(),
            9 => self.odd_octets(),
            10 => self.deep(),
            11 => {
                let letter = self.letter();
                let parent = self.of(&["lab.internal.", "lamps.lab.internal.", "{4}"]);
                format!("{}.{parent}", letter.repeat(63))
            }
            12 => self.longest(),
            _ => {
                // Of what exists, with a label taken away or in between.
                let name = self.of(&["_udp", "_tcp", "b.c.deep", "deep", "x.deep", "_x._tcp"]);
                format!("{name}.lab.internal.")
            }
        }
    }

    fn letter(&mut self) -> &'static str {
        self.of(&["a", "b", "c", "x", "y", "z", "0", "-", "_"])
    }

    fn label(&mut self) -> String {
        let length = 1 + self.next(9);
        (0..length).map(|_| self.letter()).collect()
    }

    fn mixed(&mut self, name: &str) -> String {
        // What stands in braces is filled in later.
        if name.contains('{') {
            return name.to_owned();
        }
        let mixed = name.chars().map(|c| match self.next(2) {
            0 => c.to_ascii_uppercase(),
            _ => c,
        });
        mixed.collect()
    }

    fn wild(&mut self) -> String {
        let parent = self.of(&[
            "lamps.lab.internal.",
            "alias.lab.internal.",
            "alpha.lab.internal.",
            "below.lamps.lab.internal.",
            "lab.internal.",
        ]);
        let labels = match self.next(6) {
            0 => "*.".to_owned(),
            1 => "*.*.".to_owned(),
            2 => format!("{}.*.", self.label()),
            3 => format!("*.{}.", self.label()),
            4 => format!("{}.{}.", self.label(), self.label()),
            _ => format!("{}.", self.label()),
        };
        labels + parent
    }

    fn odd_octets(&mut self) -> String {
        let length = 1 + self.next(6);
        let label: String = (0..length)
            .map(|_| shown(u8::try_from(self.next(256)).expect("an octet")))
            .collect();
        let parent = self.of(&[
            "lab.internal.",
            "lamps.lab.internal.",
            "tv.lab.internal.",
            "internal.",
            "{4}",
        ]);
        format!("{label}.{parent}")
    }

    /// As many labels as there may be, or nearly.
    fn deep(&mut self) -> String {
        let parent = self.of(&[
            "lab.internal.",
            "lamps.lab.internal.",
            "alpha.lab.internal.",
        ]);
        let most = (254 - parent.len()) / 2;
        let labels = most - self.next(4);
        let letter = self.letter();
        format!("{letter}.").repeat(labels) + parent
    }

    /// Names of 255 octets on the wire, of one less, and of one too many.
    fn longest(&mut self) -> String {
        let parent = self.of(&[
            "lab.internal.",
            "lamps.lab.internal.",
            "alpha.lab.internal.",
        ]);
        let letter = self.letter();
        let wanted = 253 + self.next(4);
        // Each label has an octet for its length, and the root has one.
        let mut left = wanted - (parent.len() + 1);
        let mut name = String::new();
        while left > 0 {
            let length = match left - 1 {
                // What is left is enough for one more label.
                64 => 62,
                more => more.min(63),
            };
            name += &format!("{}.", letter.repeat(length));
            left -= length + 1;
        }
        name + parent
    }
}
