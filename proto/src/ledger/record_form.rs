//! How users' records are encoded. A record without a TTL of its own is encoded
//! as it was before there were such; one with it counts from rules 3 on, and is
//! no record to a build that doesn't know those. The same goes for newer types.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::record::{AddRecord, RecordData, UserRecord};
use crate::{
    id::NodeId,
    zone::{Caa, DomainName, Mx, Srv, Sshfp, Svcb, Tlsa},
};

/// [`AddRecord`], encoded.
#[derive(Serialize, Deserialize)]
pub(super) struct AddRecordForm {
    name: DomainName,
    data: DataForm,
    public: bool,
}

/// [`UserRecord`], encoded.
#[derive(Serialize, Deserialize)]
pub(super) struct UserRecordForm {
    data: DataForm,
    public: bool,
    owner: NodeId,
    since: u64,
}

/// [`RecordData`], and one with a TTL, whose variant came before SSHFP's.
#[derive(Serialize, Deserialize)]
enum DataForm {
    A(Ipv4Addr),
    Aaaa(Ipv6Addr),
    Cname(DomainName),
    Txt(Vec<Vec<u8>>),
    Srv(Srv),
    Mx(Mx),
    Caa(Caa),
    Svcb(Svcb),
    Https(Svcb),
    Timed(u32, RecordData),
    Sshfp(Sshfp),
    Tlsa(Tlsa),
}

impl DataForm {
    fn of(data: RecordData, ttl_s: Option<u32>) -> Self {
        if let Some(ttl_s) = ttl_s {
            return Self::Timed(ttl_s, data);
        }
        match data {
            RecordData::A(ip) => Self::A(ip),
            RecordData::Aaaa(ip) => Self::Aaaa(ip),
            RecordData::Cname(name) => Self::Cname(name),
            RecordData::Txt(strings) => Self::Txt(strings),
            RecordData::Srv(srv) => Self::Srv(srv),
            RecordData::Mx(mx) => Self::Mx(mx),
            RecordData::Caa(caa) => Self::Caa(caa),
            RecordData::Svcb(svcb) => Self::Svcb(svcb),
            RecordData::Https(svcb) => Self::Https(svcb),
            RecordData::Sshfp(sshfp) => Self::Sshfp(sshfp),
            RecordData::Tlsa(tlsa) => Self::Tlsa(tlsa),
        }
    }

    fn read(self) -> (RecordData, Option<u32>) {
        let data = match self {
            Self::A(ip) => RecordData::A(ip),
            Self::Aaaa(ip) => RecordData::Aaaa(ip),
            Self::Cname(name) => RecordData::Cname(name),
            Self::Txt(strings) => RecordData::Txt(strings),
            Self::Srv(srv) => RecordData::Srv(srv),
            Self::Mx(mx) => RecordData::Mx(mx),
            Self::Caa(caa) => RecordData::Caa(caa),
            Self::Svcb(svcb) => RecordData::Svcb(svcb),
            Self::Https(svcb) => RecordData::Https(svcb),
            Self::Sshfp(sshfp) => RecordData::Sshfp(sshfp),
            Self::Tlsa(tlsa) => RecordData::Tlsa(tlsa),
            Self::Timed(ttl_s, data) => return (data, Some(ttl_s)),
        };
        (data, None)
    }
}

impl From<AddRecordForm> for AddRecord {
    fn from(form: AddRecordForm) -> Self {
        let (data, ttl_s) = form.data.read();
        Self {
            name: form.name,
            data,
            ttl_s,
            public: form.public,
        }
    }
}

impl From<AddRecord> for AddRecordForm {
    fn from(add: AddRecord) -> Self {
        Self {
            name: add.name,
            data: DataForm::of(add.data, add.ttl_s),
            public: add.public,
        }
    }
}

impl From<UserRecordForm> for UserRecord {
    fn from(form: UserRecordForm) -> Self {
        let (data, ttl_s) = form.data.read();
        Self {
            data,
            ttl_s,
            public: form.public,
            owner: form.owner,
            since: form.since,
        }
    }
}

impl From<UserRecord> for UserRecordForm {
    fn from(record: UserRecord) -> Self {
        Self {
            data: DataForm::of(record.data, record.ttl_s),
            public: record.public,
            owner: record.owner,
            since: record.since,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;

    /// As builds knew it that know no rules 3.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Before {
        name: DomainName,
        data: DataBefore,
        public: bool,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum DataBefore {
        A(Ipv4Addr),
        Aaaa(Ipv6Addr),
        Cname(DomainName),
        Txt(Vec<Vec<u8>>),
        Srv(Srv),
        Mx(Mx),
        Caa(Caa),
    }

    /// As builds knew it that know rules 3 to 6.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Middle {
        name: DomainName,
        data: DataMiddle,
        public: bool,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum DataMiddle {
        A(Ipv4Addr),
        Aaaa(Ipv6Addr),
        Cname(DomainName),
        Txt(Vec<Vec<u8>>),
        Srv(Srv),
        Mx(Mx),
        Caa(Caa),
        Svcb(Svcb),
        Https(Svcb),
        Timed(u32, TimedMiddle),
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum TimedMiddle {
        A(Ipv4Addr),
        Aaaa(Ipv6Addr),
        Cname(DomainName),
        Txt(Vec<Vec<u8>>),
        Srv(Srv),
        Mx(Mx),
        Caa(Caa),
        Svcb(Svcb),
        Https(Svcb),
    }

    fn add(data: RecordData, ttl_s: Option<u32>) -> AddRecord {
        AddRecord {
            name: "x.lab.internal".parse().unwrap(),
            data,
            ttl_s,
            public: true,
        }
    }

    fn read<T: serde::de::DeserializeOwned>(add: &AddRecord) -> Option<T> {
        codec::decode(&codec::encode(add), 4096).ok()
    }

    #[test]
    fn earlier_builds_read_what_they_know_and_nothing_else() {
        let mail = Mx {
            preference: 10,
            exchange: "mail.example".parse().unwrap(),
        };
        let known = add(RecordData::Mx(mail.clone()), None);
        let before = Before {
            name: known.name.clone(),
            data: DataBefore::Mx(mail.clone()),
            public: true,
        };
        assert_eq!(codec::encode(&known), codec::encode(&before));
        assert_eq!(read::<Before>(&known), Some(before));
        let svcb = Svcb::parse("1 . alpn=h2").unwrap();
        for newer in [
            add(RecordData::Mx(mail), Some(60)),
            add(RecordData::Https(svcb.clone()), None),
            add(RecordData::Svcb(svcb.clone()), None),
            add(RecordData::Https(svcb), Some(0)),
        ] {
            assert_eq!(read::<Before>(&newer), None);
            assert!(read::<Middle>(&newer).is_some(), "{newer:?}");
            assert_eq!(read::<AddRecord>(&newer), Some(newer));
        }
        let sshfp = Sshfp::parse(&format!("4 2 {}", "ab".repeat(32))).unwrap();
        let tlsa = Tlsa::parse(&format!("3 1 1 {}", "ab".repeat(32))).unwrap();
        for data in [RecordData::Sshfp(sshfp), RecordData::Tlsa(tlsa)] {
            for newest in [add(data.clone(), None), add(data, Some(60))] {
                assert_eq!(read::<Before>(&newest), None);
                assert_eq!(read::<Middle>(&newest), None);
                assert_eq!(read::<AddRecord>(&newest), Some(newest));
            }
        }
    }
}
