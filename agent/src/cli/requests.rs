//! `agent requests`, `approve` and `deny`.

use std::str::FromStr;

use ipnet::IpNet;

use innermesh_proto::{admission::Code, name::NamePattern};

use super::{
    failure::Failure,
    init,
    output::{Detail, Output},
    role::RoleName,
    show::{Cell, Column, Frame, Screen, Table, Watch, ago},
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
    watch: Watch,
    #[command(flatten)]
    detail: Detail,
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
    let RequestsArguments {
        watch,
        detail,
        output,
    } = *arguments;
    let look = async || {
        let mut requests = client.ask(&AdmissionsRequest {}).await?;
        let shown = output.render(detail, &requests, |screen| draw(screen, &requests))?;
        // It goes on by itself, which is no news.
        requests.iter_mut().for_each(|row| row.age_s = 0);
        Ok(Frame {
            shown,
            news: format!("{requests:?}"),
            warnings: Vec::new(),
        })
    };
    watch.run(output, look).await
}

fn draw(screen: &mut Screen, requests: &[RequestRow]) {
    if requests.is_empty() {
        return screen.say(
            "no machine asks to join; run `agent join SEED` on it first, with the address of a \
             node\n",
        );
    }
    let mut table = Table::new([
        Column::whole("NAME"),
        Column::new("ADDRESS"),
        Column::new("ASKS"),
        Column::whole("SINCE"),
        Column::new("ANSWERED BY"),
        Column::extra("ID"),
    ]);
    for row in requests {
        table.add([
            Cell::new(&row.name),
            Cell::new(row.address.ip()).in_full(row.address),
            Cell::new(&row.via),
            Cell::new(ago(row.age_s)),
            Cell::or_dash(row.admin.as_ref()),
            Cell::new(&row.node),
        ]);
    }
    screen.table(&table.sorted());
    if requests.iter().any(|row| row.state == RequestState::Ready) {
        screen.say("\n");
        screen.paragraph("The machine shows a code now: `agent approve CODE` admits it.");
    }
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
    use crate::cli::show::{fits, plain};

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
        let rows = [row];
        assert_eq!(
            plain(|screen| draw(screen, &rows)),
            "\
NAME    ADDRESS    ASKS   SINCE   ANSWERED BY
tablet  192.0.2.7  alpha  5s ago  alpha

The machine shows a code now: `agent approve CODE` admits it.
"
        );
        assert!(plain(|screen| draw(screen, &[])).contains("agent join SEED"));
        let [mut row] = rows;
        row.name = "tablet-of-the-living-room-upstairs".into();
        row.address = "[fd12:3456:789a:bcde:f012:3456:789a:bcde]:4000"
            .parse()
            .unwrap();
        (row.via, row.admin) = (row.name.clone(), Some(row.name.clone()));
        let _ = fits(|screen| draw(screen, std::slice::from_ref(&row)));
    }
}
