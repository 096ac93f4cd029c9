//! Every request, with fields that are hard to write.

use innermesh_host::identity::FileIdentity;
use innermesh_proto::{
    certificate::Serial, filter::LanAccess, limits, name::Label, zone::Protocol,
};

use crate::{
    acme::*, all::AnyRequest, ca::*, certificates::*, der::Der, devices::*, dns::*, exits::*,
    log::*, members::*, node::*, policy::*, publish::*, records::*, renewals::*, request::Request,
    routes::*, secondaries::*, services::*, spec::Spec,
};

/// Something to do with each request.
pub(super) trait EachRequest {
    async fn visit<R: Request>(&mut self, request: R)
    where
        AnyRequest: From<R::Subject>;
}

pub(super) fn label(name: &str) -> Label {
    name.parse().unwrap()
}

fn photos() -> Spec {
    Spec {
        name: label("photos"),
        port: 8080,
        protocol: Protocol::Udp,
        service_type: "https".parse().ok(),
        check: Some("http://127.0.0.1:8080/health".parse().unwrap()),
        address: Some("192.0.2.7".parse().unwrap()),
        share: [label("beta")].into(),
        wildcard: true,
    }
}

fn which() -> WhichRenewal {
    WhichRenewal {
        name: "photos".into(),
        folder: Some("/etc/innermesh/certs".into()),
    }
}

pub(super) fn wish() -> RenewalWish {
    RenewalWish {
        names: vec!["photos.in.example.org".into()],
        days: 90,
        folder: "/etc/innermesh/certs".into(),
        stem: "photos".into(),
        owner: Some(33),
        group: None,
        mode: 0o640,
        new_key: true,
        renew_before_s: Some(3600),
        exec: Some("systemctl reload nginx".into()),
        exec_now: false,
    }
}

fn root_signed() -> RootSigned {
    RootSigned {
        until_ms: u64::MAX,
        signature: Der(vec![0xff; 71]),
    }
}

/// Every request, with fields that are hard to write.
async fn each_device_request(each: &mut impl EachRequest) {
    let public_key = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=".to_owned();
    let lan = || vec!["192.168.5.0/24".parse().unwrap()];
    each.visit(DeviceListRequest {}).await;
    let name = || label("phone");
    each.visit(DeviceShowRequest { name: name() }).await;
    each.visit(DeviceAddRequest {
        name: name(),
        public_key: public_key.clone(),
        owner: Some(label("beta")),
        gateways: vec![label("birch")],
        routes: lan(),
        full_tunnel: true,
        dns: false,
        groups: vec![label("family")],
        ttl_s: Some(60),
    })
    .await;
    each.visit(DeviceRenewRequest {
        name: name(),
        public_key,
        gateways: Some(vec![label("birch")]),
        routes: Some(lan()),
        full_tunnel: None,
        dns: Some(true),
        ttl_s: None,
    })
    .await;
    let to = label("handy");
    each.visit(DeviceRenameRequest { name: name(), to }).await;
    each.visit(DeviceRmRequest { name: name() }).await;
}

