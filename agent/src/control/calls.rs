//! The client's calls about who may: see [`super::authority::Authority`].

use hyper::{Method, body::Bytes};
use innermesh_proto::{certificate::Serial, name::Label};

use super::{
    authority::{
        Admitted, ApproveRequest, CertRevoked, Denied, EvictRequest, Evicted, Left, RecordAdd,
        RecordRow, Rekeyed, RequestRow,
    },
    client::{Answer, Client, escape},
    routes::DenyRequest,
    server::Done,
};

impl Client {
    /// Users' DNS records.
    ///
    /// # Errors
    /// [`ClientError`](super::ClientError), here and below.
    pub async fn record_list(&self) -> Answer<Vec<RecordRow>> {
        self.get("/v1/records").await
    }

    /// Adds one.
    ///
    /// # Errors
    /// [`ClientError`](super::ClientError).
    pub async fn record_add(&self, record: &RecordAdd) -> Answer<RecordRow> {
        self.post("/v1/records", record).await
    }

    /// Takes all of a name and type away.
    ///
    /// # Errors
    /// [`ClientError`](super::ClientError).
    pub async fn record_rm(&self, name: &str, rtype: &str) -> Answer<()> {
        let path = format!("/v1/records?name={}&type={}", escape(name), escape(rtype));
        self.delete(&path).await
    }

    /// Evicts a member.
    ///
    /// # Errors
    /// [`ClientError`](super::ClientError).
    pub async fn evict(&self, request: &EvictRequest) -> Answer<Evicted> {
        self.post("/v1/evictions", request).await
    }

    /// Lets a member back in that was only cut off.
    ///
    /// # Errors
    /// [`ClientError`](super::ClientError).
    pub async fn evict_undo(&self, node: &Label) -> Answer<()> {
        self.delete(&format!("/v1/evictions/{node}")).await
    }

    /// Takes this machine out of the mesh, or a step towards it.
    ///
    /// # Errors
    /// [`ClientError`](super::ClientError).
    pub async fn leave(&self) -> Answer<Left> {
        self.call(Method::POST, "/v1/leave", Bytes::new()).await
    }

    /// Gives this machine a new WireGuard key.
    ///
    /// # Errors
    /// [`ClientError`](super::ClientError).
    pub async fn tunnel_rekey(&self) -> Answer<Rekeyed> {
        self.call(Method::POST, "/v1/tunnel/rekey", Bytes::new())
            .await
    }

    /// Who asks to be let in.
    ///
    /// # Errors
    /// [`ClientError`](super::ClientError).
    pub async fn request_list(&self) -> Answer<Vec<RequestRow>> {
        self.call(Method::POST, "/v1/requests", Bytes::new()).await
    }

    /// Lets a machine in.
    ///
    /// # Errors
    /// [`ClientError`](super::ClientError).
    pub async fn approve(&self, request: &ApproveRequest) -> Answer<Admitted> {
        self.post("/v1/requests/approve", request).await
    }

    /// Refuses a machine.
    ///
    /// # Errors
    /// [`ClientError`](super::ClientError).
    pub async fn deny(&self, which: &str) -> Answer<Denied> {
        let which = which.to_owned();
        self.post("/v1/requests/deny", &DenyRequest { which }).await
    }

    /// Revokes a certificate.
    ///
    /// # Errors
    /// [`ClientError`](super::ClientError).
    pub async fn cert_revoke(&self, serial: &Serial) -> Answer<CertRevoked> {
        let path = format!("/v1/certificates/{serial}");
        self.call(Method::DELETE, &path, Bytes::new()).await
    }

