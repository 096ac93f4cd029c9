//! `agent invite`.

use innermesh_proto::{limits, name::NamePattern};
use ipnet::IpNet;

use super::{
    context::Context,
    failure::Failure,
    output::{Detail, Output, note},
    role::RoleName,
    show::{Cell, Column, Screen, Table, until},
};
use crate::control::{
    Client,
    members::{InviteListRequest, InviteRequest, InviteRevokeRequest, InviteRow},
};
use crate::host::duration::{Span, SpanError};

/// Print a token with which another machine can join.
///
/// With `list` or `revoke`, look after those that are open.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Arguments {
    #[command(subcommand)]
    open: Option<Open>,
    #[command(flatten)]
    new: NewArguments,
}

/// What is done with invites that are open.
#[derive(Debug, clap::Subcommand)]
enum Open {
    /// List the invites by which somebody can still join.
    ///
    /// All admins' nodes that are connected are asked for theirs.
    #[command(visible_alias = "ls")]
    List {
        #[command(flatten)]
        detail: Detail,
        #[command(flatten)]
        output: Output,
    },
    /// Let nobody join by an invite any more.
    Revoke {
        /// Its id, or the beginning of it.
        ///
        /// As `agent invite list` shows it.
        #[arg(value_name = "ID")]
        id: String,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, clap::Args)]
struct NewArguments {
    /// Let the token expire after this time.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = lifetime)]
    ttl: Span,
    /// Let this many machines join with it.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::TOKEN_USES)))]
    uses: u32,
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
    /// Allow names to lead to this outside network (repeatable).
    ///
    /// Such as 192.168.1.0/24. With both 0.0.0.0/0 and ::/0 they may lead to
    /// names outside too.
    #[arg(long, value_name = "NET")]
    addresses: Vec<IpNet>,
    #[command(flatten)]
    output: Output,
}

/// No lifetime of a token.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum LifetimeError {
    #[error(transparent)]
    Span(#[from] SpanError),
    #[error("a token is valid for 1s to {}", MOST)]
    Range,
}

const MOST: Span = Span(limits::TOKEN_LIFETIME_MS / 1000);

fn lifetime(text: &str) -> Result<Span, LifetimeError> {
    let span: Span = text.parse()?;
    if (1..=MOST.0).contains(&span.0) {
        Ok(span)
    } else {
        Err(LifetimeError::Range)
    }
}

pub async fn run(arguments: Arguments, context: &Context) -> Result<(), Failure> {
    let client = &context.client();
    match arguments.open {
        None => invite(arguments.new, client).await,
        Some(Open::List { detail, output }) => {
            let list = client.ask(&InviteListRequest {}).await?;
            output.show(detail, &list, |screen| draw(screen, &list.invites))?;
            if !output.is_json() && !list.unasked.is_empty() {
                note(&format!(
                    "no answer from {}: what was given out there isn't listed",
                    list.unasked.join(", ")
                ));
            }
            Ok(())
        }
        Some(Open::Revoke { id, output }) => {
            let revoked = client.ask(&InviteRevokeRequest { id }).await?;
            output.print(&revoked, || {
                format!(
                    "nobody joins by the invite {} of {} any more\n",
                    revoked.id, revoked.by
                )
            })
        }
    }
}

fn draw(screen: &mut Screen, invites: &[InviteRow]) {
    if invites.is_empty() {
        return screen.say("no invite is open; `agent invite` makes one\n");
    }
    let mut table = Table::new([
        Column::whole("ID"),
        Column::new("MADE ON"),
        Column::new("FOR"),
        Column::whole("USES LEFT"),
        Column::whole("ENDS"),
        Column::extra("MADE"),
    ]);
    let mut invites: Vec<&InviteRow> = invites.iter().collect();
    invites.sort_by(|a, b| (a.expires, &a.id).cmp(&(b.expires, &b.id)));
    let now = screen.now();
    for row in invites {
        table.add([
            Cell::new(&row.id),
            Cell::new(&row.by),
            Cell::new(gives(row)),
            Cell::new(format!("{} of {}", row.uses_left, row.uses)),
            Cell::new(until(now, row.expires)).in_full(row.expires),
            Cell::new(row.made),
        ]);
    }
    screen.table(&table);
}

/// What whoever joins by it gets.
fn gives(row: &InviteRow) -> String {
    let mut parts: Vec<String> = row.roles.clone();
    let names = row.names.iter().map(ToString::to_string);
    parts.extend(names.filter(|name| name != "*"));
    let nets = row.routes.iter().chain(&row.addresses);
    parts.extend(nets.map(ToString::to_string));
    if parts.is_empty() {
        return "a node".into();
    }
    parts.join(", ")
}

async fn invite(arguments: NewArguments, client: &Client) -> Result<(), Failure> {
    let request = InviteRequest {
        ttl_s: arguments.ttl.0,
        uses: arguments.uses,
        roles: arguments
            .roles
            .iter()
            .map(|name| name.role().to_string())
            .collect(),
        names: arguments.names,
        routes: arguments.routes,
        addresses: arguments.addresses,
    };
    let invite = client.ask(&request).await?;
    let (ttl, uses) = (arguments.ttl, arguments.uses);
    let is_ca = arguments.roles.contains(&RoleName::Ca);
    let times = match uses {
        1 => "one machine".to_string(),
        n => format!("{n} machines"),
    };
    arguments.output.print(&invite, || {
        let mut out = format!(
            "Run this on the machine that is to join:\n\n  {}\n\n\
             It asks for the token, which is good for {times} and {ttl}:\n\n{}\n\n\
             `agent invite revoke {}` ends it before.\n\n",
            invite.asking, invite.token, invite.id
        );
        if is_ca {
            out.push_str(
                "Once it has joined, have it decide and issue, here or on another admin's machine:\n\n  \
                 agent ca promote NAME\n\n",
            );
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::UnixTime;

    #[test]
    fn invites_fit_the_terminal_and_the_next_to_end_comes_first() {
        let row = |id: &str, hours: u64| InviteRow {
            id: id.into(),
            by: "raspberry-pi-in-the-garage-02".into(),
            roles: vec!["admin".into(), "ca".into()],
            names: vec!["*".parse().unwrap(), "web-*".parse().unwrap()],
            routes: vec!["192.168.178.0/24".parse().unwrap()],
            addresses: vec!["fd12:3456:789a:bcde::/64".parse().unwrap()],
            uses: 100,
            uses_left: 99,
            made: UnixTime::from_ms(0),
            expires: UnixTime::from_ms(hours * 3_600_000),
        };
        let invites = [row("00ff00ff", 100), row("ff00ff00", 3)];
        let text = crate::cli::show::fits(|screen| draw(screen, &invites));
        assert!(text.find("in 3h") < text.find("in 4d"), "{text}");
        assert!(text.contains("ff00ff00"), "{text}");
    }

    #[test]
    fn a_token_lives_for_thirty_days_at_most() {
        assert_eq!(lifetime("30d"), Ok(Span(30 * 86_400)));
        assert!(lifetime("31d").is_err());
        assert!(lifetime("0s").is_err());
        assert!(lifetime("soon").is_err());
    }
}
