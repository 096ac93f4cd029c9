//! A question as a line: `u 0100 NAME TYPE` and, behind that, what is odd about it.
//!
//! | word | meaning |
//! |---|---|
//! | `u`, `t` | over UDP, over TCP |
//! | `0100` | the header's flags, in hexadecimal |
//! | NAME | with `\DDD` for odd octets; `#…` is hexadecimal, as it goes on the wire |
//! | `{4}` `{6}` `{a4}` `{a6}` | in a name: the reverse zones' origins, the node's addresses in them |
//! | `c=3` | class |
//! | `n=2,0,0,0` | counts of the header, where they aren't what follows |
//! | `o=VERSION,RCODE,SIZE,FLAGS,OPTIONS` | an OPT record |
//! | `r=…` | octets behind all that |
//! | `cut=9` | so many octets are sent |

use std::fmt::Write as _;

use data_encoding::HEXLOWER;

pub const IN: u16 = 1;

/// An OPT record's type.
const OPT: u16 = 41;
/// The flag of a response.
const QR: u16 = 0x8000;

/// A question in all its parts.
#[derive(Clone, Debug)]
pub struct Question {
    /// The line that it was read from.
    pub line: String,
    pub is_tcp: bool,
    pub flags: u16,
    /// As on the wire.
    pub name: Vec<u8>,
    pub rtype: u16,
    pub class: u16,
    counts: Option<[u16; 4]>,
    pub opts: Vec<Opt>,
    pub rest: Vec<u8>,
    pub cut: Option<usize>,
}

#[derive(Clone, Debug)]
pub struct Opt {
    pub version: u8,
    rcode: u8,
    size: u16,
    pub flags: u16,
    pub options: Vec<u8>,
}

/// What stands in names for what differs from mesh to mesh.
#[derive(Clone, Debug)]
pub struct Places {
    pub v4: String,
    pub v6: String,
    pub own_v4: String,
    pub own_v6: String,
}

impl Question {
    pub fn read(line: &str, places: &Places) -> Option<Self> {
        let mut words = line.split(' ');
        let is_tcp = match words.next()? {
            "t" => true,
            "u" => false,
            _ => return None,
        };
        let flags = u16::from_str_radix(words.next()?, 16).ok()?;
        let name = places.fill(words.next()?);
        let mut question = Self {
            line: line.to_owned(),
            is_tcp,
            flags,
            name: wire(&name)?,
            rtype: words.next()?.parse().ok()?,
            class: IN,
            counts: None,
            opts: Vec::new(),
            rest: Vec::new(),
            cut: None,
        };
        for word in words {
            let (key, value) = word.split_once('=')?;
            match key {
                "c" => question.class = value.parse().ok()?,
                "n" => question.counts = Some(numbers(value)?.try_into().ok()?),
                "o" => question.opts.push(Opt::read(value)?),
                "r" => question.rest = HEXLOWER.decode(value.as_bytes()).ok()?,
                "cut" => question.cut = Some(value.parse().ok()?),
                _ => return None,
            }
        }
        Some(question)
    }

    pub fn message(&self, id: u16) -> Vec<u8> {
        let opts = u16::try_from(self.opts.len()).expect("a few");
        let counts = self.counts.unwrap_or([1, 0, 0, opts]);
        let mut message = Vec::new();
        for word in [&[id, self.flags][..], &counts].concat() {
            message.extend(word.to_be_bytes());
        }
        message.extend(&self.name);
        message.extend(self.rtype.to_be_bytes());
        message.extend(self.class.to_be_bytes());
        for opt in &self.opts {
            opt.write(&mut message);
        }
        message.extend(&self.rest);
        message.truncate(self.cut.unwrap_or(usize::MAX));
        message
    }

    pub fn opcode(&self) -> u16 {
        self.flags >> 11 & 15
    }

    /// Whether octets follow that no count in the header tells of.
    pub fn has_trailing(&self) -> bool {
        self.counts.is_none() && !self.rest.is_empty()
    }

