//! `agent requests`, `approve` and `deny`.

use std::str::FromStr;

use ipnet::IpNet;

use innermesh_proto::{admission::Code, name::NamePattern};

use super::{
    failure::Failure,
    init,
    output::{Output, or_dash, table},
    role::RoleName,
};
use crate::control::{
    Client,
    members::{AdmissionsRequest, ApproveRequest, DenyRequest, Grants, RequestRow, RequestState},
};

/// Show the machines that ask to join without a token.
///
/// Run it on an admin's node. All connected nodes are asked. The machines then
/// show their codes, to be typed into `agent approve`.
#[derive(Debug, clap::Args)]
pub struct RequestsArguments {
    #[command(flatten)]
    output: Output,
}

/// Admit the machine that shows this code.
///
/// There is one attempt: after a code that no machine shows, each machine has
/// to ask again. A machine gets no roles and no routes unless they are given
/// here.
#[derive(Debug, clap::Args)]
pub struct ApproveArguments {
    /// The code that `agent join` shows on the machine.
    #[arg(value_name = "CODE", value_parser = code)]
    code: String,
    /// Grant a role (repeatable).
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<RoleName>,
    /// Allow a route, such as 192.168.1.0/24 (repeatable).
    #[arg(long = "route", value_name = "NET")]
    routes: Vec<IpNet>,
    /// Allow names, such as web-* (repeatable) [default: all that this node may
    /// grant].
    #[arg(long, value_name = "PATTERN")]
    names: Vec<NamePattern>,
    #[command(flatten)]
    output: Output,
}

/// Refuse a machine that asks to join.
#[derive(Debug, clap::Args)]
pub struct DenyArguments {
    /// Its code, or its name as `agent requests` shows it.
    #[arg(value_name = "CODE")]
    which: String,
    #[command(flatten)]
    output: Output,
}

/// What is no code at all isn't the one attempt.
fn code(text: &str) -> Result<String, <Code as FromStr>::Err> {
    Ok(text.parse::<Code>()?.to_string())
}

pub async fn requests(arguments: &RequestsArguments, client: &Client) -> Result<(), Failure> {
    let requests = client.ask(&AdmissionsRequest {}).await?;
    arguments.output.print(&requests, || text(&requests))
}

fn text(requests: &[RequestRow]) -> String {
    if requests.is_empty() {
        return "no machine asks to join; run `agent join SEED` on it first, with the address of a \
                node\n"
            .into();
    }
    let rows: Vec<_> = requests
        .iter()
        .map(|row| {
            [
                row.name.clone(),
                row.address.ip().to_string(),
                row.via.clone(),
                format!("{}s", row.age_s),
                or_dash(row.admin.as_ref()),
            ]
        })
        .collect();
    let mut out = table(["NAME", "ADDRESS", "ASKS", "SINCE", "ANSWERED BY"], &rows);
    if requests.iter().any(|row| row.state == RequestState::Ready) {
        out.push_str("\nThe machine shows a code now: `agent approve CODE` admits it.\n");
    }
    out
}

pub async fn approve(arguments: ApproveArguments, client: &Client) -> Result<(), Failure> {
    let request = ApproveRequest {
        code: arguments.code,
        grants: Grants {
            roles: arguments
                .roles
                .iter()
                .map(|name| name.role().to_string())
                .collect(),
            names: arguments.names,
            routes: arguments.routes,
        },
    };
    let admitted = client.ask(&request).await?;
    arguments.output.print(&admitted, || {
        format!(
            "{} has joined: {}\n",
            admitted.name,
            init::join(&admitted.addresses)
        )
    })
}

pub async fn deny(arguments: &DenyArguments, client: &Client) -> Result<(), Failure> {
    let which = arguments.which.clone();
    let denied = client.ask(&DenyRequest { which }).await?;
    arguments.output.print(&denied, || {
        let from: Vec<String> = denied
            .addresses
            .iter()
            .map(|a| a.ip().to_string())
            .collect();
        format!("{} at {} is refused\n", denied.name, from.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_as_a_code_is_read_before_anything_is_asked() {
        let typed = code("ABCD efgh-ijkm").expect("as an older machine shows it");
        assert!(typed.starts_with("abcd-efgh-ijkm-"), "{typed}");
        assert_eq!(code(&typed.to_uppercase()).as_ref(), Ok(&typed));
        let mistyped = typed.replacen('a', "b", 1);
        let why = code(&mistyped).unwrap_err().to_string();
        assert!(why.contains("the code is mistyped"), "{why}");
        assert!(code("abcd").unwrap_err().to_string().contains("14 letters"));
    }

    #[test]
    fn who_asks_is_shown_with_address_and_what_to_do() {
        let row = RequestRow {
            name: "tablet".into(),
            node: "abcd".into(),
            address: "192.0.2.7:4000".parse().unwrap(),
            via: "alpha".into(),
            age_s: 5,
            state: RequestState::Ready,
            admin: Some("alpha".into()),
        };
        assert_eq!(
            text(&[row]),
            "\
NAME    ADDRESS    ASKS   SINCE  ANSWERED BY
tablet  192.0.2.7  alpha  5s     alpha

The machine shows a code now: `agent approve CODE` admits it.
"
        );
        assert!(text(&[]).contains("agent join SEED"));
    }
}
