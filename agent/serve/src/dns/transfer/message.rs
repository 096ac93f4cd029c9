//! Messages about zone transfers, read from their bytes: what a MAC covers is what
//! came, octet for octet (RFC 8945 §4.3.2).

use innermesh_proto::zone::DomainName;

pub(super) const HEADER: usize = 12;
pub(super) const SOA: u16 = 6;
pub(super) const OPT: u16 = 41;
pub(super) const TSIG: u16 = 250;
pub(super) const IXFR: u16 = 251;
pub(super) const AXFR: u16 = 252;
pub(super) const IN: u16 = 1;
pub(super) const ANY: u16 = 255;
/// In the third byte of a header: a response.
pub(super) const QR: u8 = 0x80;
/// In the third byte of a header, shifted: NOTIFY (RFC 1996 §3.1).
pub(super) const NOTIFY: u8 = 4;
/// A name in a message refers back; each reference goes further back, so this many
/// is more than any writer uses.
const POINTERS: usize = 16;

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is no well-formed DNS message")]
pub(super) struct Malformed;

/// A message with one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message<'m> {
    pub bytes: &'m [u8],
    pub id: u16,
    /// The third and the fourth byte.
    pub flags: [u8; 2],
    pub name: DomainName,
    pub qtype: u16,
    pub qclass: u16,
    /// Where the question ends.
    pub question_end: usize,
    /// Serial of the first SOA in the authority section: what the client has
    /// (RFC 1995 §3).
    pub serial: Option<u32>,
    /// Whether it has an OPT record.
    pub has_opt: bool,
    pub tsig: Option<Tsig<'m>>,
}

/// A TSIG record (RFC 8945 §4.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tsig<'m> {
    /// Where the record begins.
    pub start: usize,
    pub key: DomainName,
    pub algorithm: DomainName,
    /// Seconds since 1970, 48 bits.
    pub time_s: u64,
    pub fudge_s: u16,
    pub mac: &'m [u8],
    pub original_id: u16,
    pub error: u16,
    pub other: &'m [u8],
}

impl<'m> Message<'m> {
    /// Reads a message. TSIG stands last and once (RFC 8945 §5.1), OPT once.
    pub fn read(bytes: &'m [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader { bytes, at: 0 };
        let id = reader.u16()?;
        let flags = [reader.u8()?, reader.u8()?];
        let mut counts = [0; 4];
        for count in &mut counts {
            *count = reader.u16()?;
        }
        if counts[0] != 1 {
            return Err(Malformed);
        }
        let name = reader.name()?;
        let (qtype, qclass) = (reader.u16()?, reader.u16()?);
        let mut message = Self {
            bytes,
            id,
            flags,
            name,
            qtype,
            qclass,
            question_end: reader.at,
            serial: None,
            has_opt: false,
            tsig: None,
        };
        for (section, count) in [1, 2, 3].into_iter().zip([counts[1], counts[2], counts[3]]) {
            for _ in 0..count {
                message.record(&mut reader, section)?;
            }
        }
        if reader.at == bytes.len() {
            Ok(message)
        } else {
            Err(Malformed)
        }
    }

    pub fn opcode(&self) -> u8 {
        self.flags[0] >> 3 & 0xf
    }

    /// Name, type and class as they came.
    pub fn question(&self) -> &'m [u8] {
        self.bytes
            .get(HEADER..self.question_end)
            .unwrap_or_default()
    }

    fn record(&mut self, reader: &mut Reader<'m>, section: u8) -> Result<(), Malformed> {
        let start = reader.at;
        let owner = reader.name()?;
        let (rtype, class) = (reader.u16()?, reader.u16()?);
        let ttl = [reader.u16()?, reader.u16()?];
        let length = usize::from(reader.u16()?);
        let end = reader.at + length;
        if end > reader.bytes.len() || self.tsig.is_some() {
            return Err(Malformed);
        }
        match (rtype, section) {
            (SOA, 2) if self.serial.is_none() => {
                // The names may refer back, the numbers stand behind them.
                reader.name()?;
                reader.name()?;
                let serial = [reader.u16()?, reader.u16()?];
                let numbers = reader.take(16)?;
                if numbers.len() != 16 || reader.at != end {
                    return Err(Malformed);
                }
                self.serial = Some(u32::from(serial[0]) << 16 | u32::from(serial[1]));
            }
            (OPT, 3) if !self.has_opt && owner.is_root() => self.has_opt = true,
            (OPT, _) => return Err(Malformed),
            (TSIG, 3) if class == ANY && ttl == [0, 0] => {
                self.tsig = Some(reader.tsig(start, owner, end)?);
            }
            (TSIG, _) => return Err(Malformed),
            _ => {}
        }
        reader.at = end;
        Ok(())
    }
}