    /// Whether some servers say nothing to it at all.
    pub fn may_be_silent(&self) -> bool {
        let is_plain_name = wire_end(&self.name) == Some(self.name.len()) && self.name.len() <= 255;
        self.counts.is_some() || self.cut.is_some() || self.flags & QR != 0 || !is_plain_name
    }

    /// Whether one of its options has this code.
    pub fn has_option(&self, code: u16) -> bool {
        let [high, low] = code.to_be_bytes();
        let mut opts = self.opts.iter();
        opts.any(|opt| opt.options.starts_with(&[high, low]))
    }

    /// Whether the name, whatever its case, is this one or below it.
    pub fn is_within(&self, origin: &str) -> bool {
        let origin = wire(origin).expect("a name");
        let name = self.name.to_ascii_lowercase();
        let mut at = 0;
        while let Some(length) = name.get(at).copied() {
            if name[at..] == origin {
                return true;
            }
            if length == 0 || length > 63 {
                return false;
            }
            at += usize::from(length) + 1;
        }
        false
    }
}

impl Opt {
    fn read(value: &str) -> Option<Self> {
        let mut parts = value.split(',');
        let mut number = || parts.next()?.parse::<u16>().ok();
        let (version, rcode, size) = (number()?, number()?, number()?);
        let flags = u16::from_str_radix(parts.next()?, 16).ok()?;
        let options = parts.next().unwrap_or_default().as_bytes();
        Some(Self {
            version: u8::try_from(version).ok()?,
            rcode: u8::try_from(rcode).ok()?,
            size,
            flags,
            options: HEXLOWER.decode(options).ok()?,
        })
    }

    fn write(&self, message: &mut Vec<u8>) {
        message.push(0);
        message.extend(OPT.to_be_bytes());
        message.extend(self.size.to_be_bytes());
        message.extend([self.rcode, self.version]);
        message.extend(self.flags.to_be_bytes());
        let length = u16::try_from(self.options.len()).expect("a few");
        message.extend(length.to_be_bytes());
        message.extend(&self.options);
    }
}

impl Places {
    /// Of a mesh whose reverse zones and node are these.
    pub fn fill(&self, name: &str) -> String {
        let Self {
            v4,
            v6,
            own_v4,
            own_v6,
        } = self;
        [("{4}", v4), ("{6}", v6), ("{a4}", own_v4), ("{a6}", own_v6)]
            .into_iter()
            .fold(name.to_owned(), |name, (place, with)| {
                name.replace(place, with)
            })
    }
}

/// A name as it goes on the wire.
pub fn wire(name: &str) -> Option<Vec<u8>> {
    if let Some(raw) = name.strip_prefix('#') {
        return HEXLOWER.decode(raw.as_bytes()).ok();
    }
    let mut out = Vec::new();
    let mut label = Vec::new();
    let mut rest = name.trim_end_matches('.').bytes();
    if name.trim_end_matches('.').is_empty() {
        return Some(vec![0]);
    }
    let end = |label: &mut Vec<u8>, out: &mut Vec<u8>| {
        out.push(u8::try_from(label.len()).ok()?);
        out.append(label);
        Some(())
    };
    while let Some(octet) = rest.next() {
        match octet {
            b'\\' => {
                let digits = [rest.next()?, rest.next()?, rest.next()?];
                let digits = String::from_utf8(digits.into()).ok()?;
                label.push(digits.parse().ok()?);
            }
            b'.' => end(&mut label, &mut out)?,
            other => label.push(other),
        }
    }
    end(&mut label, &mut out)?;
    out.push(0);
    Some(out)
}

/// Where a name that is written out ends.
fn wire_end(name: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match *name.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            _ => return None,
        }
    }
}

/// An octet of a name as it stands in a line.
pub fn shown(octet: u8) -> String {
    let mut text = String::new();
    match octet {
        b'-' | b'_' | b'*' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
            text.push(char::from(octet));
        }
        _ => {
            let _ = write!(text, "\\{octet:03}");
        }
    }
    text
}

fn numbers(value: &str) -> Option<Vec<u16>> {
    value.split(',').map(|n| n.parse().ok()).collect()
}