pub(super) async fn each_request(each: &mut impl EachRequest) {
    each.visit(StatusRequest {}).await;
    each.visit(PeersRequest {}).await;
    each.visit(NetcheckRequest {}).await;
    let (node, count) = (label("beta"), limits::PINGS);
    each.visit(PingRequest { node, count }).await;
    each.visit(RekeyRequest {}).await;
    let address = "192.0.2.1".to_owned();
    each.visit(SeedAddRequest { address }).await;
    each.visit(LeaveRequest {}).await;

    each.visit(InviteRequest {
        ttl_s: u64::MAX,
        uses: 2,
        roles: vec!["admin".into()],
        names: vec!["web-*".parse().unwrap()],
        routes: vec!["192.0.2.0/24".parse().unwrap()],
        addresses: vec!["2001:db8::/32".parse().unwrap()],
    })
    .await;
    let (node, root) = (label("beta"), Some(Der(vec![0xff; 70])));
    each.visit(EvictRequest { node, root }).await;
    each.visit(EvictUndoRequest {
        node: label("beta"),
    })
    .await;
    each.visit(InviteListRequest {}).await;
    let id = "00ff 11/22".into();
    each.visit(InviteRevokeRequest { id }).await;
    each.visit(RoleRequest {
        node: label("beta"),
        role: "admin".into(),
        give: true,
        root: Some(root_signed()),
    })
    .await;
    let node = label("beta");
    each.visit(RoleWordRequest { node }).await;
    each.visit(AdmissionsRequest {}).await;
    let (code, grants) = ("1234-5678".into(), Grants::default());
    each.visit(ApproveRequest { code, grants }).await;
    let which_machine = "a \"tablet\" & more".into();
    each.visit(DenyRequest {
        which: which_machine,
    })
    .await;

    each.visit(ServiceListRequest {}).await;
    each.visit(ServiceAddRequest(photos())).await;
    let (name, release) = (label("photos"), true);
    each.visit(ServiceRmRequest { name, release }).await;

    each.visit(CertListRequest {}).await;
    each.visit(CertRequest {
        names: vec!["photos.in.example.org".into()],
        csr: Der(vec![1, 2]),
        days: 1,
    })
    .await;
    let serial: Serial = "AA:".repeat(16).parse().unwrap();
    each.visit(CertRevokeRequest { serial }).await;

    each.visit(RenewalAddRequest(wish())).await;
    each.visit(RenewalCheckRequest {
        folder: "/etc/innermesh/certs".into(),
        stem: "photos".into(),
        seen: FileIdentity {
            device: u64::MAX,
            inode: 7,
        },
    })
    .await;
    let (which, new_key) = (which(), true);
    each.visit(RenewalRmRequest(which.clone())).await;
    each.visit(RenewNowRequest { which, new_key }).await;

    each.visit(RecordListRequest {}).await;
    each.visit(RecordAddRequest {
        name: "tv.in.example.org".into(),
        rtype: "TXT".into(),
        value: "a b%20\n\u{e9}".into(),
        ttl_s: Some(60),
        public: true,
    })
    .await;
    let value = Some("\"a\" &b=%+".to_owned());
    for value in [None, value] {
        let (name, rtype) = ("*.tv &type=x+%/?#".into(), "TXT".into());
        each.visit(RecordRmRequest { name, rtype, value }).await;
    }

    each.visit(RouteListRequest {}).await;
    each.visit(RouteChangeRequest {
        net: "2001:db8:1::/64".parse().unwrap(),
        gateway: Some(label("beta")),
        give: true,
    })
    .await;

    each.visit(PublishListRequest {}).await;
    each.visit(PublishRequest {
        name: label("mail"),
        port: 25,
        to_port: Some(2525),
        on: label("beta"),
        proxy_protocol: true,
    })
    .await;
    each.visit(UnpublishRequest {
        name: label("mail"),
        port: Some(25),
        on: Some(label("beta")),
    })
    .await;
    each.visit(ExitShowRequest {}).await;
    each.visit(ExitUseRequest {
        node: label("attic"),
        lan: LanAccess::Cut,
    })
    .await;
    each.visit(ExitOffRequest {}).await;

    each.visit(CaStatusRequest {}).await;
    each.visit(CaRootRequest {}).await;
    each.visit(CaKeysRequest {
        node: label("beta"),
    })
    .await;
    let (node, issuers) = (label("beta"), vec![Der(vec![1, 2])]);
    each.visit(PromoteRequest { node, issuers }).await;
    let (node, root) = (label("beta"), Some(root_signed()));
    each.visit(DemoteRequest { node, root }).await;
    each.visit(RecoveryRequest {}).await;
    let signed = Der(vec![7]);
    each.visit(RecoverRequest { signed }).await;

    let name = "tv.in.example.org".to_owned();
    each.visit(EabAddRequest { name: name.clone() }).await;
    each.visit(EabRmRequest { name }).await;

    let (name, rtype) = ("a b&type=x".into(), "AAAA".into());
    let source = Some([192, 168, 1, 9].into());
    let query = DnsQueryRequest {
        name,
        rtype,
        source,
    };
    each.visit(query).await;
    each.visit(DnsResolverRequest {}).await;
    each.visit(DnsSetupRequest {}).await;
    each.visit(DnsReleaseRequest {}).await;
    each.visit(DnsZoneRequest {}).await;
    each.visit(DnsLogRequest {}).await;
    each.visit(DnsLogFollowRequest { from: Some(7) }).await;
    let addresses = vec![[203, 0, 113, 7].into()];
    let public = DnsPublicRequest {
        addresses: addresses.clone(),
    };
    each.visit(public).await;
    let at = Some(([9, 9, 9, 9], 53).into());
    each.visit(DnsVerifyRequest { addresses, at }).await;
    let name = || label("ns2");
    each.visit(SecondaryAddRequest {
        name: name(),
        addresses: vec!["[fd00::53]:5300".parse().unwrap()],
        zones: vec!["77.10.in-addr.arpa".to_owned()],
        listen: Some("[fd00::1]:53".parse().unwrap()),
        key: Some(KeyText("key \"a&b\" {}".to_owned())),
        algorithm: Some("hmac-sha512".to_owned()),
    })
    .await;
    each.visit(SecondaryListRequest {}).await;
    each.visit(SecondaryRmRequest { name: name() }).await;
    each.visit(DnsDelegationRequest {}).await;
    each.visit(DnsVerifyDelegationRequest { at }).await;

    each_device_request(each).await;

    let text = "[default]\nmembers = \"closed\"\n".to_owned();
    each.visit(PolicyShowRequest {}).await;
    each.visit(PolicySetRequest {
        text: text.clone(),
        allow_unknown: true,
        instead_of: Some(3),
    })
    .await;
    each.visit(PolicyCheckRequest {
        text,
        allow_unknown: false,
    })
    .await;
    each.visit(PolicyExplainRequest {
        from: "group:kids".to_owned(),
        to: "[fd00::/64]:tcp/443".to_owned(),
    })
    .await;

    each.visit(LogRequest {}).await;
    let level = "info,innermesh_net::quic=trace".parse().ok();
    each.visit(LogSetRequest { level }).await;
}