/// Whether bytes are a request with additional records, which a signed one has; of
/// all others nothing need be read.
pub(super) fn may_be_signed(bytes: &[u8]) -> bool {
    bytes
        .first_chunk::<HEADER>()
        .is_some_and(|header| header[10..] != [0, 0])
}

struct Reader<'m> {
    bytes: &'m [u8],
    at: usize,
}

impl<'m> Reader<'m> {
    fn take(&mut self, length: usize) -> Result<&'m [u8], Malformed> {
        let taken = self.bytes.get(self.at..self.at + length).ok_or(Malformed)?;
        self.at += length;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        match self.take(1)? {
            [byte] => Ok(*byte),
            _ => Err(Malformed),
        }
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        match self.take(2)? {
            [high, low] => Ok(u16::from_be_bytes([*high, *low])),
            _ => Err(Malformed),
        }
    }

    /// A name, which may refer back (RFC 1035 §4.1.4), in lower case.
    fn name(&mut self) -> Result<DomainName, Malformed> {
        let mut labels: Vec<&[u8]> = Vec::new();
        let mut at = self.at;
        let mut end = None;
        let mut pointers = 0;
        loop {
            let length = *self.bytes.get(at).ok_or(Malformed)?;
            match length {
                0 => break,
                1..=63 => {
                    let label = self.bytes.get(at + 1..at + 1 + usize::from(length));
                    labels.push(label.ok_or(Malformed)?);
                    at += 1 + usize::from(length);
                }
                0xc0.. => {
                    let low = *self.bytes.get(at + 1).ok_or(Malformed)?;
                    let to = usize::from(length & 0x3f) << 8 | usize::from(low);
                    pointers += 1;
                    if to >= at || pointers > POINTERS {
                        return Err(Malformed);
                    }
                    end.get_or_insert(at + 2);
                    at = to;
                }
                _ => return Err(Malformed),
            }
            // Each label is an octet at least, and a name has at most 127.
            if labels.len() > 127 {
                return Err(Malformed);
            }
        }
        self.at = end.unwrap_or(at + 1);
        DomainName::from_labels(labels).ok_or(Malformed)
    }

    fn tsig(&mut self, start: usize, key: DomainName, end: usize) -> Result<Tsig<'m>, Malformed> {
        let algorithm = self.name()?;
        let time = [self.u16()?, self.u16()?, self.u16()?];
        let fudge_s = self.u16()?;
        let length = self.u16()?.into();
        let mac = self.take(length)?;
        let (original_id, error) = (self.u16()?, self.u16()?);
        let length = self.u16()?.into();
        let other = self.take(length)?;
        if self.at != end {
            return Err(Malformed);
        }
        Ok(Tsig {
            start,
            key,
            algorithm,
            time_s: time
                .iter()
                .fold(0, |time, part| time << 16 | u64::from(*part)),
            fudge_s,
            mac,
            original_id,
            error,
            other,
        })
    }
}

