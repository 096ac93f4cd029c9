//! Every request on its way, and where it is asked.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    each::{EachRequest, each_request},
    raw,
};
use crate::{
    all::{AnyRequest, routes},
    error::{ControlError, ErrorCode},
    request::Request,
    testing::{FakeAgent, Served, served},
};

/// Asks each, of an agent that refuses it by showing it.
struct Arrival {
    served: Served,
    asked: BTreeSet<String>,
}

impl EachRequest for Arrival {
    async fn visit<R: Request>(&mut self, request: R)
    where
        AnyRequest: From<R::Subject>,
    {
        let answer = self.served.client.ask(&request).await;
        let refused = answer.err().expect("a refusal").to_string();
        assert_eq!(
            refused,
            format!("{:?}", AnyRequest::from(R::Subject::from(request)))
        );
        self.asked.insert(format!("{} {}", R::METHOD, R::PATH));
    }
}

#[tokio::test]
async fn every_request_arrives_as_it_was_asked() {
    let shows = |request, _| {
        Err(ControlError::new(
            ErrorCode::Refused,
            format!("{request:?}"),
        ))
    };
    let mut arrival = Arrival {
        served: served(FakeAgent::answering(shows)).await,
        asked: BTreeSet::new(),
    };
    each_request(&mut arrival).await;
    let all = routes().into_iter();
    let all: BTreeSet<String> = all.map(|r| format!("{} {}", r.method, r.path)).collect();
    assert_eq!(arrival.asked, all, "each is asked above");
}

/// Looks at where each is asked.
struct Templates;

impl EachRequest for Templates {
    async fn visit<R: Request>(&mut self, request: R)
    where
        AnyRequest: From<R::Subject>,
    {
        let named: Vec<&str> = R::PATH
            .split('/')
            .filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
            .collect();
        if R::METHOD == hyper::Method::POST {
            assert!(
                named.is_empty(),
                "{}: a POST has its fields in its body",
                R::PATH
            );
        }
        let fields = serde_json::to_value(&request).unwrap();
        for name in named {
            let field = fields.get(name);
            assert!(field.is_some_and(Value::is_string), "{}: {fields}", R::PATH);
        }
    }
}

#[tokio::test]
async fn a_path_names_fields_that_its_request_has() {
    each_request(&mut Templates).await;
}

#[test]
fn requests_are_where_older_commands_and_scripts_ask_them() {
    let mut all: Vec<String> = routes()
        .iter()
        .map(|route| {
            let who = if route.changes { "changes" } else { "looks" };
            format!("{} {} {who}", route.path, route.method)
        })
        .collect();
    all.sort();
    assert_eq!(
        all.join("\n"),
        "\
/v1/acme/eab POST changes
/v1/acme/eab/rm POST changes
/v1/ca GET looks
/v1/ca/demote POST changes
/v1/ca/keys POST changes
/v1/ca/promote POST changes
/v1/ca/recover POST changes
/v1/ca/recovery POST changes
/v1/ca/root GET looks
/v1/certificates GET looks
/v1/certificates POST changes
/v1/certificates/{serial} DELETE changes
/v1/device-keys POST changes
/v1/device-names POST changes
/v1/devices GET looks
/v1/devices POST changes
/v1/devices/{name} DELETE changes
/v1/devices/{name} GET changes
/v1/dns/delegation GET looks
/v1/dns/delegation/verify POST changes
/v1/dns/log GET changes
/v1/dns/log POST changes
/v1/dns/public POST looks
/v1/dns/public/verify POST changes
/v1/dns/query GET looks
/v1/dns/resolver GET looks
/v1/dns/resolver/release POST changes
/v1/dns/resolver/setup POST changes
/v1/dns/secondaries GET looks
/v1/dns/secondaries POST changes
/v1/dns/secondaries/rm POST changes
/v1/dns/zone GET looks
/v1/evictions POST changes
/v1/evictions/{node} DELETE changes
/v1/exit GET looks
/v1/exit POST changes
/v1/exit/off POST changes
/v1/invites GET changes
/v1/invites POST changes
/v1/invites/{id} DELETE changes
/v1/leave POST changes
/v1/log GET looks
/v1/log POST changes
/v1/netcheck GET looks
/v1/peers GET looks
/v1/ping GET looks
/v1/policy GET looks
/v1/policy POST changes
/v1/policy/check POST looks
/v1/policy/explain GET looks
/v1/published GET looks
/v1/published POST changes
/v1/records DELETE changes
/v1/records GET looks
/v1/records POST changes
/v1/renewals POST changes
/v1/renewals/check POST changes
/v1/renewals/now POST changes
/v1/renewals/remove POST changes
/v1/requests POST changes
/v1/requests/approve POST changes
/v1/requests/deny POST changes
/v1/roles POST changes
/v1/roles/word POST changes
/v1/routes GET looks
/v1/routes POST changes
/v1/seeds POST changes
/v1/services GET looks
/v1/services POST changes
/v1/services/{name} DELETE changes
/v1/status GET looks
/v1/tunnel/rekey POST changes
/v1/unpublished POST changes"
    );
}

#[tokio::test]
async fn what_older_commands_send_is_understood() {
    let shows = |request, _| {
        Err(ControlError::new(
            ErrorCode::Refused,
            format!("{request:?}"),
        ))
    };
    let served = served(FakeAgent::answering(shows)).await;
    for (line, shown) in [
        (
            "GET /v1/ping?node=beta&count=3",
            "Node(Ping(PingRequest { node: beta, count: 3 }))",
        ),
        ("POST /v1/leave", "Node(Leave(LeaveRequest))"),
        (
            "POST /v1/requests",
            "Members(Admissions(AdmissionsRequest))",
        ),
        (
            "DELETE /v1/services/photos",
            "Services(Rm(ServiceRmRequest { name: photos, release: false }))",
        ),
        (
            "DELETE /v1/services/photos?release=true",
            "Services(Rm(ServiceRmRequest { name: photos, release: true }))",
        ),
        (
            "GET /v1/dns/query?name=a%20b%26c&type=AAAA",
            "Dns(Query(DnsQueryRequest { name: \"a b&c\", rtype: \"AAAA\", source: None }))",
        ),
        (
            "DELETE /v1/records?name=%2A.tv&type=TXT",
            "Records(Rm(RecordRmRequest { name: \"*.tv\", rtype: \"TXT\", value: None }))",
        ),
        (
            "DELETE /v1/records?name=tv&type=A&value=192.0.2.9",
            "Records(Rm(RecordRmRequest { name: \"tv\", rtype: \"A\", value: Some(\"192.0.2.9\") }))",
        ),
    ] {
        let request = format!(
            "{line} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        );
        let answer = raw(&served, request.as_bytes()).await;
        let (_, json) = answer.split_once("\r\n\r\n").unwrap();
        let error: ControlError = serde_json::from_str(json).unwrap();
        assert_eq!(error.message, shown, "{line}");
    }
}