    async fn delete(&self, path: &str) -> Answer<()> {
        let Done {} = self.call(Method::DELETE, path, Bytes::new()).await?;
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use async_trait::async_trait;
    use serde_json::json;

    use super::*;
    use crate::control::{
        ControlError, ErrorCode,
        authority::{Authority, EvictionState, RequestState},
        tests::{FakeAgent, served},
    };

    fn row() -> RecordRow {
        RecordRow {
            name: "tv.in.example.org.".into(),
            rtype: "A".into(),
            value: "192.0.2.9".into(),
            public: false,
            owner: "alpha".into(),
        }
    }

    #[async_trait]
    impl Authority for FakeAgent {
        async fn record_list(&self) -> Vec<RecordRow> {
            vec![row()]
        }
        async fn record_add(&self, record: RecordAdd) -> Result<RecordRow, ControlError> {
            Ok(RecordRow {
                name: record.name,
                rtype: record.rtype,
                value: record.value,
                public: record.public,
                owner: "alpha".into(),
            })
        }
        async fn record_rm(&self, name: String, rtype: String) -> Result<(), ControlError> {
            Err(ControlError::new(
                ErrorCode::Refused,
                format!("{name}|{rtype}"),
            ))
        }
        async fn evict(&self, request: EvictRequest) -> Result<Evicted, ControlError> {
            Ok(Evicted {
                node: request.node.to_string(),
                state: EvictionState::Waiting,
                cut_off: request.root.is_none(),
                seen: None,
            })
        }
        async fn tunnel_rekey(&self) -> Result<Rekeyed, ControlError> {
            Ok(Rekeyed {
                key: "new".into(),
                previous: "old".into(),
            })
        }
        async fn request_list(&self) -> Result<Vec<RequestRow>, ControlError> {
            Ok(vec![RequestRow {
                name: "tablet".into(),
                node: "abcd".into(),
                address: "192.0.2.7:4000".parse().unwrap(),
                via: "alpha".into(),
                age_s: 5,
                state: RequestState::Ready,
                admin: Some("alpha".into()),
            }])
        }
        async fn approve(&self, request: ApproveRequest) -> Result<Admitted, ControlError> {
            Ok(Admitted {
                name: request.code,
                node: "abcd".into(),
                addresses: vec!["10.9.0.7".parse().unwrap()],
            })
        }
        async fn deny(&self, which: String) -> Result<Denied, ControlError> {
            Ok(Denied {
                name: which,
                addresses: vec!["192.0.2.7:4000".parse().unwrap()],
            })
        }
        async fn cert_revoke(&self, serial: Serial) -> Result<CertRevoked, ControlError> {
            Ok(CertRevoked {
                serial: serial.to_string(),
                names: vec!["photos.in.example.org".into()],
                node: "alpha".into(),
            })
        }
        async fn leave(&self) -> Result<Left, ControlError> {
            Err(ControlError::new(ErrorCode::Refused, "the last CA node"))
        }
        async fn evict_undo(&self, node: Label) -> Result<(), ControlError> {
            Err(ControlError::new(ErrorCode::Refused, node))
        }
    }

    #[tokio::test]
    async fn records_arrive_as_they_were_written() {
        let served = served(FakeAgent::default()).await;
        let client = &served.client;
        let record = RecordAdd {
            name: "tv.in.example.org".into(),
            rtype: "TXT".into(),
            value: "a b".into(),
            public: true,
        };
        let added = client.record_add(&record).await.unwrap();
        assert_eq!((added.value.as_str(), added.public), ("a b", true));
        let refused = client.record_rm("*.tv&type=x", "TXT").await.unwrap_err();
        assert_eq!(refused.to_string(), "*.tv&type=x|TXT");
        let serial: Serial = "AA:".repeat(16).parse().unwrap();
        let revoked = client.cert_revoke(&serial).await.unwrap();
        assert_eq!(revoked.serial, "aa".repeat(16));
        assert_eq!(
            serde_json::to_value(client.record_list().await.unwrap()).unwrap(),
            json!([{
                "name": "tv.in.example.org.", "type": "A", "value": "192.0.2.9",
                "public": false, "owner": "alpha",
            }])
        );
    }
}