/// Reads any bytes as a transfer's request or a NOTIFY's answer; whether they are one.
pub fn read_any(bytes: &[u8]) -> bool {
    let Ok(message) = Message::read(bytes) else {
        return false;
    };
    assert!(message.question_end <= bytes.len());
    if let Some(tsig) = &message.tsig {
        assert!(tsig.start >= message.question_end);
        assert!(tsig.start + tsig.mac.len() + tsig.other.len() < bytes.len());
    }
    true
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A question for `lab.internal` with these records behind it.
    pub fn question(qtype: u16, counts: [u8; 3], rest: &[&[u8]]) -> Vec<u8> {
        let [answers, authorities, additionals] = counts;
        let mut bytes = vec![
            0x12,
            0x34,
            0,
            0,
            0,
            1,
            0,
            answers,
            0,
            authorities,
            0,
            additionals,
        ];
        bytes.extend(b"\x03LAB\x08internal\0");
        bytes.extend(qtype.to_be_bytes());
        bytes.extend([0, 1]);
        bytes.extend(rest.concat());
        bytes
    }

    /// An SOA record with that serial, its names as they may be compressed.
    pub fn soa(serial: u32) -> Vec<u8> {
        let mut record = vec![0xc0, 12, 0, 6, 0, 1, 0, 0, 0, 5, 0, 0];
        let mut data = b"\x02ns\xc0\x0c\x0ahostmaster\xc0\x0c".to_vec();
        data.extend(serial.to_be_bytes());
        data.extend([0; 16]);
        record[11] = u8::try_from(data.len()).unwrap();
        record.extend(data);
        record
    }

    const OPT_RECORD: [u8; 11] = [0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 0];

    fn tsig(mac: &[u8]) -> Vec<u8> {
        let mut data = b"\x0bhmac-sha256\0".to_vec();
        data.extend([0, 1, 0, 0, 0, 2, 1, 44]);
        data.extend(u16::try_from(mac.len()).unwrap().to_be_bytes());
        data.extend(mac);
        data.extend([0x12, 0x34, 0, 0, 0, 0]);
        let mut record = b"\x02k1\0\x00\xfa\x00\xff\0\0\0\0".to_vec();
        record.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        record.extend(data);
        record
    }

    #[test]
    fn a_request_says_what_is_wanted_what_there_is_and_who_asks() {
        let (soa, tsig) = (soa(0xfff0_0001), tsig(&[7; 32]));
        let bytes = question(IXFR, [0, 1, 2], &[&soa, &OPT_RECORD, &tsig]);
        let message = Message::read(&bytes).unwrap();
        assert_eq!(message.name, "lab.internal".parse().unwrap());
        assert_eq!(
            (message.id, message.qtype, message.qclass),
            (0x1234, IXFR, IN)
        );
        assert_eq!(message.serial, Some(0xfff0_0001));
        assert!(message.has_opt);
        assert_eq!(message.question(), b"\x03LAB\x08internal\0\0\xfb\0\x01");
        let signed = message.tsig.unwrap();
        assert_eq!(signed.key, "k1".parse().unwrap());
        assert_eq!(signed.algorithm, "hmac-sha256".parse().unwrap());
        assert_eq!((signed.time_s, signed.fudge_s), (0x1_0000_0002, 300));
        assert_eq!(signed.mac, [7; 32]);
        assert_eq!(signed.original_id, 0x1234);
        assert_eq!(signed.start, bytes.len() - tsig.len());
    }

    #[test]
    fn a_signature_stands_last_and_once_and_nothing_is_left_over() {
        let sig = tsig(&[7; 32]);
        for bytes in [
            question(AXFR, [0, 0, 2], &[&sig, &OPT_RECORD]),
            question(AXFR, [0, 0, 2], &[&sig, &sig]),
            question(AXFR, [0, 0, 2], &[&OPT_RECORD, &OPT_RECORD]),
            question(AXFR, [1, 0, 0], &[&sig]),
            question(AXFR, [0, 0, 1], &[&sig, b"x"]),
            question(AXFR, [0, 0, 2], &[&sig]),
            question(AXFR, [0, 0, 0], &[]).split_off(1),
        ] {
            assert_eq!(Message::read(&bytes), Err(Malformed));
        }
        let mut two = question(AXFR, [0, 0, 0], &[]);
        two[5] = 2;
        assert_eq!(Message::read(&two), Err(Malformed));
    }

    #[test]
    fn names_refer_back_only_and_not_in_a_circle() {
        let mut bytes = question(IXFR, [0, 1, 0], &[&soa(5)]);
        assert!(Message::read(&bytes).is_ok());
        let owner = bytes.len() - soa(5).len();
        for to in [owner, owner + 1, owner + 12, 0x3fff] {
            let [high, low] = u16::try_from(to).unwrap().to_be_bytes();
            bytes[owner] = 0xc0 | high;
            bytes[owner + 1] = low;
            assert_eq!(Message::read(&bytes), Err(Malformed), "{to}");
        }
    }

    #[test]
    fn whatever_is_damaged_is_read_or_refused_and_never_panics() {
        let bytes = question(IXFR, [0, 1, 2], &[&soa(9), &OPT_RECORD, &tsig(&[7; 32])]);
        for end in 0..=bytes.len() {
            for (at, with) in (0..end).flat_map(|at| [0, 1, 63, 192, 255].map(|with| (at, with))) {
                let mut damaged = bytes[..end].to_vec();
                damaged[at] = with;
                read_any(&damaged);
            }
        }
    }
}
