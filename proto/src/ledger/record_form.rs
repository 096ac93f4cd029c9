//! How users' records are encoded. A record without a TTL of its own is encoded
//! as it was before there were such; one with it counts from rules 3 on, and is
//! no record to a build that doesn't know those.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::record::{AddRecord, RecordData, UserRecord};
use crate::{
    id::NodeId,
    zone::{Caa, DomainName, Mx, Srv, Svcb},
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

/// [`RecordData`] with its variants' numbers, and one more.
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
            assert_eq!(read::<AddRecord>(&newer), Some(newer));
        }
    }
}
